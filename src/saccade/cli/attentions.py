"""The verb `attentions`: which mechanisms there are."""

from __future__ import annotations

import json as json_lines
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from saccade.attention.facts import Facts


def attentions(*name: str, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the attention mechanisms: what each does and costs, what it needs, and how it is written.

    Example: `saccade attentions`, or `saccade attentions nystrom` for what its options mean

    N tokens, D width, H heads; other letters are the mechanism's options. "any N?": it works on every number of tokens;
    "order-free?": it sees a set, not a sequence; "grid?": it needs to know the rows and columns of the patches. An
    attention is written as its name, with the options that differ from those shown: "nystrom(landmarks=16)".

    Parameters
    ----------
    name
        Only these mechanisms, with what each option means.
    json
        Print a line of JSON for each mechanism.
    """
    from saccade.attention.facts import facts, listing

    found = [facts(one) for one in dict.fromkeys(name)] if name else listing()
    if json:
        for one in found:
            print(json_lines.dumps(asdict(one), ensure_ascii=False))
        return
    from saccade.cli.console import results

    results().print(_properties(found))
    results().print(_descriptions(found, options=bool(name)))
    if not name:
        results().print(_shared(found))


def _properties(found: Sequence[Facts]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("attention", "cost O()", "any N?", "order-free?", "grid?", "equals softmax"):
        # The two that are phrases share what is left of a narrow terminal.
        table.add_column(column, no_wrap=column not in ("cost O()", "equals softmax"))
    for facts in found:
        said = ("yes" if fact else "no" for fact in (facts.any_length, facts.free_of_order, facts.needs_grid))
        table.add_row(facts.name, facts.cost, *said, facts.exact_when)
    return table


def _descriptions(found: Sequence[Facts], options: bool) -> Table:
    """What each does, its own options with their defaults, and its source; with `options` what all of them mean."""
    from rich.table import Table
    from rich.text import Text

    from saccade.attention.written import Written

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    for facts in found:
        own = {option: value for option, value in facts.options.items() if options or option not in facts.shared}
        written = Written(facts.name, tuple(own.items()))
        lines = [Text(facts.title), Text(str(written), "bold"), Text(facts.paper)]
        table.add_row()
        table.add_row(facts.name, Text("\n").join(lines))
        if options:
            for option in own:
                table.add_row(Text(option, justify="right"), Text(facts.meanings[option]))
    return table


def _shared(found: Sequence[Facts]) -> Text:
    """The options that most mechanisms take beside their own, said once."""
    from rich.text import Text

    from saccade.attention.written import Written

    takers = [facts for facts in found if facts.shared]
    written = Written("shared", tuple((option, takers[0].options[option]) for option in takers[0].shared))
    others = ", ".join(facts.name for facts in found if not facts.shared)
    names = f"all but {others}" if others else "all"
    return Text(f"\nTaken by {names}: {str(written).removeprefix('shared')[1:-1]}.")
