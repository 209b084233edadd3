"""Elsewhere: what is computed in another way where only its memory is to be predicted, of this device or another."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

Tile = TypeVar("Tile", slice, tuple[slice, ...])

# None where tensors are what they are.
_stands_for: str | None = None

_one_for_all = False


@contextlib.contextmanager
def kernels_of(device_type: str) -> Iterator[None]:
    """Whatever is computed in another way on another device is computed in that way."""
    global _stands_for
    before, _stands_for = _stands_for, device_type
    try:
        yield
    finally:
        _stands_for = before


def device_type(device: torch.device) -> str:
    """The type of the device whose kernels are to run: that of the tensors, or of those that they stand in for."""
    return _stands_for or device.type


@contextlib.contextmanager
def one_for_all() -> Iterator[None]:
    """Of tiles of one size only two are computed, for tensors that have no values: the others take no more.

    When the second begins, what the first has made is still there, as it is in all others.
    """
    global _one_for_all
    before, _one_for_all = _one_for_all, True
    try:
        yield
    finally:
        _one_for_all = before


def in_turn(tiles: Iterable[Tile], over: Tensor, into: Sequence[Tensor]) -> Iterator[Tile]:
    """The tiles of a tensor, which leave nothing behind but what they write.

    Args:
        tiles: slices of the leading axes.
        over: the tensor whose tiles they are; all that are read and written have as many along these axes.
        into: what is made without values before them, and written by all of them together.
    """
    # Another thread may be training meanwhile.
    if not (_one_for_all and isinstance(over, FakeTensor)):
        yield from tiles
        return
    chosen: dict[tuple[int, ...], list[Tile]] = {}
    left_out = 0
    for tile in tiles:
        axes = tile if isinstance(tile, tuple) else (tile,)
        size = tuple(len(range(*axis.indices(length))) for axis, length in zip(axes, over.shape, strict=False))
        alike = chosen.setdefault(size, [])
        if len(alike) < 2:
            alike.append(tile)
        else:
            left_out += math.prod(size)
    # Memory that is never written is not taken, and the others would have written theirs.
    for one in into if left_out else ():
        one.as_strided([left_out * one.shape[len(size) :].numel()], [1]).zero_()
    yield from chain.from_iterable(chosen.values())
