"""Random attention: a patch sees a random share of the patches, which ones is drawn once."""

from __future__ import annotations

from typing import Unpack

import torch
from jaxtyping import Bool
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.initial import GeneratorOf, unseeded
from saccade.attention.listed import Kernel, Listed, most
from saccade.attention.tokens import Tokens


class Random(Listed):
    """A patch sees a random share of the patches: softmax(QKᵀ/√e) V over pairs that are allowed with one probability.

    Which pairs is drawn once, for all heads and images, and saved with the weights. A patch always sees itself and the
    prefix, so no row is empty; the prefix sees all and is seen by all. A visible subset keeps the pairs of its ids. The
    list of what a patch sees has a fixed length, which a draw exceeds less than once in a million rows; that row loses
    its last patches. Another grid gets another draw.

    Args:
        share: probability that a patch sees another one.
        kernel: how the one function is computed. "gather" copies each patch's keys and values together, "dense"
            computes every score and drops those that are not allowed (all of softmax's FLOPs), "auto" takes what is
            faster: "gather" where the list is shorter than a 40th of the tokens.
    """

    paper = "Zaheer et al. 2020, https://arxiv.org/abs/2007.14062 (its random part, pair by pair)"
    cost = "N² D"
    any_length = True
    free_of_order = False
    needs_grid = False
    exact_when = "share = 1"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        share: float = 0.01,
        kernel: Kernel = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ValueError(f"random(share={share!r}): share must be a number above 0 and below 1")
        self.share = float(share)
        super().__init__("random", dim, num_heads, tokens, layer=layer, kernel=kernel, **shared)
        self.reset_parameters(unseeded)

    def pairs(self, generator_of: GeneratorOf) -> Bool[Tensor, "l l"]:
        """One draw for each pair."""
        count = self.tokens.patches
        return torch.rand(count, count, generator=generator_of("keys"), device="cpu") < self.share

    def longest(self) -> int:
        """Itself and nearly never more than so many others."""
        others = self.tokens.patches - 1
        return 1 + min(others, most(self.share * others))

    def refusal(self, patches: int) -> str | None:
        """Every pair allowed is softmax."""
        if self.share < 1:
            return None
        return f"random(share={self.share}) sees every pair: softmax under another name; share must be below 1"

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """Every pair is drawn."""
        return {"share": 1.0}
