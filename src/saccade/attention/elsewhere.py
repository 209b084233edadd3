"""Elsewhere: what is computed in another way where only its memory is to be predicted, of this device or another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")

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
    """Of tiles that follow each other in the same memory only the first is computed: the others take no more."""
    global _one_for_all
    before, _one_for_all = _one_for_all, True
    try:
        yield
    finally:
        _one_for_all = before


def in_turn(tiles: Iterable[T]) -> Iterator[T]:
    """The tiles, which leave nothing behind but what they write into tensors that are there."""
    return islice(tiles, 1) if _one_for_all else iter(tiles)
