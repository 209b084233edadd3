"""The verb `check`: does an attention keep the contract?"""

from __future__ import annotations

import json as json_lines
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Group
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
        Print a line of JSON for each attention and clause; "checked" is false where a clause asks nothing of it.
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
    for number, name in enumerate(names, 1):
        note(f"checking {name} ({number} of {len(names)})")
        verdicts[name] = verdicts_of(name)
    if json:
        for name, found in verdicts.items():
            for verdict in found:
                print(json_lines.dumps({"attention": name, **asdict(verdict)}, ensure_ascii=False))
    else:
        results().print(_by_clause(verdicts) if len(verdicts) <= _ACROSS else _by_attention(verdicts))
    broken = [(name, verdict) for name, found in verdicts.items() for verdict in found if not verdict.ok]
    for name, verdict in broken:
        note(f"{name} breaks {verdict.clause}: {verdict.sentence}")
    if broken:
        raise Failed(f"{len(broken)} of {sum(map(len, verdicts.values()))} clauses are broken")


# So many attentions fit beside the names of the clauses.
_ACROSS = 3

_SIGNS = {"kept": "✓", "BROKEN": "✗", "not checked": "–"}


def _word(verdict: Verdict) -> str:
    if not verdict.ok:
        return "BROKEN"
    return "kept" if verdict.checked else "not checked"


def _by_clause(verdicts: Verdicts) -> Table:
    """Clauses down, a few attentions across."""
    from rich.table import Table
    from rich.text import Text

    table = Table("clause")
    for name in verdicts:
        table.add_column(Text(name))
    for row in zip(*verdicts.values(), strict=True):
        table.add_row(row[0].clause, *map(_word, row))
    return table


def _by_attention(verdicts: Verdicts) -> Group:
    """Attentions down, clauses across by their numbers, which are explained below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from saccade.attention.contract import demand

    table = Table("", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    legend = Table(box=None, pad_edge=False, show_header=False)
    for number, verdict in enumerate(next(iter(verdicts.values())), 1):
        table.add_column(str(number), no_wrap=True, min_width=2)
        legend.add_row(f"{number:2}", verdict.clause, demand(verdict.clause))
    for name, found in verdicts.items():
        table.add_row(Text(name), *(_SIGNS[_word(verdict)] for verdict in found))
    signs = ", ".join(f"{sign} {word}" for word, sign in _SIGNS.items())
    return Group(table, "", signs, "", legend)
