"""Twin: a copy of a module whose weights have shapes and no values, and cost nothing."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def twin_of(module: Module, device: torch.device) -> Module:
    """A copy with weights and buffers of the same shapes and types; the module stays as it is.

    Args:
        module: on any device.
        device: the meta device, or under a fake mode any other.
    """
    memo: dict[int, Any] = {}
    for weight in module.parameters():
        empty = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        memo[id(weight)] = nn.Parameter(empty, requires_grad=weight.requires_grad)
    for values in module.buffers():
        memo[id(values)] = torch.empty(values.shape, dtype=values.dtype, device=device)
    return copy.deepcopy(module, memo)
