"""Accumulated: gradients that meet. Autograd adds them up in place, but not where somebody follows its operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ADD = torch.ops.aten.add.Tensor

Holders = tuple[int, int, int]
"""How many hold a tensor in C++, how many in Python, and how many its storage."""


def holders_of_the_first(func: Callable[..., Any], args: tuple[Any, ...]) -> Holders | None:
    """Who holds the first of two gradients that meet; None where an operation is something else.

    Autograd adds up the gradients of a tensor that was used more than once, and overwrites the first if nobody else
    holds it. Under a mode, such as the tally, it never does (`can_accumulate_inplace` in torch's
    csrc/autograd/input_buffer.cpp): for a moment there is a tensor more than without.

    Args:
        func: the operation, as the `__torch_dispatch__` of the outermost mode was given it.
        args: its arguments.
    """
    if func is not _ADD or torch.is_grad_enabled() or torch._C._current_autograd_node() is None:
        return None
    storage = args[0].untyped_storage()
    return args[0]._use_count(), sys.getrefcount(args[0]), torch._C._storage_Use_Count(storage._cdata)


def holders_of_the_alone() -> Holders | None:
    """What `holders_of_the_first` says of a gradient that only autograd holds, which counts the call and us who ask."""
    with torch.enable_grad():
        x = torch.ones(2, 2, requires_grad=True)
        y = x.sin()
        # Two gradients made for nobody else meet at y.
        loss = (y @ torch.ones(2, 1)).sum() + (torch.ones(1, 2) @ y).sum()
    with _Asking() as asking:
        loss.backward()
    return asking.holders


class _Asking(TorchDispatchMode):
    holders: Holders | None = None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.holders = holders_of_the_first(func, args) or self.holders
        return func(*args, **(kwargs or {}))
