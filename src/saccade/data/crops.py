"""Crops of training pictures: from a padded picture, or a random box resized."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, pad

from saccade.data.boxes import Boxes, below, middle_boxes, random_boxes
from saccade.data.pictures import Pictures


def padded_crops(
    pictures: Pictures,
    index: Int64[Tensor, " b"],
    drawn: Float[Tensor, "b 2"],
    size: tuple[int, int],
    padding: int,
) -> UInt8[Tensor, "b c y x"]:
    """A crop of `size` from anywhere in each whole picture with `padding` black pixels around it."""

    def crops(images: UInt8[Tensor, "g c h w"], places: Int64[Tensor, " g"]) -> UInt8[Tensor, "g c y x"]:
        wide = pad(images, (padding, padding, padding, padding))
        columns = wide.shape[3]
        room = torch.tensor([wide.shape[2] - size[0] + 1, columns - size[1] + 1])
        top, left = below(drawn[places], room).unbind(dim=1)
        # One gather for all beats a slice a picture: each pixel is named by its place in its picture.
        inside = torch.arange(size[0])[:, None] * columns + torch.arange(size[1])
        taken = (top * columns + left)[:, None] + inside.reshape(-1)
        return wide.flatten(2).gather(2, taken[:, None].expand(-1, images.shape[1], -1)).unflatten(2, size)

    return pictures.by_shape(index, crops)


def resized_crops(
    pictures: Pictures,
    index: Int64[Tensor, " b"],
    drawn: Float[Tensor, "b draws"],
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: str,
) -> UInt8[Tensor, "b c y x"]:
    """A random box of each whole picture, resized to `size`, antialiased where it shrinks.

    Boxes are drawn as torchvision's RandomResizedCrop draws them: where none of ten tries fits, the largest box in the
    middle is taken. Resizing is torch's own on bytes, as torchvision's of tensors: it rounds its weights more coarsely
    than Pillow, and differs from it by less than half a level on average, to neither side.
    """
    heights, widths = pictures.heights[index], pictures.widths[index]
    boxes, found = random_boxes(drawn, heights, widths, scale, ratio)
    kept = Boxes(
        *(torch.where(found, *sides) for sides in zip(boxes, middle_boxes(heights, widths, ratio), strict=True))
    )

    def crops(images: UInt8[Tensor, "g c h w"], places: Int64[Tensor, " g"]) -> UInt8[Tensor, "g c y x"]:
        images = images.contiguous()
        boxes = zip(*(side[places].tolist() for side in kept), strict=True)
        channels, (image, _, row, _) = images.shape[1], images.stride()
        # One view for each box takes a third of the time of a picture's selection and two slices.
        parts = [
            images.as_strided((1, channels, height, width), images.stride(), number * image + top * row + left)
            for number, (top, left, height, width) in enumerate(boxes)
        ]
        return torch.cat([interpolate(part, size, mode=interpolation, antialias=True) for part in parts])

    return pictures.by_shape(index, crops)


def flipped(images: UInt8[Tensor, "b c y x"], turn: Bool[Tensor, " b"]) -> UInt8[Tensor, "b c y x"]:
    """The images of `turn` seen in a mirror, left for right."""
    # Choosing rows among both copies beats torch.where on bytes threefold.
    rows = torch.arange(len(images)) + turn * len(images)
    return torch.cat([images, images.flip(-1)]).index_select(0, rows)
