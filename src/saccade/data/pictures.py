"""Pictures: decoded uint8 pictures, all of one shape or each of its own, in memory or mapped from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures that lie in one row of bytes, each as (c, h, w) from its offset on.

    A selection shares the bytes of what it was selected from, so that splits cost no copy.
    """

    pixels: UInt8[Tensor, " bytes"]
    offsets: Int64[Tensor, " n"]
    heights: Int64[Tensor, " n"]
    widths: Int64[Tensor, " n"]
    channels: int

    @classmethod
    def of(cls, images: UInt8[Tensor, "n c h w"]) -> Pictures:
        """Pictures of one shape."""
        n, channels, height, width = images.shape
        sides = torch.ones(n, dtype=torch.int64)
        offsets = torch.arange(n) * (channels * height * width)
        return cls(images.reshape(-1), offsets, height * sides, width * sides, channels)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, i: int) -> UInt8[Tensor, "c h w"]:
        """One picture, whole: a view, not a copy."""
        height, width = int(self.heights[i]), int(self.widths[i])
        start = int(self.offsets[i])
        return self.pixels[start : start + self.channels * height * width].view(self.channels, height, width)

    def select(self, index: Int64[Tensor, " k"]) -> Pictures:
        """The pictures of these numbers, in their order."""
        return Pictures(self.pixels, self.offsets[index], self.heights[index], self.widths[index], self.channels)

    @cached_property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of every picture, or None where they differ."""
        if not len(self):
            return None
        alike = bool((self.heights == self.heights[0]).all() and (self.widths == self.widths[0]).all())
        return (int(self.heights[0]), int(self.widths[0])) if alike else None

    def by_shape(
        self,
        index: Int64[Tensor, " k"],
        make: Callable[[UInt8[Tensor, "g c h w"], Int64[Tensor, " g"]], UInt8[Tensor, "g c y x"]],
    ) -> UInt8[Tensor, "k c y x"]:
        """`make` of the pictures of these numbers, those of one shape together, in the order of `index`.

        Args:
            index: numbers of pictures.
            make: is given pictures of one shape and their places in `index`.
        """
        if self._rows is not None:
            rows, numbers = self._rows
            return make(rows.index_select(0, numbers[index]), torch.arange(len(index)))
        sides = torch.stack([self.heights[index], self.widths[index]], dim=1)
        places = [(sides == shape).all(dim=1).nonzero()[:, 0] for shape in sides.unique(dim=0)]
        made = [make(torch.stack([self[i] for i in index[some].tolist()]), some) for some in places]
        return torch.cat(made).index_select(0, torch.cat(places).argsort())

    def centre(self, index: Int64[Tensor, " k"], size: tuple[int, int]) -> UInt8[Tensor, "k c y x"]:
        """The middle of each picture: what evaluation sees.

        Raises:
            ValueError: a picture is smaller than `size`.
        """

        def middle(images: UInt8[Tensor, "g c h w"], places: Int64[Tensor, " g"]) -> UInt8[Tensor, "g c y x"]:
            top, left = (images.shape[2] - size[0]) // 2, (images.shape[3] - size[1]) // 2
            if top < 0 or left < 0:
                raise ValueError(f"pictures of {tuple(images.shape[2:])} pixels hold no middle of {size}")
            return images[:, :, top : top + size[0], left : left + size[1]]

        return self.by_shape(index, middle)

    @cached_property
    def _rows(self) -> tuple[UInt8[Tensor, "r c h w"], Int64[Tensor, " n"]] | None:
        """All bytes seen as pictures of one shape and the number of each picture there, where that is possible."""
        if self.shape is None:
            return None
        size = self.channels * self.shape[0] * self.shape[1]
        if (self.offsets % size).any():
            return None
        return self.pixels[: len(self.pixels) // size * size].view(-1, self.channels, *self.shape), self.offsets // size
