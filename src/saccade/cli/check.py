"""The verb `check`: does an attention keep the contract?"""

from __future__ import annotations

import json as json_lines
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.attention.contract import Verdict

Verdicts = Mapping[str, "Sequence[Verdict]"]


def check(
    *attention: str,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Check that attentions keep the contract: anybody's class, or the mechanisms that saccade brings.

    Example:
    `saccade check softmax "my.module:Mine(rank=8)" path/to/mine.py:Mine`

    Every clause runs on small layers in float64: outputs and gradients against the class's own `reference`, declared
    facts, FLOPs, saving and loading, bf16, torch.compile and more. Exit code 1 if one is broken.

    Parameters
    ----------
    attention
        A name from `saccade attentions` or your own class, with options.
    all_
        Check every mechanism that saccade brings.
    json
        Print a line of JSON for each attention and clause.
    """
    from saccade.attention import list_attentions, parse, resolve
    from saccade.attention.contract import check as verdicts_of
    from saccade.cli.console import note, results
    from saccade.errors import Failed

    names = list(dict.fromkeys([*attention, *(list_attentions() if all_ else ())]))
    if not names:
        raise ValueError("check what? Write a name from `saccade attentions`, my.module:Mine, or --all")
    for name in names:
        resolve(parse(name))
    verdicts: dict[str, list[Verdict]] = {}
    for name in names:
        note(f"checking {name}")
        verdicts[name] = verdicts_of(name)
    if json:
        for name, found in verdicts.items():
            for verdict in found:
                print(json_lines.dumps({"attention": name, **asdict(verdict)}, ensure_ascii=False))
    else:
        results().print(_table(verdicts))
    broken = [(name, verdict) for name, found in verdicts.items() for verdict in found if not verdict.ok]
    for name, verdict in broken:
        note(f"{name} breaks {verdict.clause}: {verdict.sentence}")
    if broken:
        raise Failed(f"{len(broken)} of {sum(map(len, verdicts.values()))} clauses are broken")


def _table(verdicts: Verdicts) -> Table:
    """Clauses down, attentions across."""
    from rich.table import Table
    from rich.text import Text

    table = Table("clause")
    for name in verdicts:
        table.add_column(Text(name))
    for row in zip(*verdicts.values(), strict=True):
        table.add_row(row[0].clause.replace("_", " "), *("kept" if verdict.ok else "BROKEN" for verdict in row))
    return table
