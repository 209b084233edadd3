"""Scopes: which module of a model an operation belongs to, in the forward pass and in the backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

# What no module does: the loss where it is computed behind the model, and its gradient.
OUTSIDE = "loss"

_NAME = "saccade_scope"


class Scopes:
    """Knows, while it is entered, in which module of a model the present operation stands.

    In the forward pass that is the innermost module that runs; in the backward pass the one whose forward pass made the
    node of autograd's graph that runs, or, where activations are computed again, the innermost module that runs again.
    Nothing is hung on the modules themselves: some compute otherwise when somebody listens to them.

    Args:
        model: whose modules are told apart.
    """

    def __init__(self, model: nn.Module) -> None:
        whole = type(model).__name__
        self._names = {module: name or whole for name, module in model.named_modules()}
        self._running: list[str] = []
        self._hooks: list[Any] = []

    def __call__(self) -> str:
        """The name of the module, as in the state dict; that of its class for the whole model."""
        if self._running:
            return self._running[-1]
        node: Any = torch._C._current_autograd_node()
        return OUTSIDE if node is None else node.metadata.get(_NAME, OUTSIDE)

    def __enter__(self) -> Scopes:
        self._hooks = [
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        if module in self._names:
            # What led here is the surrounding module's.
            _mark(given, self())
            self._running.append(self._names[module])

    def _end(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if module in self._names:
            _mark([output], self._running.pop())


def _mark(values: Iterable[Any], scope: str) -> None:
    """Names the nodes of autograd's graph that made these and have no name yet."""
    ahead: list[Any] = [one.grad_fn for one in _tensors(values)]
    while ahead:
        node = ahead.pop()
        if node is not None and _NAME not in node.metadata:
            node.metadata[_NAME] = scope
            ahead.extend(before for before, _ in node.next_functions)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for one in tree_leaves(list(values)):
        if isinstance(one, Tensor):
            found.append(one)
        elif is_dataclass(one) and not isinstance(one, type):
            found += _tensors(getattr(one, field.name) for field in fields(one))
    return found
