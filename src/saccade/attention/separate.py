"""Queries, keys and values by a projection each, which together are used as the one projection that they make up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.initial import GeneratorOf, fill_xavier
from saccade.attention.renormed import product


class SeparateProjections(nn.Module):
    """The projection of queries, keys and values in three parts, under the names that xFormers and transformers use.

    What is computed is what the joined projection computes, in one product; gradients and an optimiser see three
    weights.

    Args:
        joined: the projection whose values it takes over.
    """

    def __init__(self, joined: nn.Linear) -> None:
        super().__init__()
        weights = joined.weight.detach().chunk(3)
        biases = (None, None, None) if joined.bias is None else joined.bias.detach().chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The three weights above each other."""
        return torch.cat(tuple(part.weight for part in self._parts))

    @property
    def bias(self) -> Float[Tensor, " o"] | None:
        """The three biases, where there are any."""
        # Two steps, or a type checker believes that a Linear always has one.
        biases = [part.bias for part in self._parts]
        return None if biases[0] is None else torch.cat(tuple(biases))

    def forward(self, x: Float[Tensor, "b n i"]) -> Float[Tensor, "b n o"]:
        """All three of the same tokens, side by side."""
        return product(x, self.weight, self.bias)

    @torch.no_grad()
    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """The joined projection's start: models with and without parts begin equal."""
        weight = self.weight
        fill_xavier(weight, generator_of("weight"), 3)
        for part, values in zip(self._parts, weight.chunk(3), strict=True):
            part.weight.copy_(values)
            if part.bias is not None:
                nn.init.zeros_(part.bias)

    @property
    def _parts(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.q_proj, self.k_proj, self.v_proj


def _linear(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None) -> nn.Linear:
    """A projection with these values."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone())
    return linear
