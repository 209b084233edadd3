"""Where a number that is not finite came from: the step is run again with an ear at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Source:
    """The first place that is not finite.

    Attributes:
        module: name of a layer or of a weight; "" where every layer is finite, but the loss is not.
        what: "weight", "output" or "gradient".
    """

    module: str
    what: str

    def __str__(self) -> str:
        return f"the first that is not finite is the {self.what} of {self.module or 'the loss'}"


def find_source(model: nn.Module, loss_of_step: Callable[[], Tensor]) -> Source:
    """Looks at the weights, then at every layer's output, then at the gradients on their way back.

    Args:
        model: as it was when the step went wrong.
        loss_of_step: computes the same loss again.
    """
    for name, weight in model.named_parameters():
        if not _finite(weight):
            return Source(name, "weight")
    outputs: list[str] = []
    gradients: list[str] = []
    ears = [layer.register_forward_hook(_ear(name, outputs, gradients)) for name, layer in model.named_modules()]
    try:
        loss = loss_of_step()
        if not outputs and _finite(loss):
            loss.backward()
    finally:
        for ear in ears:
            ear.remove()
    if outputs:
        return Source(outputs[0], "output")
    if not _finite(loss):
        return Source("", "output")
    gradients += [name for name, one in model.named_parameters() if one.grad is not None and not _finite(one.grad)]
    model.zero_grad()
    return Source((gradients or [""])[0], "gradient")


def _ear(name: str, outputs: list[str], gradients: list[str]) -> Callable[[nn.Module, object, object], None]:
    """A hook that writes the layer's name down where its output, or later the gradient of it, is not finite."""

    def hear_gradient(gradient: Tensor) -> None:
        if not _finite(gradient):
            gradients.append(name)

    def hear_output(layer: nn.Module, given: object, output: object) -> None:
        for tensor in _tensors(output):
            if not _finite(tensor):
                outputs.append(name)
            if tensor.requires_grad:
                tensor.register_hook(hear_gradient)

    return hear_output


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for one in output:
            yield from _tensors(one)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
