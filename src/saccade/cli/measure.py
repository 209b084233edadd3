"""The verbs `summary` and `models`: what a model is made of, in three forms, and which models there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.measurement.operations import Layer
    from saccade.measurement.subject import Subject
    from saccade.measurement.work import Model

# Of the training step whose activations are told: few, since some mechanisms go through them one by one.
IMAGES = 8

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
    batch_size: int | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
    style: Literal["torchinfo", "torchsummary"] | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Print a model's layers: shapes, parameters, FLOPs and activations of an image, and what an attention can change.

    Example:
    `saccade summary vit_base_patch16_224 --attention "nystrom(landmarks=16)" --num-classes 10`

    Nothing is allocated, whatever the size. A multiply and an add are two FLOPs; of the last block the rows are counted
    that are really computed. Forward FLOPs are declared, those of the backward pass counted as it runs. Activations are
    the bytes that a training step on a CPU keeps between the two, an image's share.

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
    batch_size
        Images of the training step whose activations are told. Default: 8. In a style, images that go in. Default: 1;
        torchsummary writes -1.
    dtype
        Of that step: fp32 or bf16.
    style
        Print the tree and the sizes in the form of torchinfo or torchsummary instead, with their mistakes put right.
    json
        Print a line of JSON for each layer, then one with the sums, whose name is "total".
    """
    import torch

    from saccade.cli.console import results
    from saccade.cli.flags import model_options
    from saccade.measurement.operations import layers, operations
    from saccade.measurement.subject import Subject
    from saccade.measurement.terms import require_positive
    from saccade.models.sizes import create_model

    if batch_size is not None:
        require_positive(batch_size=batch_size)
    if style is not None and json:
        raise ValueError(f"--style {style} with --json: the form is for reading; leave one of the two out")
    options = model_options(img_size, set_, in_chans=in_chans, num_classes=num_classes)
    with torch.device("meta"):
        made = create_model(model, attention, **options)
    if style is not None:
        _print_style(made, style, batch_size)
        return
    images = IMAGES if batch_size is None else batch_size
    subject = Subject(model=model, attention=made.attention, options=options, batch_size=images, dtype=dtype)
    rows, total = layers(made), operations(made)
    kept = _kept(subject, rows)
    if json:
        _print_json(
            [*_plain(rows, kept), {"name": "total", "attention": made.attention, **total, **_kept_in_all(kept)}]
        )
    else:
        results().print(_layer_table(rows, total, kept))
        for words in (_in_words(made.attention, total), _of_training(total, subject)):
            results().print(words, markup=False, highlight=False)


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


def _plain(rows: Sequence[Layer], kept: Mapping[str, float] | None) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(row) | {"kept_bytes": None if kept is None else kept[row.name]} for row in rows]


def _kept(subject: Subject, rows: Sequence[Layer]) -> dict[str, float] | None:
    """Bytes of the activations, layer by layer; None, and a note why, where they cannot be told."""
    from saccade.cli.console import note
    from saccade.measurement.kept import kept_by_layer

    try:
        return kept_by_layer(subject, {row.name for row in rows})
    except ValueError as error:
        note(f"No activations: {error}")
        return None


def _kept_in_all(kept: Mapping[str, float] | None) -> dict[str, float | None]:
    from saccade.measurement.kept import BETWEEN

    return {
        "kept_bytes_per_image": None if kept is None else sum(kept.values()),
        "kept_between_bytes_per_image": None if kept is None else kept[BETWEEN],
    }


def _print_style(model: Model, style: str, batch_size: int | None) -> None:
    """The whole form on stdout, what it has no place for on stderr."""
    from saccade.cli.console import note, results
    from saccade.reports.torchinfo_form import torchinfo_lines
    from saccade.reports.torchsummary_form import torchsummary_lines, unlisted

    size = (model.in_chans, *model.img_size)
    if style == "torchinfo":
        lines = torchinfo_lines(model, (1 if batch_size is None else batch_size, *size))
    else:
        lines = torchsummary_lines(model, size, batch_size=-1 if batch_size is None else batch_size)
    for line in lines:
        results().print(line, markup=False, highlight=False, soft_wrap=True)
    if style == "torchsummary" and (left := unlisted(model)):
        told = ", ".join(f"{name} {count:,}" for name, count in left.items())
        note(f"The form counts weights and biases alone, not {told}.")


def _print_json(rows: Sequence[dict[str, Any]]) -> None:
    from json import dumps

    for row in rows:
        print(dumps(row))


def _layer_table(rows: Sequence[Layer], total: dict[str, Any], kept: Mapping[str, float] | None) -> Table:
    from rich.table import Table

    from saccade.measurement.kept import BETWEEN

    table = Table(box=None, pad_edge=False, show_footer=True)
    for heading, footer in (("layer", "total"), ("type", ""), ("output", "")):
        table.add_column(heading, footer)
    sums = (
        ("parameters", f"{total['parameters']:,}"),
        ("FLOPs forward", _short(total["flops_per_image"])),
        ("backward", _short(total["backward_flops_per_image"])),
        ("activations", _short(_kept_in_all(kept)["kept_bytes_per_image"], "B")),
    )
    for heading, footer in sums:
        table.add_column(heading, footer, justify="right")
    for row in rows:
        shape = " x ".join(str(side) for side in row.output_shape)
        size = None if kept is None else kept[row.name]
        numbers = (f"{row.parameters:,}", _short(row.flops), _short(row.backward_flops), _short(size, "B"))
        table.add_row(row.name, row.type, shape, *numbers)
    if kept is not None:
        table.add_row(BETWEEN, "", "", "", "", "", _short(kept[BETWEEN], "B"))
    return table


def _short(value: int | float | None, unit: str = "") -> str:
    from saccade.reports.numbers import NONE, counted

    if value is None:
        return NONE
    return counted(value, unit) if value else "0"


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


def _of_training(total: dict[str, Any], subject: Subject) -> str:
    """What a training step does and keeps for an image."""
    forward, training = total["flops_per_image"], total["training_flops_per_image"]
    if training is None:
        return "What training computes is not known: a class of this model reads values."
    again = total["checkpointing_flops_per_image"]
    words = f"Training computes {_short(training, 'FLOP')} an image, {training / forward:.2f} x the forward pass"
    words += "; its blocks are reversible." if again is None else f"; checkpointing adds {_short(again, 'FLOP')}."
    return f"{words} Activations are those of a step of {subject.batch_size} images in {subject.dtype} on a CPU."
