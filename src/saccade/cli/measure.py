"""The verbs `summary` and `models`: what a model is made of, and which models there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.measurement.operations import Layer

MODEL_COLUMNS = ("name", "width", "depth", "heads", "patch", "image", "tokens", "attention")


def summary(
    model: str,
    /,
    *,
    attention: str | None = None,
    img_size: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    in_chans: int | None = None,
    num_classes: int | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Print a model's layers: output shape, parameters and FLOPs of one image, and what an attention can change.

    Example:
    `saccade summary vit_base_patch16_224 --attention "nystrom(landmarks=16)" --num-classes 10`

    Nothing is allocated: the largest models answer as fast as small ones. FLOPs are declared ones, a multiply and an
    add are two; of the last block the rows are counted that are really computed.

    Parameters
    ----------
    model
        A name from `saccade models`.
    attention
        As in `saccade attentions`, with options; mixtures: `linear*8,softmax*4`. Default: the model's.
    img_size
        Height and width, or one number for both. Default: the model's.
    in_chans
        Channels of the images.
    num_classes
        Outputs of the head.
    set_
        Changes any other option of the model: --set depth=6 --set global_pool=avg
    json
        Print a line of JSON for each layer, then one with the sums, whose name is "total".
    """
    import torch

    from saccade.cli.console import results
    from saccade.measurement.operations import layers, operations
    from saccade.models.sizes import create_model

    given = {"img_size": _sides(img_size), "in_chans": in_chans, "num_classes": num_classes}
    options = {key: value for key, value in given.items() if value is not None} | _set(set_)
    with torch.device("meta"):
        made = create_model(model, attention, **options)
    rows, total = layers(made), operations(made)
    if json:
        _print_json([_plain(row) for row in rows] + [{"name": "total", "attention": made.attention, **total}])
    else:
        results().print(_layer_table(rows, total))
        results().print(_in_words(made.attention, total), markup=False, highlight=False)


def models(filter: str = "*", /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:  # noqa: A002
    """List the models by name.

    Example:
    `saccade models "vit_base_*"`

    Parameters
    ----------
    filter
        A pattern with * and ?.
    json
        Print a line of JSON for each model.
    """
    from rich.table import Table

    from saccade.cli.console import results
    from saccade.models.sizes import list_models

    rows = [_model_facts(name) for name in list_models(filter)]
    if not rows:
        raise ValueError(f"no model is called {filter!r}: `saccade models` lists them all")
    if json:
        _print_json(rows)
        return
    table = Table(*MODEL_COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[column]) for column in MODEL_COLUMNS))
    results().print(table)


def _model_facts(name: str) -> dict[str, Any]:
    """What a name stands for, from the table alone: no torch."""
    from saccade.models.sizes import model_defaults

    options = model_defaults(name)
    patches = (options["img_size"] // options["patch_size"]) ** 2
    return {
        "name": name,
        "width": options["embed_dim"],
        "depth": options["depth"],
        "heads": options["num_heads"],
        "patch": options["patch_size"],
        "image": options["img_size"],
        "tokens": 1 + patches,
        "attention": options["attention"],
    }


def _set(settings: Sequence[str]) -> dict[str, Any]:
    """What `--set` changes, values read as a recipe's are."""
    from saccade.training.recipe import Recipe, parse_settings, with_values

    values = parse_settings(f"model.options.{setting}" for setting in settings)
    return dict(with_values(Recipe(), values).model.options)


def _sides(img_size: tuple[int, ...] | None) -> int | tuple[int, ...] | None:
    return img_size[0] if img_size is not None and len(img_size) == 1 else img_size


def _plain(row: Layer) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row)


def _print_json(rows: Sequence[dict[str, Any]]) -> None:
    from json import dumps

    for row in rows:
        print(dumps(row))


def _layer_table(rows: Sequence[Layer], total: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("layer", "total")
    table.add_column("type")
    table.add_column("output")
    table.add_column("parameters", f"{total['parameters']:,}", justify="right")
    table.add_column("FLOPs an image", f"{total['flops_per_image']:,}", justify="right")
    for row in rows:
        shape = " x ".join(str(side) for side in row.output_shape)
        table.add_row(row.name, row.type, shape, f"{row.parameters:,}", f"{row.flops:,}")
    return table


def _in_words(attention: str, total: dict[str, Any]) -> str:
    """Whether an attention can matter at this size."""
    parts = total["attention_flops_per_image"] / total["flops_per_image"]
    return (
        f"{attention}: {parts:.1%} of the FLOPs and {total['attention_parameters']:,} parameters. "
        f"With softmax, the part that is quadratic in {_tokens(total['stacks'])} is "
        f"{total['quadratic_share']:.1%} of the blocks' arithmetic."
    )


def _tokens(stacks: Mapping[str, Mapping[str, int]]) -> str:
    """How many there are, and the width of a head; in an encoder and in a decoder, where there are both."""
    told = {name: f"{size['tokens']} tokens (heads of width {size['head_width']})" for name, size in stacks.items()}
    if len(told) == 1:
        return f"the {told['encoder']}"
    return " and ".join(f"the {name}'s {words}" for name, words in told.items())
