"""Window attention: the grid is cut into windows, and a patch looks at those of its own."""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import Shared
from saccade.attention.buckets import Bias, Cover, attend, attend_flops, crossed, on_axis
from saccade.attention.initial import GeneratorOf, fill_normal, unseeded
from saccade.attention.masked import Masked
from saccade.attention.parts import coordinates, require_whole
from saccade.attention.tokens import Tokens


class Window(Masked):
    """A patch looks at its own window of w x w: softmax(QKᵀ/√e + B) V over equal ⌊(y+w-s)/w⌋ and equal ⌊(x+w-s)/w⌋.

    A shift of s moves the windows; those at the borders are smaller, as where w does not divide the grid, and none
    continues at the other side. Prefix tokens see everything and are seen by everything.

    Args:
        w: side of a window.
        shift: how far the first window edge lies from the grid's, in patches; "alternate" is 0 in layers 0, 2, ... and
            w // 2 in layers 1, 3, ..., so that windows which do not meet in one layer do in the next.
        relative_bias: adds B, a learned number a head for each Δy and Δx, under Swin's name and shape.
    """

    paper = "Liu et al. 2021, https://arxiv.org/abs/2103.14030"
    cost = "N W² D"
    any_length = False
    free_of_order = False
    needs_grid = True
    exact_when = "one window on the whole grid"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        w: int = 7,
        shift: int | Literal["alternate"] = "alternate",
        relative_bias: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        # A window of one patch sees nothing but itself.
        require_whole("window", 2, w=w)
        if shift != "alternate" and (type(shift) is not int or not 0 <= shift < w):
            raise ValueError(f'window(w={w}, shift={shift!r}): shift must be 0..{w - 1} or "alternate"')
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.w = w
        self.shift = (layer % 2) * (w // 2) if shift == "alternate" else shift
        self.relative_position_bias_table = (
            nn.Parameter(torch.empty((2 * w - 1) ** 2, num_heads)) if relative_bias else None
        )
        self.reset_parameters(unseeded)

    def allowed(self, ids: Int[Tensor, "b p"]) -> Bool[Tensor, "b p p"]:
        """In the same window."""
        return same_window(ids[:, :, None], ids[:, None, :], self.tokens, self.w, self.shift)

    def added(self, ids: Int[Tensor, "b p"]) -> Float[Tensor, "b h p p"] | None:
        """B, where there is one."""
        table = self.relative_position_bias_table
        return None if table is None else relative(ids[:, :, None], ids[:, None, :], self.tokens, self.w, table)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Window by window."""
        table = self.relative_position_bias_table
        return window_attention(q, k, v, self.tokens, patches, w=self.w, shift=self.shift, table=table)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Every score of every window, those of its empty places included."""
        return attend_flops(window_cover(self.tokens, self.w, self.shift), self.tokens.prefix, patches, self.dim)

    def refusal(self, patches: int) -> str | None:
        """One window of everything is softmax under another name."""
        height, width = self.tokens.grid
        if self.w < max(height, width):
            return None
        allowed = f"must be 2..{max(height, width) - 1}" if max(height, width) > 2 else "needs a larger grid"
        return (
            f"window(w={self.w}) on a grid of {height} x {width}: w {allowed}; a window of everything would be softmax "
            "under another name"
        )

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; B from a normal of 0.02, as Swin starts."""
        super().reset_parameters(generator_of)
        if self.relative_position_bias_table is not None:
            name = "relative_position_bias_table"
            fill_normal(self.relative_position_bias_table, generator_of(name))

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """Half of the grid's longer side, 7 at most."""
        return {"w": max(2, min(7, (max(tokens.grid) + 1) // 2))}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """One window."""
        return {"w": max(2, *tokens.grid), "shift": 0, "relative_bias": False}


def window_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    tokens: Tokens,
    patches: Int[Tensor, "b p"] | None = None,
    *,
    w: int = 7,
    shift: int = 0,
    table: Float[Tensor, "d h"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """softmax(QKᵀ/√e + B) V within windows, and densely from and to the prefix; B from the table of Δy and Δx."""
    bias: Bias | None = None if table is None else partial(relative, tokens=tokens, w=w, table=table)
    sees = partial(same_window, tokens=tokens, w=w, shift=shift)
    return attend(q, k, v, tokens, patches, window_cover(tokens, w, shift, q.device), sees, bias)


def same_window(i: Int[Tensor, "*i"], j: Int[Tensor, "*j"], tokens: Tokens, w: int, shift: int) -> Bool[Tensor, "*ij"]:
    """Whether patches i and j lie in one window."""
    # Not (y + shift) // w, as it is often written: that is the same for shift = w / 2 alone.
    (y, x), (other_y, other_x) = (
        tuple((place + w - shift) // w for place in coordinates(tokens, ids)) for ids in (i, j)
    )
    return (y == other_y) & (x == other_x)


def relative(
    i: Int[Tensor, "*b c 1"], j: Int[Tensor, "*b 1 s"], tokens: Tokens, w: int, table: Float[Tensor, "d h"]
) -> Float[Tensor, "*b h c s"]:
    """B of each pair of patches, by the way from j to i; of pairs further apart than a window, anything."""
    (y, x), (other_y, other_x) = coordinates(tokens, i), coordinates(tokens, j)
    dy, dx = ((way + w - 1).clamp(0, 2 * w - 2) for way in (y - other_y, x - other_x))
    return table[dy * (2 * w - 1) + dx].movedim(-1, -3)


def window_cover(tokens: Tokens, w: int, shift: int, device: torch.device | None = None) -> Cover:
    """Windows as buckets; the first and the last window of an axis share one where both are cut by the border."""
    rows, columns = (_windows(side, w, shift, device) for side in tokens.grid)
    buckets = crossed(rows, columns, tokens)
    return Cover(buckets, buckets, complete=shift == 0 and all(side % w == 0 or side < w for side in tokens.grid))


def _windows(side: int, w: int, shift: int, device: torch.device | None) -> Int[Tensor, "u y"]:
    """Places of an axis, window by window from the first whole one; what is left of that one follows at the end."""
    if side <= w:
        return torch.arange(side, device=device)[None]
    whole = side + -side % w
    places = (torch.arange(whole, device=device) + shift) % whole
    return on_axis(places.unflatten(0, (-1, w)), side)
