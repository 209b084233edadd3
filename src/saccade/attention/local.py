"""Local attention: a patch looks at the patches around it."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.attention.base import Shared
from saccade.attention.buckets import Cover, attend, attend_flops, crossed, on_axis
from saccade.attention.initial import unseeded
from saccade.attention.masked import Masked
from saccade.attention.parts import coordinates, require_whole
from saccade.attention.tokens import Tokens

Metric = Literal["chebyshev", "euclid"]

# A disc of radius 1 holds its centre alone.
_LEAST: dict[Metric, int] = {"chebyshev": 1, "euclid": 2}

# Shortest side of a tile of queries: at 56 x 56 and radius 3, sides of 7 and 8 run 1.5 x faster on a CPU than 6 and 10.
_SHORTEST = 7


class Local(Masked):
    """A patch looks at the patches around it: softmax(QKᵀ/√e) V over max(|Δy|, |Δx|) ≤ radius.

    Prefix tokens see everything and are seen by everything. On a visible subset the neighbours are those that are
    there: with three quarters hidden and radius 1, one patch in seven sees itself alone.

    Args:
        radius: of the neighbourhood; 3 is a window of 7 x 7 around each patch.
        metric: "chebyshev" for squares, as above; "euclid" for discs, Δy² + Δx² < radius².
    """

    paper = "Ramachandran et al. 2019, https://arxiv.org/abs/1906.05909"
    cost = "N R² D"
    any_length = False
    free_of_order = False
    needs_grid = True
    exact_when = "radius ≥ longer side of the grid - 1"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        radius: int = 3,
        metric: Metric = "chebyshev",
        **shared: Unpack[Shared],
    ) -> None:
        if metric not in ("chebyshev", "euclid"):
            raise ValueError(f'local(metric={metric!r}): metric must be "chebyshev" or "euclid"')
        require_whole("local", _LEAST[metric], radius=radius)
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.radius = radius
        self.metric: Metric = metric
        self.reset_parameters(unseeded)

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """Within the radius."""
        return near(ids[:, :, None], ids[:, None, :], self.tokens, self.radius, self.metric)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Squares of queries, each beside its own keys and those around it."""
        return local_attention(q, k, v, self.tokens, patches, radius=self.radius, metric=self.metric)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Every score of the squares, those of keys too far away included."""
        return attend_flops(local_cover(self.tokens, self.radius, self.metric), self.tokens.prefix, patches, self.dim)

    def refusal(self, patches: int) -> str | None:
        """A neighbourhood that is the whole grid from every patch is softmax under another name."""
        if not self._covers(self.radius):
            return None
        height, width = self.tokens.grid
        sensible = [radius for radius in range(_LEAST[self.metric], self.radius) if not self._covers(radius)]
        allowed = f"must be {sensible[0]}..{sensible[-1]}" if sensible else "needs a larger grid"
        return (
            f"local(radius={self.radius}, metric={self.metric!r}) on a grid of {height} x {width}: radius {allowed}; "
            "a neighbourhood of everything would be softmax under another name"
        )

    def _covers(self, radius: int) -> bool:
        """Whether it reaches from corner to corner."""
        dy, dx = (side - 1 for side in self.tokens.grid)
        return max(dy, dx) <= radius if self.metric == "chebyshev" else dy**2 + dx**2 < radius**2

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """Half of what would be the whole grid, 7 x 7 at most."""
        return {"radius": max(1, min(3, (max(tokens.grid) - 1) // 2))}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """From corner to corner."""
        return {"radius": max(1, *tokens.grid), "metric": "chebyshev"}


def local_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None = None,
    *,
    radius: int = 3,
    metric: Metric = "chebyshev",
) -> Float[Tensor, "b h n e"]:
    """softmax(QKᵀ/√e) V over the pairs of patches within the radius, and densely from and to the prefix."""
    cover = local_cover(tokens, radius, metric, q.device)
    return attend(q, k, v, tokens, patches, cover, partial(near, tokens=tokens, radius=radius, metric=metric))


def near(
    i: Int[Tensor, "*i"], j: Int[Tensor, "*j"], tokens: Tokens, radius: int, metric: Metric
) -> Bool[Tensor, "*ij"]:
    """Whether patches i and j lie within the radius of each other."""
    (y, x), (other_y, other_x) = coordinates(tokens, i), coordinates(tokens, j)
    dy, dx = (y - other_y).abs(), (x - other_x).abs()
    return torch.maximum(dy, dx) <= radius if metric == "chebyshev" else dy**2 + dx**2 < radius**2


def local_cover(tokens: Tokens, radius: int, metric: Metric, device: torch.device | None = None) -> Cover:
    """Squares of queries; as keys the same squares and all that is within the radius of them on either axis."""
    # A disc is open: nothing lies on its rim.
    reach = radius if metric == "chebyshev" else radius - 1
    (rows, rows_around), (columns, columns_around) = (_tiles(side, reach, device) for side in tokens.grid)
    return Cover(crossed(rows, columns, tokens), crossed(rows_around, columns_around, tokens), complete=False)


def _tiles(side: int, reach: int, device: torch.device | None) -> tuple[Int[Tensor, "u y"], Int[Tensor, "u z"]]:
    """Places of the tiles of an axis, and of the tiles with `reach` more on both ends, or of all where that is less.

    A tile is as long as makes the fewest scores.
    """
    shortest = max(_SHORTEST, 2 * reach)
    length = min(range(min(shortest, side), shortest + shortest // 2), key=lambda length: _scores(side, length, reach))
    count = math.ceil(side / length)
    starts = length * torch.arange(count, device=device)[:, None]
    tiles = on_axis(starts + torch.arange(length, device=device), side)
    if length + 2 * reach >= side:
        return tiles, torch.arange(side, device=device).expand(count, side)
    return tiles, on_axis(starts + torch.arange(-reach, length + reach, device=device), side)


def _scores(side: int, length: int, reach: int) -> int:
    """Queries of an axis in tiles of this length, times keys of each."""
    return math.ceil(side / length) * length * min(side, length + 2 * reach)
