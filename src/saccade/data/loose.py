"""Loose pictures: files that are given one by one, prepared as a data set's are for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.data.decode import Unreadable, covering_size, decode, read_header
from saccade.data.pictures import Pictures


def load_pictures(
    paths: Sequence[Path], img_size: tuple[int, int], channels: int, crop_pct: float = 1.0
) -> UInt8[Tensor, "n c y x"]:
    """The middle of each picture, resized so that it covers img_size / crop_pct.

    Args:
        paths: files.
        img_size: height and width in pixels.
        channels: 1 or 3; colours become grey, or grey three equal channels.
        crop_pct: share of the shorter side that the middle covers.

    Raises:
        ValueError: other channels, no such file, or one that is no picture.
    """
    if channels not in (1, 3):
        raise ValueError(f"a picture file has 1 channel or 3, and the model takes images of {channels}")
    return torch.cat([_middle(path, img_size, channels, crop_pct) for path in paths])


def _middle(path: Path, img_size: tuple[int, int], channels: int, crop_pct: float) -> UInt8[Tensor, "1 c y x"]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such picture")
    try:
        head = read_header(path)
        pixels = decode(path, covering_size(head.height, head.width, img_size, crop_pct), channels)
    except Unreadable as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    return Pictures.of(torch.from_numpy(pixels.copy())[None]).centre(torch.arange(1), img_size)
