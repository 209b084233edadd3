"""Shortcuts: operations on tensors without values, as torch's fake mode does them, but sooner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from saccade.measurement.memory.tensors import tensors_in

_aten = torch.ops.aten

# What tiles are computed with, and the shape that comes of the arguments': the fake mode remembers what other
# operations make, but of these nothing, and takes ten times as long.
_INTO: Mapping[Callable[..., Any], Callable[..., tuple[int, ...]]] = {
    _aten.mm.out: lambda left, right: (left.shape[0], right.shape[1]),
    _aten.bmm.out: lambda left, right: (*left.shape[:2], right.shape[2]),
    _aten.addmm.out: lambda bias, left, right: (left.shape[0], right.shape[1]),
    _aten.gelu.out: lambda x: tuple(x.shape),
    _aten.gelu_backward.grad_input: lambda gradient, x: tuple(x.shape),
}

# Views and products are the same on all devices, and torch works out their shapes in C++. The fake mode looks them up
# by all that they are given, which takes longer, and for a batch that it has not met much longer.
_ANYWHERE = frozenset(
    {
        _aten._unsafe_view.default,
        _aten.alias.default,
        _aten.as_strided.default,
        _aten.bmm.default,
        _aten.detach.default,
        _aten.expand.default,
        _aten.mm.default,
        _aten.permute.default,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.split.Tensor,
        _aten.split_with_sizes.default,
        _aten.t.default,
        _aten.transpose.int,
        _aten.unbind.int,
        _aten.unsqueeze.default,
        _aten.view.default,
    }
)

# What writes its first argument, whatever the others are, as long as they spread to its shape.
_IN_PLACE = frozenset(
    {
        _aten.add_.Tensor,
        _aten.copy_.default,
        _aten.div_.Tensor,
        _aten.exp2_.default,
        _aten.exp_.default,
        _aten.mul_.Tensor,
        _aten.sub_.Tensor,
        _aten.zero_.default,
    }
)

_CPU = torch.device("cpu")


class Shortcuts(TorchDispatchMode):
    """Does at once what the fake mode would do, where that is known; all else is its.

    Operations on nothing but tensors with values are computed: states of generators, a module's own tables. Of those
    without values, what only writes into a tensor that is there is done already.

    Args:
        fake: the mode beneath.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self._fake = fake
        self._remembered = fake.fake_tensor_converter.meta_converter.tensor_memo

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = tensors_in((*args, *kwargs.values()))
        fakes = [isinstance(one, FakeTensor) for one in given]
        if given and not any(fakes):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if given and all(fakes):
            if func in _INTO:
                *read, out = given
                # Where it does not fit, it is resized.
                if tuple(out.shape) == _INTO[func](*read):
                    return out
            if func in _IN_PLACE and all(_spreads(one, given[0]) for one in given[1:]):
                return given[0]
            if func in _ANYWHERE and not kwargs and all(one.device == _CPU for one in given):
                return self._anywhere(func, args)
        made = func(*args, **kwargs)
        # A parameter that somebody remembers by a weak reference cannot be cast.
        self._remembered.clear()
        return made

    def _anywhere(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with in_kernel_invocation_manager(self._fake):
            made = func(*args)
        if isinstance(made, Tensor):
            return FakeTensor(self._fake, made, _CPU)
        return [FakeTensor(self._fake, one, _CPU) for one in made]


def _spreads(one: Tensor, onto: Tensor) -> bool:
    """Whether the values can be repeated to another's shape."""
    pairs = zip(reversed(one.shape), reversed(onto.shape), strict=False)
    return one.ndim <= onto.ndim and all(own in (1, wanted) for own, wanted in pairs)
