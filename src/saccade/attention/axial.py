"""Axial attention: a patch looks at its row and its column."""

from __future__ import annotations

from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.buckets import attend_to_all, gathered, rows_of
from saccade.attention.initial import unseeded
from saccade.attention.masked import Masked
from saccade.attention.parts import coordinates, softmax_attention
from saccade.attention.tokens import Tokens


class Axial(Masked):
    """A patch looks at its row and its column, in one softmax: softmax(QKᵀ/√e) V over Δy = 0 or Δx = 0.

    Not the two layers of Ho et al. 2019, https://arxiv.org/abs/1912.12180, in which rows come first and columns then:
    there the second softmax sees what the first has made. Prefix tokens see everything and are seen by everything.
    """

    paper = "Huang et al. 2019, https://arxiv.org/abs/1811.11721"
    cost = "N (Y + X) D on a grid of Y x X"
    any_length = False
    free_of_order = False
    needs_grid = True
    exact_when = "a single row or column"

    def __init__(self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, **shared: Unpack[Shared]) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.reset_parameters(unseeded)

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """In the same row or column."""
        return in_line(ids[:, :, None], ids[:, None, :], self.tokens)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Rows beside columns."""
        return axial_attention(q, k, v, self.tokens, patches)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Two products for each score of the whole grid, or for all pairs where they are fewer; then the prefix's."""
        prefix, visible = self.tokens.prefix, self.tokens.prefix + patches
        scores = _lined_scores(self.tokens) if _takes_lines(self.tokens, patches) else patches * visible
        return 4 * self.dim * (scores + prefix * visible)

    def refusal(self, patches: int) -> str | None:
        """On a single line everything is in line."""
        height, width = self.tokens.grid
        if min(height, width) > 1:
            return None
        return (
            f"axial on a grid of {height} x {width}: needs at least 2 rows and 2 columns; on a single line it would be "
            "softmax under another name"
        )


def axial_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """softmax(QKᵀ/√e) V over the pairs of patches in one row or column, and densely from and to the prefix.

    Visible patches lie at their places on the whole grid; where all pairs of them are fewer than the grid's scores,
    those are computed instead.
    """
    prefix = tokens.prefix
    if _takes_lines(tokens, q.shape[2] - prefix):
        seen = _by_lines(q, k, v, tokens, patches)
    else:
        seen = attend_to_all(q, k, v, tokens, patches, lambda i, j: in_line(i, j, tokens))
    return torch.cat([softmax_attention(q[:, :, :prefix], k, v), seen], dim=2) if prefix else seen


def in_line(i: Int[Tensor, "*i"], j: Int[Tensor, "*j"], tokens: Tokens) -> Bool[Tensor, "*ij"]:
    """Whether patches i and j share a row or a column."""
    (y, x), (other_y, other_x) = coordinates(tokens, i), coordinates(tokens, j)
    return (y == other_y) | (x == other_x)


def _by_lines(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None,
) -> Float[Tensor, "b h p e"]:
    """The rows of the patches: scores of rows and of columns side by side, one softmax, and two products again."""
    prefix, (height, width) = tokens.prefix, tokens.grid
    grid_q, grid_k, grid_v = (on_grid(x, tokens, patches) for x in (q * q.shape[-1] ** -0.5, k, v))
    ahead = (grid_q.flatten(2, 3) @ k[:, :, :prefix].mT).unflatten(2, (height, width))
    in_row = grid_q @ grid_k.mT
    in_column = (grid_q.transpose(2, 3) @ grid_k.transpose(2, 3).mT).transpose(2, 3)
    scores = torch.cat([ahead, in_row, in_column], dim=-1)
    scores = scores.masked_fill(~_lined(tokens, patches, q.device), float("-inf"))
    ahead, in_row, in_column = scores.softmax(-1).to(v.dtype).split([prefix, width, height], dim=-1)
    y = in_row @ grid_v + (in_column.transpose(2, 3) @ grid_v.transpose(2, 3)).transpose(2, 3)
    y = y.flatten(2, 3) + ahead.flatten(2, 3) @ v[:, :, :prefix]
    return y if patches is None else gathered(y, patches[:, None])


def on_grid(
    x: Float[Tensor, "b h n e"], tokens: Tokens, patches: Int[Tensor, "b p"] | None
) -> Float[Tensor, "b h y x e"]:
    """The patches at their places; anything finite where one is hidden."""
    if patches is None:
        return x[:, :, tokens.prefix :].unflatten(2, tokens.grid)
    rows = rows_of(patches, tokens)[:, None, :-1].clamp_min(0)
    return gathered(x, tokens.prefix + rows).unflatten(2, tokens.grid)


def _lined(tokens: Tokens, patches: Int[Tensor, "b p"] | None, device: torch.device) -> Bool[Tensor, "#b 1 y x s"]:
    """Which of prefix, row and column each patch sees: itself in its row, even where it is hidden, and not again."""
    prefix, (height, width) = tokens.prefix, tokens.grid
    there = torch.ones(1, height, width, dtype=torch.bool, device=device)
    if patches is not None:
        there = (rows_of(patches, tokens)[:, :-1] >= 0).unflatten(1, (height, width))
    row = there[:, :, None, :] | torch.eye(width, dtype=torch.bool, device=device)
    column = there.mT[:, None] & ~torch.eye(height, dtype=torch.bool, device=device)[:, None]
    return torch.nn.functional.pad(torch.cat([row, column], dim=-1), (prefix, 0), value=True)[:, None]


def _lined_scores(tokens: Tokens) -> int:
    return tokens.patches * (tokens.prefix + sum(tokens.grid))


def _takes_lines(tokens: Tokens, visible: int) -> bool:
    """Whether the scores of the whole grid are fewer than all pairs of so many visible patches."""
    return _lined_scores(tokens) < visible * (tokens.prefix + visible)
