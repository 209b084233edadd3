"""Predict: the peak bytes of a forward and backward pass without running it, by tensors that have no memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saccade.measurement.step import autocast
from saccade.measurement.terms import Terms


class Tally(TorchDispatchMode):
    """Adds up the storages that operations make, and takes each off when it is freed.

    Attributes:
        peak_bytes: the most there were at a time.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.bytes = self.peak_bytes = 0
        # A view's storage is there already; so is that of what was given.
        self._counted = weakref.WeakSet([one.untyped_storage() for one in known])

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and counts what it made."""
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._count(one)
        return made

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        if storage in self._counted:
            return
        size = storage.nbytes()
        self._counted.add(storage)
        weakref.finalize(storage, self._free, size).atexit = False
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _free(self, size: int) -> None:
        self.bytes -= size


def predicted_bytes(module: nn.Module, shapes: Sequence[Sequence[int]], dtype: torch.dtype, terms: Terms) -> int | None:
    """What a forward and backward pass adds at its peak to weights, inputs and a gradient that comes in.

    Operations run on tensors without memory, so that it costs neither memory nor time. What a kernel needs within
    itself is not seen.

    Args:
        module: as it will run, on any device.
        shapes: of its inputs; the output has the shape of the first.
        dtype: of its inputs.
        terms: device and autocast.

    Returns:
        None where the module does what only real tensors can.
    """
    device = torch.device(terms.device)
    made = copy.deepcopy(module)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _without_memory(made, device)
            inputs = [torch.empty(shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes]
            state = [*made.parameters(), *made.buffers()]
            dy = torch.empty_like(inputs[0])
            with Tally([*inputs, *state, dy]) as tally, autocast(terms):
                y = made(*inputs)
                leaves = [*inputs, *(weight for weight in state if weight.requires_grad)]
                torch.autograd.grad(y, leaves, dy.to(y.dtype), allow_unused=True)
            return tally.peak_bytes
    # A class of somebody's may do what only real tensors can; then nothing is known beforehand.
    except Exception:
        return None


def _without_memory(module: nn.Module, device: torch.device) -> None:
    """Replaces weights and buffers by new ones, which take no memory under a mode."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device=device)
            part.register_parameter(name, nn.Parameter(empty, requires_grad=weight.requires_grad))
        for name, values in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(values.shape, dtype=values.dtype, device=device))
