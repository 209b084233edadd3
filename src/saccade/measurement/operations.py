"""Operations: parameters and declared FLOPs of a model, layer by layer and in all; nothing is run or allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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
        flops: of one image's forward pass; a multiply and an add are two.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int


def operations(model: Model) -> dict[str, Any]:
    """What a model computes for one image, and which share of it an attention can change.

    `flops_per_image` and `attention_flops_per_image` are those of a training step's forward pass,
    `inference_flops_per_image` of what a user of the trained model runs. `quadratic_share` is that of the two products
    with N² in the blocks of the same model with softmax: N / (N + 6 D) at an MLP ratio of 4. `stacks` tells the encoder
    and the decoder apart, where there are both; tokens (those of a training step), width, depth and heads are the
    encoder's.
    """
    flops, work = model.flops(), work_of(model)
    stacks = work.stacks
    return {
        "parameters": _count(model),
        "attention_parameters": sum(_count(block.attn) for stack in stacks for block in stack.blocks),
        "flops_per_image": sum(flops.values()),
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
    with torch.device("meta"):
        twin = type(model)(**model.config).eval()
    flops = twin.flops()
    modules = dict(_rows(twin, "", flops))
    shapes = _output_shapes(twin, modules)
    own = [Layer(name, "Parameter", tuple(one.shape[1:]), one.numel(), 0) for name, one in _own(twin).items()]
    return own + [
        Layer(name, type(module).__name__, shapes[name], _count(module), flops.get(name, 0))
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


def _output_shapes(model: Model, modules: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """What each module puts out for one image, by a pass on the meta device."""
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [module.register_forward_hook(_note_shape(shapes, name)) for name, module in modules.items()]
    with torch.no_grad():
        model(torch.empty(1, model.in_chans, *model.img_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return shapes


def _note_shape(shapes: dict[str, tuple[int, ...]], name: str) -> Any:
    def note(module: nn.Module, given: object, output: Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])

    return note


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
