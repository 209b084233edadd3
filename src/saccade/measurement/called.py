"""Called: which modules a forward pass calls, in which order, and what they put out; nothing is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saccade.attention.flops import counting
from saccade.measurement.twin import twin_of


@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        name: of the module, as in the state dict; "" for the model itself.
        module: what is called.
        shapes: of the tensors that it puts out; none where it puts out anything else.
        bytes: of them.
        ended: how many calls had ended with this one.
    """

    name: str
    module: nn.Module
    shapes: list[tuple[int, ...]]
    bytes: int = 0
    ended: int = 0


@dataclass(frozen=True)
class Pass:
    """A forward pass.

    Attributes:
        calls: in the order in which they begin.
        input_bytes: of what goes in.
        flops: of all of it, as torch's counter sees them.
    """

    calls: list[Call]
    input_bytes: int
    flops: int


def forward_pass(model: nn.Module, input_size: Sequence[int]) -> Pass:
    """Runs a model in eval mode on the meta device, on which tensors have shapes and no values.

    A module whose weights are used without calling it is in no call: its parent's product is.

    Args:
        model: on any device; it stays as it is.
        input_size: of the one tensor that goes in, as (images, channels, rows, columns).

    Raises:
        ValueError: the model does what only tensors with values can, or takes no tensor of this size.
    """
    meta = torch.device("meta")
    twin = twin_of(model, meta).eval()
    dtype = next((one.dtype for one in twin.parameters()), None)
    images = torch.empty(*input_size, dtype=dtype, device=meta)
    originals = dict(zip(twin.modules(), model.modules(), strict=True))
    calls: list[Call] = []
    running: list[Call] = []
    # A module in several places has the name of the last one, as torchinfo has it.
    for module, name in {one: name for name, one in twin.named_modules(remove_duplicate=False)}.items():
        module.register_forward_pre_hook(partial(_begin, calls, running, name, originals[module]))
        module.register_forward_hook(partial(_end, calls, running))
    try:
        with torch.no_grad(), meta, counting() as counter:
            twin(images)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be run on an input of {' x '.join(map(str, input_size))} without values: "
            f"{error}"
        ) from error
    return Pass(calls, images.nbytes, counter.get_total_flops())


def _begin(
    calls: list[Call], running: list[Call], name: str, original: nn.Module, module: nn.Module, given: object
) -> None:
    running.append(Call(name, original, []))
    calls.append(running[-1])


def _end(calls: list[Call], running: list[Call], module: nn.Module, given: object, output: Any) -> None:
    call = running.pop()
    tensors = _tensors(output)
    call.shapes = [tuple(one.shape) for one in tensors]
    call.bytes = sum(one.numel() * one.element_size() for one in tensors)
    call.ended = len(calls) - len(running)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Mapping):
        output = list(output.values())
    found = output if isinstance(output, (list, tuple)) else [output]
    return [one for one in found if isinstance(one, Tensor)]
