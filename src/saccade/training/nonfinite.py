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
        what: "weight", "images", "output", "loss" or "gradient", or that nothing was found.
        module: name of the layer or the weight, where there is one.
    """

    what: str
    module: str = ""

    def __str__(self) -> str:
        return f"first not finite: {self.what} of {self.module}" if self.module else f"first not finite: {self.what}"


def find_source(model: nn.Module, images: Tensor, loss_of_step: Callable[[], Tensor]) -> Source:
    """Looks at the weights, the images, every layer's output and the loss, then at the gradients on their way back.

    Args:
        model: as it was when the step went wrong.
        images: of the step.
        loss_of_step: computes the same loss again.
    """
    found = [Source("weight", name) for name, weight in model.named_parameters() if not _finite(weight)]
    if not _finite(images):
        found.append(Source("images"))
    if found:
        return found[0]
    ears = [layer.register_forward_hook(_ear(name, found)) for name, layer in model.named_modules()]
    try:
        loss = loss_of_step()
        if not _finite(loss):
            found.append(Source("loss"))
        if not found:
            loss.backward()
    finally:
        for ear in ears:
            ear.remove()
    for name, weight in model.named_parameters():
        if weight.grad is not None and not _finite(weight.grad):
            found.append(Source("gradient", name))
    model.zero_grad()
    return found[0] if found else Source("nothing when the step was run again")


def _ear(name: str, found: list[Source]) -> Callable[[nn.Module, object, object], None]:
    """A hook that notes the layer where its output, or later the gradient of that, is not finite."""

    def hear_gradient(gradient: Tensor) -> None:
        if not _finite(gradient):
            found.append(Source("gradient", name))

    def hear_output(layer: nn.Module, given: object, output: object) -> None:
        # A layer that was given what is not finite is not where it began.
        began_before = not all(_finite(tensor) for tensor in _tensors(given))
        for tensor in _tensors(output):
            if not began_before and not _finite(tensor):
                found.append(Source("output", name))
            if tensor.requires_grad:
                tensor.register_hook(hear_gradient)

    return hear_output


def _tensors(values: object) -> Iterator[Tensor]:
    """The tensors that a layer was given, or gave."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for one in values:
            yield from _tensors(one)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
