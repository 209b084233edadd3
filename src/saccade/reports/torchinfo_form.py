"""A model in torchinfo's form: the tree of its modules, shapes, parameters, totals and sizes; nothing is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from saccade.measurement.called import Call, Pass, forward_pass

NAME_WIDTH = 40
COLUMN_WIDTH = 25
INDENT = 5

NONE = "--"


def torchinfo_lines(model: nn.Module, input_size: Sequence[int] | None = None, *, depth: int = 3) -> list[str]:
    """What torchinfo 1.8.0 prints, line by line, where it is right (https://github.com/TylerYep/torchinfo).

    Its tree, names, shapes and parameters are the same. Not so: its mult-adds take a linear layer for one token an
    image and leave out products without weights, so here they are half of what torch's counter sees; its size of the
    parameters leaves out those of a module with modules in it (class token, positions), so here it is that of all, as
    in the total of both; what two modules share counts twice there, once here; and a list that is left and entered
    again has there, where it is entered first, the number of the last time.

    Args:
        model: on any device.
        input_size: of the one tensor that goes in, the number of images first; None for modules and parameters alone,
            without a forward pass.
        depth: of the tree; what lies deeper is counted where the tree ends.

    Raises:
        ValueError: the model does what only tensors with values can, or takes no tensor of this size.
    """
    ran = None if input_size is None else forward_pass(model, input_size)
    if ran is None:
        modules = model.named_modules(remove_duplicate=False)
        rows, columns = _numbered(_Row(module, name) for name, module in modules), ["Param #"]
    else:
        rows, columns = _numbered(_with_containers(model, ran.calls)), ["Output Shape", "Param #"]
    width = _name_width(rows)
    rule = "=" * (width + COLUMN_WIDTH * len(columns))
    lines = [rule, _line(width, "Layer (type:depth-idx)", columns), rule]
    for row in rows:
        if row.depth <= depth:
            values = [str(row.shape) if row.shape else NONE, _parameters_of(row, rows, depth)]
            lines.append(_line(width, _branch(row.depth) + row.title, values[-len(columns) :]))
    lines += [rule, *_totals(model)]
    if ran is not None:
        lines += [_mult_adds(ran.flops), rule, *_sizes(model, ran, rows)]
    return [*lines, rule]


@dataclass(eq=False)
class _Row:
    """A module in the tree.

    Attributes:
        module: what stands there.
        name: as in the state dict.
        call: what it did; None where it was not called, but modules in it were.
        number: among the rows of its depth, from 1.
        again: whether the module stands in a row above.
    """

    module: nn.Module
    name: str
    call: Call | None = None
    number: int = 0
    again: bool = False

    @property
    def depth(self) -> int:
        return self.name.count(".") + 1 if self.name else 0

    @property
    def title(self) -> str:
        kind = type(self.module).__name__
        return f"{kind}: {self.depth}-{self.number}" if self.depth else kind

    @property
    def shape(self) -> list[int]:
        """Of the first tensor that comes out."""
        return list(self.call.shapes[0]) if self.call is not None and self.call.shapes else []

    @property
    def leaf(self) -> bool:
        return not any(self.module.children())


def _with_containers(model: nn.Module, calls: Iterable[Call]) -> list[_Row]:
    """The calls, and above them the modules around them that are not called themselves, as lists of blocks are."""
    rows: list[_Row] = []
    path: dict[int, nn.Module] = {}
    for call in calls:
        parts = call.name.split(".")
        for level in range(1, len(parts)):
            name = ".".join(parts[:level])
            container = model.get_submodule(name)
            if path.get(level) is not container:
                rows.append(_Row(container, name))
                path[level] = container
        rows.append(_Row(call.module, call.name, call))
        depth = rows[-1].depth
        path = {level: module for level, module in path.items() if level < depth} | {depth: call.module}
    return rows


def _numbered(rows: Iterable[_Row]) -> list[_Row]:
    seen: set[nn.Module] = set()
    counts: dict[int, int] = {}
    numbered = list(rows)
    for row in numbered:
        counts[row.depth] = row.number = counts.get(row.depth, 0) + 1
        row.again = row.module in seen
        seen.add(row.module)
    return numbered


def _parameters_of(row: _Row, rows: Sequence[_Row], depth: int) -> str:
    """Of a leaf and of where the tree ends all, of others those that no row has of a module within."""
    count = _count(row.module.parameters())
    if count == 0:
        return NONE
    if row.again:
        return "(recursive)"
    if row.leaf or row.depth == depth:
        return f"{count:,}" if any(one.requires_grad for one in row.module.parameters()) else f"({count:,})"
    within = set(row.module.modules()) - {row.module}
    shown = {one for other in rows if other.module in within for one in other.module.parameters()}
    left = _count(one for one in row.module.parameters() if one not in shown)
    return f"{left:,}" if left else NONE


def _totals(model: nn.Module) -> list[str]:
    """Every parameter is some row's."""
    total, learned = _count(model.parameters()), _count(one for one in model.parameters() if one.requires_grad)
    return [
        f"Total params: {total:,}",
        f"Trainable params: {learned:,}",
        f"Non-trainable params: {total - learned:,}",
    ]


def _mult_adds(flops: int) -> str:
    products = flops // 2
    size, unit = next(((size, unit) for size, unit in ((1e12, "T"), (1e9, "G")) if products >= size), (1e6, "M"))
    number = products / size
    return f"Total mult-adds ({unit}): {f'{number:,.0f}' if number.is_integer() else f'{number:,.2f}'}"


def _sizes(model: nn.Module, ran: Pass, rows: Sequence[_Row]) -> list[str]:
    """Megabytes of 10^6; the outputs of leaves that learn something count twice, once for their gradients."""
    made = 2 * sum(row.call.bytes for row in rows if row.call and row.leaf and _count(row.module.parameters()))
    learned = sum(one.numel() * one.element_size() for one in model.parameters())
    return [
        f"Input size (MB): {ran.input_bytes / 1e6:.2f}",
        f"Forward/backward pass size (MB): {made / 1e6:.2f}",
        f"Params size (MB): {learned / 1e6:.2f}",
        f"Estimated Total Size (MB): {(ran.input_bytes + made + learned) / 1e6:.2f}",
    ]


def _name_width(rows: Sequence[_Row]) -> int:
    """As many fives as the longest name needs; 40 at least."""
    longest = max(len(row.title) + INDENT * row.depth + 1 for row in rows)
    return NAME_WIDTH if longest < NAME_WIDTH else INDENT * math.ceil(longest / INDENT)


def _branch(depth: int) -> str:
    if depth == 0:
        return ""
    return "├─" if depth == 1 else "│    " * (depth - 1) + "└─"


def _line(width: int, name: str, values: Sequence[str]) -> str:
    return " ".join([f"{name:<{width}}", *(f"{value:<{COLUMN_WIDTH}}" for value in values)]).rstrip()


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(one.numel() for one in parameters)
