"""Own: somebody's own module with a loss, as its memory is measured, here and in a fresh process."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from saccade.measurement.step import Step
from saccade.measurement.terms import Terms
from saccade.models.mae import MaskedAutoencoder
from saccade.models.vit import VisionTransformer

Loss = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Own:
    """A module, what it is given, its loss, and the terms.

    Attributes:
        module: the module, which is neither changed nor run, or "my.module:build", a function that makes it.
        inputs: of one step, the images first.
        loss: of the module and its inputs; None where the module's output is the loss, or has it as `loss`.
        terms: on which it is measured.
    """

    module: nn.Module | str
    inputs: tuple[Tensor, ...]
    loss: Loss | None
    terms: Terms

    @property
    def dtype(self) -> str:
        """Of the weights."""
        return self.terms.dtype

    @property
    def name(self) -> str:
        """The class, or the function that makes it."""
        return self.module if isinstance(self.module, str) else _place(type(self.module))

    def built(self) -> nn.Module:
        """The module on its device, in float32.

        Raises:
            ValueError: there is no such function, or it makes no module.
        """
        made = _made(self.module) if isinstance(self.module, str) else self.module
        return made.to(self.terms.device, torch.float32)

    def step_of(self, module: nn.Module) -> Step:
        """A training step of the module, or of a copy of it."""
        return Step(module, self.inputs, self, lambda inputs: self._loss(module, inputs))

    def _loss(self, module: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
        output = module(*inputs) if self.loss is None else self.loss(module, *inputs)
        loss = getattr(output, "loss", output)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ValueError(
                f"{self.name} gives {type(output).__name__} and no loss: give loss=, a function of the module and its "
                "inputs that returns a tensor of one number"
            )
        return loss


def own(module: nn.Module | str, inputs: Sequence[Tensor] | None, loss: Loss | None, terms: Terms) -> Own:
    """The module with its loss, if a fresh process can have it.

    Raises:
        ValueError: no inputs, or a class or function that other processes cannot import.
    """
    if not inputs or not all(isinstance(one, Tensor) for one in inputs):
        raise ValueError("a module of your own needs inputs: give inputs=[images, ...], the tensors of one step")
    made = Own(module, tuple(one.detach() for one in inputs), loss, terms)
    classes = [] if isinstance(module, str) else [type(part) for part in module.modules()]
    for one in dict.fromkeys([*classes, *([] if loss is None else [loss])]):
        _require_importable(one)
    return made


@contextmanager
def handed_over(given: Own) -> Iterator[str]:
    """A file of our own from which a fresh process reads the module, and which is then gone.

    Raises:
        ValueError: the module holds what cannot be written, as an open file or a function within a function is.
    """
    with TemporaryDirectory(prefix="saccade-") as folder:
        file = Path(folder) / "module.pt"
        try:
            torch.save(given, file)
        except Exception as error:
            raise ValueError(
                f"{given.name} cannot be handed to a fresh process ({type(error).__name__}: {error}): give "
                '"my.module:build" instead, a function that makes it'
            ) from error
        yield str(file)


def taken_over(file: str, path: Sequence[str]) -> Own:
    """What `handed_over` wrote, read where modules are found as they were there."""
    sys.path.extend(one for one in path if one not in sys.path)
    # The file was written by the process that started this one.
    given: Own = torch.load(file, weights_only=False, map_location="cpu")
    return given


def _made(text: str) -> nn.Module:
    module, _, name = text.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{text!r}: {error}; write my.module:build, a function without arguments") from error
    made = build()
    if not isinstance(made, nn.Module):
        raise ValueError(f"{text!r} makes {type(made).__name__}: it must make a torch.nn.Module")
    return made


def _require_importable(one: Any) -> None:
    where, name = getattr(one, "__module__", None), getattr(one, "__qualname__", repr(one))
    if where == "__main__" or "<" in name:
        raise ValueError(
            f"{_place(one)}: what a script, a notebook or another function defines cannot be found by the "
            "process that measures it; put it into a file of its own and import it"
        )


def _place(one: Any) -> str:
    return f"{getattr(one, '__module__', '?')}:{getattr(one, '__qualname__', type(one).__name__)}"


def is_own(model: str | nn.Module) -> bool:
    """Whether it is somebody's module and none of our models: neither such a model nor the name of one."""
    return ":" in model if isinstance(model, str) else not isinstance(model, VisionTransformer | MaskedAutoencoder)
