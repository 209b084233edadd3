"""Scratch: what memory tensors and operations take beside the values that a dispatcher sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# As the weighing process has them (`allocator.return_freed`): larger tensors are mapped one by one, in whole pages,
# behind the C library's note of their size.
_MAPPED_FROM_BYTES = 64 * 1024
_PAGE_BYTES = 4096
_NOTE_BYTES = 64


def held_bytes(size: int) -> int:
    """Bytes of memory that a storage of so many bytes takes."""
    if size < _MAPPED_FROM_BYTES:
        return size
    return -(-(size + _NOTE_BYTES) // _PAGE_BYTES) * _PAGE_BYTES


def within_bytes(func: Callable[..., Any], args: tuple[Any, ...], made: Any) -> int:
    """Bytes that an operation takes within itself."""
    return 0
