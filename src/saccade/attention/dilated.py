"""Dilated attention: a patch looks at every k-th patch of every k-th row."""

from __future__ import annotations

import math
from functools import partial
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.buckets import Cover, attend, attend_flops, crossed, on_axis
from saccade.attention.initial import unseeded
from saccade.attention.masked import Masked
from saccade.attention.parts import coordinates, require_whole
from saccade.attention.tokens import Tokens


class Dilated(Masked):
    """A patch looks at every k-th patch of every k-th row: softmax(QKᵀ/√e) V over Δy ≡ Δx ≡ 0 mod k.

    MaxViT's grid attention: k² interleaved groups, which meet within a layer through the prefix alone, so alternate it
    with window or local. Prefix tokens see everything and are seen by everything.

    Args:
        k: the step.
    """

    paper = "Tu et al. 2022, https://arxiv.org/abs/2204.01697"
    cost = "N² D / K²"
    any_length = False
    free_of_order = False
    needs_grid = True
    exact_when = "k = 1"

    def __init__(
        self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, k: int = 2, **shared: Unpack[Shared]
    ) -> None:
        require_whole("dilated", 1, k=k)
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.k = k
        self.reset_parameters(unseeded)

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """In the same group."""
        return same_group(ids[:, :, None], ids[:, None, :], self.tokens, self.k)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Group by group."""
        return dilated_attention(q, k, v, self.tokens, patches, step=self.k)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Every score of every group, those of its empty places included."""
        return attend_flops(dilated_cover(self.tokens, self.k), self.tokens.prefix, patches, self.dim)

    def refusal(self, patches: int) -> str | None:
        """One group is softmax under another name, and a group of one patch sees nothing but itself."""
        height, width = self.tokens.grid
        if self.k > 1 and _smallest(self.tokens, self.k) > 1:
            return None
        sensible = [k for k in range(2, max(height, width)) if _smallest(self.tokens, k) > 1]
        allowed = f"must be 2..{sensible[-1]}" if sensible else "needs a larger grid"
        return (
            f"dilated(k={self.k}) on a grid of {height} x {width}: k {allowed}; one group would be softmax under "
            "another name, and in a group of one a patch sees itself alone"
        )

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """One group."""
        return {"k": 1}


def dilated_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None = None,
    *,
    step: int = 2,
) -> Float[Tensor, "b h n e"]:
    """softmax(QKᵀ/√e) V over the pairs of patches whole steps apart, and densely from and to the prefix."""
    sees = partial(same_group, tokens=tokens, step=step)
    return attend(q, k, v, tokens, patches, dilated_cover(tokens, step, q.device), sees)


def same_group(i: Int[Tensor, "*i"], j: Int[Tensor, "*j"], tokens: Tokens, step: int) -> Bool[Tensor, "*ij"]:
    """Whether patches i and j are whole steps apart on both axes."""
    (y, x), (other_y, other_x) = coordinates(tokens, i), coordinates(tokens, j)
    return ((y - other_y) % step == 0) & ((x - other_x) % step == 0)


def dilated_cover(tokens: Tokens, step: int, device: torch.device | None = None) -> Cover:
    """Groups as buckets."""
    rows, columns = (_groups(side, step, device) for side in tokens.grid)
    buckets = crossed(rows, columns, tokens)
    return Cover(buckets, buckets, complete=all(side % step == 0 or side < step for side in tokens.grid))


def _groups(side: int, step: int, device: torch.device | None) -> Int[Tensor, "u y"]:
    """Places of an axis that are whole steps apart."""
    starts = torch.arange(min(step, side), device=device)[:, None]
    return on_axis(starts + step * torch.arange(math.ceil(side / step), device=device), side)


def _smallest(tokens: Tokens, step: int) -> int:
    """Patches of the smallest group."""
    height, width = tokens.grid
    return max(1, height // step) * max(1, width // step)
