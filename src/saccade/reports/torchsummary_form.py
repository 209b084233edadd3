"""A model in torchsummary's form: its modules in the order in which they are done, and sizes; nothing is allocated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from saccade.measurement.called import Call, forward_pass

# Megabytes of 2^20 bytes, as there.
MB = 2**20

_RULE, _DOUBLE_RULE = "-" * 64, "=" * 64


def torchsummary_lines(model: nn.Module, input_size: Sequence[int], *, batch_size: int = -1) -> list[str]:
    """What torchsummary 1.5.1 prints, line by line, where it is right (https://github.com/sksq96/pytorch-summary).

    Names, shapes, the sum of all outputs (twice: once for their gradients) and which parameters count, `weight` and
    `bias`, are the same; `unlisted` names the others. A module whose weights are multiplied without calling it is
    missing there: here its parent has them. What is called twice counts twice there, and once here.

    Args:
        model: on any device.
        input_size: of one image: channels, rows, columns.
        batch_size: shown as the number of images; -1 for any, and sizes of one.

    Raises:
        ValueError: the model does what only tensors with values can, or takes no tensor of this size.
    """
    ran = forward_pass(model, (1, *input_size))
    calls = [call for call in ran.calls if _listed(model, call.module)]
    parameters = _parameters_by_call(model, calls)
    calls.sort(key=lambda call: call.ended)
    lines = [_RULE, _line("Layer (type)", "Output Shape", "Param #"), _DOUBLE_RULE]
    for number, call in enumerate(calls, start=1):
        shapes = [[batch_size, *shape[1:]] for shape in call.shapes]
        shown = str(shapes[0] if len(shapes) == 1 else shapes)
        lines.append(_line(f"{type(call.module).__name__}-{number}", shown, f"{_count(parameters[call]):,}"))
    images = abs(batch_size)
    learned = [one for of_call in parameters.values() for one in of_call]
    total, trainable = _count(learned), _count(one for one in learned if one.requires_grad)
    given = images * ran.input_bytes / MB
    made = 2 * images * sum(call.bytes for call in calls) / MB
    kept = sum(one.numel() * one.element_size() for one in learned) / MB
    return [
        *lines,
        _DOUBLE_RULE,
        f"Total params: {total:,}",
        f"Trainable params: {trainable:,}",
        f"Non-trainable params: {total - trainable:,}",
        _RULE,
        f"Input size (MB): {given:.2f}",
        f"Forward/backward pass size (MB): {made:.2f}",
        f"Params size (MB): {kept:.2f}",
        f"Estimated Total Size (MB): {given + made + kept:.2f}",
        _RULE,
    ]


def unlisted(model: nn.Module) -> Mapping[str, int]:
    """How many numbers are in parameters that the form has no place for, by their name: class token, positions."""
    found = Counter[str]()
    for name, parameter in model.named_parameters():
        if not _counts(name):
            found[name.rpartition(".")[2]] += parameter.numel()
    return found


def _counts(name: str) -> bool:
    """Weights and biases, but not the model's own."""
    module, _, kind = name.rpartition(".")
    return bool(module) and kind in ("weight", "bias")


def _listed(model: nn.Module, module: nn.Module) -> bool:
    return module is not model and not isinstance(module, (nn.Sequential, nn.ModuleList))


def _parameters_by_call(model: nn.Module, calls: Sequence[Call]) -> dict[Call, list[nn.Parameter]]:
    """Each weight and bias at the innermost module around it that is called, at its first call."""
    first = {call.module: call for call in reversed(calls)}
    found: dict[Call, list[nn.Parameter]] = {call: [] for call in calls}
    for name, parameter in model.named_parameters():
        if not _counts(name):
            continue
        parts = name.split(".")
        around = (model.get_submodule(".".join(parts[:length])) for length in range(len(parts) - 1, 0, -1))
        if (call := next((first[one] for one in around if one in first), None)) is not None:
            found[call].append(parameter)
    return found


def _line(name: str, shape: str, parameters: str) -> str:
    return f"{name:>20}  {shape:>25} {parameters:>15}"


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(one.numel() for one in parameters)
