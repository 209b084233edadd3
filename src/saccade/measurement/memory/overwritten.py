"""Overwritten: tensors that autograd writes into, but not where somebody follows its operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten

# What autograd writes into its first argument, or, under a mode such as the tally, into a copy of it
# (`isTensorSubclassLike` in torch's csrc/autograd): and how many of its own hold that argument besides one.
_INTO_THE_FIRST: Mapping[Callable[..., Any], int] = {
    # Two gradients meet at a tensor that was used twice (`can_accumulate_inplace` in input_buffer.cpp).
    _aten.add.Tensor: 0,
    # Zeros get the gradients of what was picked out (FunctionsManual.cpp).
    _aten.index_add.default: 0,
    _aten.index_put.default: 1,
    _aten.scatter.src: 0,
    _aten.scatter_add.default: 0,
}

Holders = tuple[int, int, int]
"""How many hold a tensor in C++, how many in Python, and how many its storage."""


def holders_of_the_first(func: Callable[..., Any], args: tuple[Any, ...]) -> Holders | None:
    """Who holds what autograd would write into if nobody followed; None where an operation is something else.

    If nobody but autograd holds it, there is for a moment a tensor more than without us.

    Args:
        func: the operation, as the `__torch_dispatch__` of the outermost mode was given it.
        args: its arguments.
    """
    own = _INTO_THE_FIRST.get(func)
    if own is None or torch.is_grad_enabled() or torch._C._current_autograd_node() is None:
        return None
    storage = args[0].untyped_storage()
    return args[0]._use_count() - own, sys.getrefcount(args[0]), torch._C._storage_Use_Count(storage._cdata)


def holders_of_the_alone() -> Holders | None:
    """What `holders_of_the_first` says where only autograd holds it, which counts the call and us who ask."""
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
