"""Tables: a comparison in a terminal, in Markdown and in a notebook; what a user wrote is text everywhere."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from saccade.reports.columns import Cell, Column, columns, legend
from saccade.reports.markup import code, prose
from saccade.reports.rows import Row

# Between two columns.
GAP = 2

# A longer name is broken in front of its options, and its column is never wider than the second number.
LONG_NAME = 24
MOST_NAME = 32

STYLES = {"better": "green", "not worse": "green", "worse": "red", "diverged": "red", "undecided": "yellow"}


class TerminalTable:
    """Columns for rich to print, as many beside each other as the terminal has room for; the first has the names.

    Args:
        shown: the columns.
        said_below: the legend.
        blocks: rows in front of which there is a line.
    """

    def __init__(self, shown: Sequence[Column], said_below: str, blocks: Collection[int] = ()) -> None:
        names, *rest = shown
        self.blocks = blocks
        self.columns = [replace(names, cells=tuple(_broken(cell) for cell in names.cells)), *rest]
        self.legend = said_below

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        for place, shown in enumerate(cut(self.columns, options.max_width)):
            if place:
                yield Text()
            yield _table(shown, self.blocks)
        if self.legend:
            yield Text()
            yield Text(self.legend, style="dim")


def terminal(rows: Sequence[Row], margin_points: int | float) -> TerminalTable:
    """The table for a rich console."""
    return TerminalTable(columns(rows, margin_points), legend(rows), _blocks(rows))


def markdown(rows: Sequence[Row], margin_points: int | float) -> str:
    """The table for report.md."""
    return markdown_table(columns(rows, margin_points), legend(rows), _blocks(rows))


def markdown_table(shown: Sequence[Column], said_below: str, blocks: Collection[int] = ()) -> str:
    """Columns as Markdown; the first has the names, and an empty row is in front of each block."""
    names = [(code(first), prose(small)) for first, small in shown[0].cells]
    cells = zip(names, *(column.cells for column in shown[1:]), strict=True)
    lines = [
        [_lines(column.heading) for column in shown],
        [":--" if column.words else "--:" for column in shown],
    ]
    for place, row in enumerate(cells):
        lines += [[""] * len(shown)] if place in blocks else []
        lines.append([_lines(cell) for cell in row])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{said_below}".rstrip() + "\n"


def notebook(rows: Sequence[Row], margin_points: int | float) -> str:
    """The table as HTML."""
    shown = columns(rows, margin_points)
    head = "".join(_html_cell("th", column, column.heading) for column in shown)
    body = "".join(
        "<tr>" + "".join(_html_cell("td", column, column.cells[place]) for column in shown) + "</tr>"
        for place in range(len(rows))
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{html.escape(legend(rows))}</p>"


def cut(shown: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns as one table, or as several below each other where one would be too wide; groups stay whole."""
    first, *rest = shown
    tables: list[list[Column]] = [[first]]
    for _, columns_of_group in groupby(rest, key=lambda column: column.group):
        group = list(columns_of_group)
        needed = min(first.width, MOST_NAME) + sum(GAP + column.width for column in [*tables[-1][1:], *group])
        if needed > width and len(tables[-1]) > 1:
            tables.append([first])
        tables[-1] += group
    return tables


def _broken(cell: Cell) -> Cell:
    """A name too long for one line, with its options on the next, before whatever stands there."""
    name, bracket, options = cell[0].partition("(")
    if len(cell[0]) <= LONG_NAME or not bracket:
        return cell
    return name, "\n".join(line for line in (bracket + options, cell[1]) if line)


def _blocks(rows: Sequence[Row]) -> list[int]:
    """The first of the rivals."""
    return [place for place, row in enumerate(rows) if row.rival][:1]


def _table(shown: Sequence[Column], blocks: Collection[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="", show_edge=False)
    for place, column in enumerate(shown):
        table.add_column(
            _text(column.heading, "bold"),
            justify="left" if column.words else "right",
            no_wrap=place > 0,
            overflow="fold",
            min_width=12 if place == 0 else None,
            max_width=MOST_NAME if place == 0 else None,
        )
    for place, cells in enumerate(zip(*(column.cells for column in shown), strict=True)):
        if place in blocks:
            table.add_section()
        table.add_row(*(_text(cell, STYLES.get(cell[0], "")) for cell in cells))
    return table


def _text(cell: Cell, style: str = "") -> Text:
    return Text("\n").join([Text(cell[0], style), Text(cell[1], "dim")])


def _lines(cell: Cell) -> str:
    return f"{cell[0]}<br>{cell[1]}" if cell[1] else cell[0]


def _html_cell(tag: str, column: Column, cell: Cell) -> str:
    side = "left" if column.words else "right"
    small = f"<br><small>{html.escape(cell[1])}</small>" if cell[1] else ""
    return f'<{tag} style="text-align:{side};vertical-align:top">{html.escape(cell[0])}{small}</{tag}>'
