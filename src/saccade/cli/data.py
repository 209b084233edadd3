"""The verb `data`: what can be trained on, and what a data set holds."""

from __future__ import annotations

import json as json_lines
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.data.dataset import Dataset


def data(
    name: str | None = None,
    /,
    *,
    img_size: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    crop_pct: float = 1.0,
    in_chans: Literal[1, 3] | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    limit: int | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Say what a data set holds and check that every picture can be read; without a name, list the kinds of data.

    Example:
    `saccade data path/to/pictures --on-bad-image skip`

    Pictures are decoded once and kept in $SACCADE_CACHE (else $XDG_CACHE_HOME/saccade, else ~/.cache/saccade).

    Parameters
    ----------
    name
        digits, cifar10, cifar100, mnist, fashion_mnist, a path, or owner/name of the Hugging Face hub.
    img_size
        Height and width that a model sees, or one number for both. Default: the pictures' own if they are alike and at
        most 224 pixels, else 224.
    crop_pct
        Share of the shorter side that evaluation's middle crop covers.
    in_chans
        Channels. Default: 1 where every picture is grey, else 3.
    on_bad_image
        What to do about pictures that cannot be read: refuse the data, or leave them out and say so.
    limit
        Use so many training pictures, the first by a hash of their names.
    json
        Print a line of JSON: for each kind of data, or with what is known about the named one.
    """
    if name is None:
        _print_sources(json)
        return
    from saccade.cli.console import note, results
    from saccade.data.sources import load_data, own_size

    sides = own_size(name) if img_size is None else img_size * 2 if len(img_size) == 1 else img_size
    if len(sides) != 2:
        raise ValueError(f"--img-size {' '.join(map(str, sides))}: give a height and a width, or one number for both")
    dataset = load_data(
        name,
        img_size=(sides[0], sides[1]),
        crop_pct=crop_pct,
        in_chans=in_chans,
        on_bad_image=on_bad_image,
        limit=limit,
        note=note,
    )
    facts = {**dataset.facts(), "class_names": list(dataset.classes), "attribution": dataset.attribution}
    if json:
        print(json_lines.dumps(facts))
        return
    results().print(_counts(dataset, facts))
    for line in _lines(facts):
        results().print(line, markup=False, highlight=False, soft_wrap=True)


def _print_sources(json: bool) -> None:
    from saccade.data.listing import SOURCES

    if json:
        for source, what in SOURCES.items():
            print(json_lines.dumps({"data": source, "what": what}))
        return
    from rich.table import Table
    from rich.text import Text

    from saccade.cli.console import results

    table = Table("data", "what it is", box=None, pad_edge=False)
    for source, what in SOURCES.items():
        table.add_row(Text(source), Text(what))
    results().print(table)


def _counts(dataset: Dataset, facts: dict[str, Any]) -> Table:
    """Pictures a class and part."""
    from rich.table import Table
    from rich.text import Text

    table = Table("class", box=None, pad_edge=False, show_footer=True)
    table.columns[0].footer = "all"
    for part, count in facts["images"].items():
        table.add_column(part, f"{count:,}", justify="right")
    for place, one in enumerate(dataset.classes):
        table.add_row(Text(one), *(f"{counts[place]:,}" for counts in facts["images_per_class"].values()))
    return table


def _lines(facts: dict[str, Any]) -> list[str]:
    """Everything else, a line each."""
    height, width = facts["img_size"]
    shape = f"{facts['channels']} x {height} x {width} pixels, the middle {facts['crop_pct']:.1%} of a picture"
    moments = [" ".join(f"{value:.4f}" for value in facts[key]) for key in ("mean", "std")]
    lines = [f"a model sees {shape}", f"mean {moments[0]}, deviation {moments[1]}", f"split: {facts['split_rule']}"]
    lines += [f"left out of {part}: {count:,} unreadable" for part, count in facts["skipped"].items()]
    lines += [facts["attribution"]] if facts["attribution"] else []
    return [*lines, f"fingerprint {facts['fingerprint']}"]
