"""The C library's allocator, set for a whole process: what it keeps, and what it gives back to the kernel."""

from __future__ import annotations

import ctypes
from typing import Literal

Allocator = Literal["default", "keep"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_MAPPED_FROM_BYTES = 64 * 1024


def keep_freed() -> None:
    """Keeps freed memory for the next tensor instead of fetching fresh pages each time: faster, at a larger footprint.

    Raises:
        ValueError: the C library is not glibc.
    """
    if not (_mallopt(_M_MMAP_MAX, 0) and _mallopt(_M_TRIM_THRESHOLD, -1)):
        raise ValueError('allocator "keep" needs glibc (Linux); use "default"')


def return_freed() -> bool:
    """Maps every larger tensor by itself, so that what is freed leaves the process at once; False without glibc."""
    return _mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)


def trim() -> None:
    """Gives back what small tensors have left behind, where the C library can."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _mallopt(parameter: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    except (AttributeError, OSError, TypeError):
        return False
