"""The verb `attentions`: which mechanisms there are."""

from __future__ import annotations

import json as json_lines
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.attention.facts import Facts


def attentions(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the attention mechanisms: what each does and costs, what it needs, and how it is written.

    Example: `saccade attentions`

    N tokens, D width, H heads; other letters are the mechanism's options. "any N?": it works on every number of tokens;
    "order-free?": it sees a set, not a sequence; "grid?": it needs to know the rows and columns of the patches. An
    attention is written as its name, with the options that differ from those shown: "nystrom(landmarks=16)".

    Parameters
    ----------
    json
        Print a line of JSON for each mechanism.
    """
    from saccade.attention.facts import listing

    found = listing()
    if json:
        for facts in found:
            print(json_lines.dumps(asdict(facts), ensure_ascii=False))
        return
    from saccade.cli.console import results

    results().print(_properties(found))
    results().print(_descriptions(found))


def _properties(found: Sequence[Facts]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("attention", "cost O()", "any N?", "order-free?", "grid?"):
        table.add_column(column, no_wrap=True)
    table.add_column("equals softmax")
    for facts in found:
        said = ("yes" if fact else "no" for fact in (facts.any_length, facts.free_of_order, facts.needs_grid))
        table.add_row(facts.name, facts.cost, *said, facts.exact_when)
    return table


def _descriptions(found: Sequence[Facts]) -> Table:
    """What each does, all its options with their defaults, and its source."""
    from rich.table import Table
    from rich.text import Text

    from saccade.attention.written import Written

    table = Table(box=None, pad_edge=False, show_header=False)
    for facts in found:
        written = Written(facts.name, tuple(facts.options.items()))
        table.add_row()
        table.add_row(facts.name, Text("\n").join(map(Text, (facts.title, str(written), facts.paper))))
    return table
