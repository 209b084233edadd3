"""Elsewhere: tensors on a CPU that stand in for those of a GPU which is not there, to predict what it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# None where tensors are what they are.
_stands_for: str | None = None


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
