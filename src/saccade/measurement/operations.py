"""Operations: parameters and FLOPs of a model, both passes, layer by layer and in all; nothing is allocated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from saccade.attention.flops import WHOLE
from saccade.measurement.backward import backward_flops
from saccade.measurement.called import forward_pass
from saccade.measurement.machine import machine_facts
from saccade.measurement.subject import Subject
from saccade.measurement.work import Model, Stack, work_of
from saccade.models.sizes import create_model
from saccade.record import Record


@dataclass(frozen=True)
class Layer:
    """One row of a model's layer table.

    Attributes:
        name: as in the state dict.
        type: class of the module; "Parameter" for a tensor of the model's own, as cls_token and pos_embed are.
        output_shape: of one image, the rows that are really computed; a parameter's own shape.
        parameters: numbers learned.
        flops: of one image's forward pass, as declared; a multiply and an add are two.
        backward_flops: of its backward pass in training, as counted; None where that cannot be run without values.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    backward_flops: int | None


def operations(model: Model) -> dict[str, Any]:
    """What a model computes for one image, and which share of it an attention can change.

    `flops_per_image` and `attention_flops_per_image` are those of a training step's forward pass,
    `backward_flops_per_image` (counted: `backward_flops`) and `training_flops_per_image` of the other and of both;
    `checkpointing_flops_per_image` is what checkpointing adds. These three are None where a class reads values, and the
    last for reversible blocks, which compute everything again in any case. `inference_flops_per_image` is of what a
    user of the trained model runs. `quadratic_share` is that of the two products with N² in the blocks of the same
    model with softmax: N / (N + 6 D) at an MLP ratio of 4. `stacks` tells the encoder and the decoder apart, where
    there are both; tokens (those of a training step), width, depth and heads are the encoder's.
    """
    flops, work = model.flops(), work_of(model)
    stacks = work.stacks
    return {
        "parameters": _count(model),
        "attention_parameters": sum(_count(block.attn) for stack in stacks for block in stack.blocks),
        "flops_per_image": sum(flops.values()),
        **_training(model, sum(flops.values())),
        "inference_flops_per_image": work.inference_flops,
        "attention_flops_per_image": sum(count for name, count in flops.items() if name.endswith(".attn")),
        "quadratic_share": quadratic_share(model),
        "grid": list(model.tokens.grid),
        **_size(stacks[0]),
        "stacks": {stack.name: {**_size(stack), **_arithmetic(stack)} for stack in stacks},
    }


def operations_record(subject: Subject) -> Record:
    """The record of a subject's operations.

    Raises:
        ValueError: a model or attention that makes no sense at this size.
    """
    with torch.device("meta"):
        model = create_model(subject.model, subject.attention, **subject.options)
    return Record(kind="operations", **subject.about(), values=operations(model), machine=machine_facts())


def quadratic_share(model: Model) -> float:
    """Share of softmax's two N² products in the blocks' arithmetic: what a cheaper attention can save at the most."""
    counted = [_arithmetic(stack) for stack in work_of(model).stacks]
    return sum(one["quadratic_flops"] for one in counted) / sum(one["softmax_flops"] for one in counted)


def layers(model: Model) -> list[Layer]:
    """The rows of the layer table; their parameters and FLOPs sum to the model's."""
    twin = _twin(model)
    flops = twin.flops()
    modules = dict(_rows(twin, "", flops))
    backward = _by_layer(backward_flops(twin), modules)
    calls = forward_pass(twin, (1, twin.in_chans, *twin.img_size)).calls
    shapes = {call.name: call.shapes[0][1:] for call in calls if call.shapes}
    own = [Layer(name, "Parameter", tuple(one.shape[1:]), one.numel(), 0, 0) for name, one in _own(twin).items()]
    return own + [
        Layer(
            name,
            type(module).__name__,
            shapes[name],
            _count(module),
            flops.get(name, 0),
            None if backward is None else backward[name],
        )
        for name, module in modules.items()
    ]


def _rows(module: nn.Module, name: str, flops: dict[str, int]) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose FLOPs are declared, and of the others the innermost ones that hold parameters."""
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        if path in flops or _own(child):
            yield path, child
        else:
            yield from _rows(child, path, flops)


def layer_of(module: str, layers: Collection[str]) -> str | None:
    """The one of these layers that a module is, or is in; None where there is none."""
    parts = module.split(".")
    around = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in around if name in layers), None)


def _by_layer(by_module: Mapping[str, int] | None, layers: Collection[str]) -> Counter[str] | None:
    if by_module is None:
        return None
    counted = Counter[str]()
    for module, count in by_module.items():
        if (layer := layer_of(module, layers)) is not None:
            counted[layer] += count
    return counted


def _twin(model: Model) -> Model:
    """The same without values."""
    with torch.device("meta"):
        return type(model)(**model.config)


def _training(model: Model, forward: int) -> dict[str, int | None]:
    """The FLOPs that training adds to the forward pass."""
    twin = _twin(model)
    backward = _whole(twin)
    again = None
    if backward is not None and not model.reversible:
        twin.set_grad_checkpointing()
        with_checkpointing = _whole(twin)
        again = None if with_checkpointing is None else with_checkpointing - backward
    return {
        "backward_flops_per_image": backward,
        "training_flops_per_image": None if backward is None else forward + backward,
        "checkpointing_flops_per_image": again,
    }


def _whole(twin: Model) -> int | None:
    counted = backward_flops(twin)
    return None if counted is None else counted[WHOLE]


def _size(stack: Stack) -> dict[str, int]:
    """Its measures."""
    return {
        "tokens": stack.count,
        "width": stack.width,
        "depth": len(stack.blocks),
        "heads": stack.heads,
        "head_width": stack.width // stack.heads,
    }


def _arithmetic(stack: Stack) -> dict[str, int]:
    """The operations of its blocks with softmax, all rows of the last one too, and those of the products with N²."""
    n = stack.count
    quadratic = sum(4 * n**2 * block.attn.dim for block in stack.blocks)
    linear = sum(8 * n * block.attn.dim**2 + block.mlp.flops(n) for block in stack.blocks)
    return {"quadratic_flops": quadratic, "softmax_flops": quadratic + linear}


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
