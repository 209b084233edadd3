"""Crowd: tokens that stand for several patches each, as token merging makes them, and what softmax owes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Crowd:
    """What goes with the tokens of one block.

    Attributes:
        sizes: how many patches each token stands for, float32; None where each stands for itself.
        keys: those that the attention has seen, mean over heads, for whoever looks for tokens that are alike; None
            before it has.
    """

    sizes: Float[Tensor, "b n"] | None = None
    keys: Float[Tensor, "b n e"] | None = None

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "b 1 1 n"] | None:
        """Added to the scores of every query: with log s, a token of size s counts as s tokens would."""
        if self.sizes is None:
            return None
        wide = torch.promote_types(dtype, self.sizes.dtype)
        return self.sizes.to(wide).log().to(dtype)[:, None, None]
