"""The report of a bench: tables and pictures of time and memory against tokens, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.record import Record, write_records, write_whole
from saccade.reports.layers import LEGEND, Line, busy, by_kind, columns, gaps, lines
from saccade.reports.markup import block, code, prose
from saccade.reports.scaling import time_tokens
from saccade.reports.tables import markdown_table

_TERMS = ("batch_size", "width", "heads", "prefix", "dtype", "amp_dtype", "device", "threads", "clock", "allocator")
_MACHINE = ("processor", "cores", "accelerator", "system", "python", "torch", "saccade", "commit")

_HOW = (
    "Each attention lives in a process of its own; they are warmed up and then take turns. Before any timing, output "
    "and gradients were held against the attention's reference, at the number of tokens that its record calls "
    "`gated_tokens`: where a quadratic reference would not fit into memory, that of the largest halved grid on which "
    "it does. A core is given queries, keys and values; a whole layer has its projections around it."
)


def write_layer_report(folder: Path, records: Sequence[Record], command: str = "") -> Path:
    """Writes records.jsonl, report.md and the picture.

    Args:
        folder: is made where it is not there.
        records: of one bench.
        command: the line that made them.

    Returns:
        The report.
    """
    found = lines(records)
    write_records(folder / "records.jsonl", records)
    pictures = time_tokens(found, folder)
    write_whole(folder / "report.md", layer_report(records, found, command, pictures[0].name if pictures else ""))
    return folder / "report.md"


def layer_report(records: Sequence[Record], found: Sequence[Line], command: str = "", picture: str = "") -> str:
    """The records in words and tables."""
    parts = [
        "# Attention against tokens",
        "**Others used the processors meanwhile: these times are not to be trusted.**" if busy(records) else "",
        *(f"## {title}\n\n{markdown_table(columns(own), '').strip()}" for title, own in by_kind(found).items()),
        f"![time against tokens]({picture})" if picture else "",
        LEGEND,
        _missing(found),
        "## How it was measured",
        block(command) if command else "",
        _HOW,
        block("\n".join(_terms(records[0]))),
        _options(found),
        "Every number is computed from [records.jsonl](records.jsonl), a line each measurement.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _missing(found: Sequence[Line]) -> str:
    return "\n".join(f"* {prose(gap)}" for gap in gaps(found))


def _terms(record: Record) -> list[str]:
    told = {name: record.conditions.get(name) for name in _TERMS} | {
        name: record.machine.get(name) for name in _MACHINE
    }
    return [f"{name}: {value}" for name, value in told.items() if value not in (None, "", {})]


def _options(found: Sequence[Line]) -> str:
    """The options of mechanisms whose defaults were refused at some size."""
    used: dict[str, dict[str, list[str]]] = {}
    for line in found:
        if line.chosen:
            for tokens, resolved in line.resolved.items():
                sizes = used.setdefault(line.attention, {}).setdefault(resolved, [])
                if f"{tokens:,}" not in sizes:
                    sizes.append(f"{tokens:,}")
    return "\n".join(
        f"* {code(attention)} at {', '.join(sizes)} tokens: {code(resolved)}"
        for attention, options in used.items()
        for resolved, sizes in options.items()
    )
