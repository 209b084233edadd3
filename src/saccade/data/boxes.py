"""Boxes inside pictures, of random area and shape: what a resized crop keeps, and what erasing takes away."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

TRIES = 10
DRAWS = 2 * TRIES + 2
"""How many random numbers a box needs."""


class Boxes(NamedTuple):
    """First row, first column, height and width of each box, in pixels."""

    top: Int64[Tensor, " b"]
    left: Int64[Tensor, " b"]
    height: Int64[Tensor, " b"]
    width: Int64[Tensor, " b"]

    def masks(self, size: tuple[int, int]) -> Bool[Tensor, "b 1 y x"]:
        """True inside, for pictures of this size."""
        rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
        top, left, height, width = (side[:, None, None, None] for side in self)
        return (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)


def below(drawn: Float[Tensor, "*s"], ends: Int64[Tensor, "*#s"]) -> Int64[Tensor, "*s"]:
    """Whole numbers in 0 <= k < end from numbers uniform in 0 <= u < 1."""
    return (drawn.double() * ends).long()


def random_boxes(
    drawn: Float[Tensor, "b draws"],
    heights: Int64[Tensor, " b"],
    widths: Int64[Tensor, " b"],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Boxes, Bool[Tensor, " b"]]:
    """Boxes of a share of the area uniform in `scale` and of width / height log-uniform in `ratio`, anywhere inside.

    The first of ten tries that fits counts, as in torchvision's RandomResizedCrop and RandomErasing.

    Returns:
        The boxes, and which pictures got one: none of the ten fitted the others.
    """
    share = scale[0] + drawn[:, :TRIES].double() * (scale[1] - scale[0])
    logs = [math.log(side) for side in ratio]
    shape = (logs[0] + drawn[:, TRIES : 2 * TRIES].double() * (logs[1] - logs[0])).exp()
    area = share * (heights * widths)[:, None]
    width, height = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (width > 0) & (height > 0) & (width <= widths[:, None]) & (height <= heights[:, None])
    first = fits.int().argmax(dim=1, keepdim=True)
    height, width = height.gather(1, first)[:, 0], width.gather(1, first)[:, 0]
    found = fits.any(dim=1)
    room = torch.stack([heights - height, widths - width], dim=1).clamp(min=0) + 1
    top, left = below(drawn[:, 2 * TRIES :], room).unbind(dim=1)
    return Boxes(top, left, height, width), found


def middle_boxes(heights: Int64[Tensor, " b"], widths: Int64[Tensor, " b"], ratio: tuple[float, float]) -> Boxes:
    """The largest box in the middle of each picture whose width / height lies in `ratio`."""
    width = torch.minimum(widths, (heights * ratio[1]).round().long())
    height = torch.minimum(heights, (widths / ratio[0]).round().long())
    return Boxes((heights - height) // 2, (widths - width) // 2, height, width)
