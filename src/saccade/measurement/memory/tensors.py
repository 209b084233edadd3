"""The tensors among what an operation is given and what it makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Those among the values, in lists and tuples too: all that operations take and make."""
    found: list[Tensor] = []
    for one in values:
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, (list, tuple)):
            found += tensors_in(one)
    return found
