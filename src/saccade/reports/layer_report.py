"""The report of a bench: tables and pictures of time and memory against tokens, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.record import Record, write_records, write_whole
from saccade.reports.fairness.finding import Finding
from saccade.reports.fairness.finding_markup import findings_markdown
from saccade.reports.layer_table import LEGEND, by_kind, columns
from saccade.reports.layers import UNWATCHED, Line, busy, gaps, lines, unwatched
from saccade.reports.markup import block, code, prose
from saccade.reports.scaling import scaling_pictures
from saccade.reports.tables import markdown_table

_TERMS = (
    *("batch_size", "width", "heads", "prefix", "dtype", "amp_dtype", "compile", "checkpointing"),
    *("device", "threads", "clock", "allocator"),
)
_MACHINE = ("processor", "cores", "accelerator", "system", "python", "torch", "saccade", "commit")
_LOAD = ("load_1min", "pressure_avg10")

_HOW = (
    "Each attention lives in a process of its own; they are warmed up for one kind of call and then take turns at it. "
    "Before any timing, output and gradients were held against the attention's reference: in layers and blocks at the "
    "number of tokens that their records call `gated_tokens` (where a quadratic reference would not fit into memory, "
    "that of the largest halved grid on which it does), in models at every shape that is timed. A core is given "
    "queries, keys and values; a whole layer has its projections around it, a block also norms, MLP and shortcuts; a "
    "model's step is forward, loss, backward and AdamW."
)
_COMPILED = (
    "What is compiled was compiled from nothing, for its one shape; that is told apart from the repeats. "
    "`graph_breaks` in the records counts the places where it goes back to Python."
)


def write_layer_report(
    folder: Path, records: Sequence[Record], findings: Sequence[Finding] = (), command: str = ""
) -> Path:
    """Writes records.jsonl, report.md and the pictures.

    Args:
        folder: is made where it is not there.
        records: of one bench.
        findings: of the doctor.
        command: the line that made them.

    Returns:
        The report.
    """
    found = lines(records)
    write_records(folder / "records.jsonl", records)
    pictures = [path.name for path in scaling_pictures(found, folder) if path.suffix == ".png"]
    write_whole(folder / "report.md", layer_report(records, found, findings, command, pictures))
    return folder / "report.md"


def layer_report(
    records: Sequence[Record],
    found: Sequence[Line],
    findings: Sequence[Finding] = (),
    command: str = "",
    pictures: Sequence[str] = (),
) -> str:
    """The records in words and tables."""
    compiled = any(one.conditions.get("compile") for one in records)
    parts = [
        "# What attention costs",
        "**Others used the machine meanwhile: these times are not to be trusted.**" if busy(records) else "",
        f"*{UNWATCHED.capitalize()}.*" if unwatched(records) else "",
        *findings_markdown(findings),
        *(f"## {title}\n\n{markdown_table(columns(own), '').strip()}" for title, own in by_kind(found).items()),
        *(f"![{name.partition('.')[0].replace('-', ' against ')}]({name})" for name in pictures),
        LEGEND,
        _missing(found),
        "## How it was measured",
        block(command) if command else "",
        _HOW,
        _COMPILED if compiled else "",
        block("\n".join(_terms(records))),
        _options(found),
        "Every number is computed from [records.jsonl](records.jsonl), a line each measurement.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _missing(found: Sequence[Line]) -> str:
    return "\n".join(f"* {prose(gap)}" for gap in gaps(found))


def _terms(records: Sequence[Record]) -> list[str]:
    """Every value of each term, and the machine; how busy it was at the start."""
    told: dict[str, list[str]] = {}
    for record in (one for one in records if "what" in one.conditions):
        for facts, names in ((record.conditions, _TERMS), (record.machine, (*_MACHINE, *_LOAD))):
            for name in names:
                value = facts.get(name)
                if value not in (None, "", {}, False) and str(value) not in told.setdefault(name, []):
                    told[name].append(str(value))
    return [f"{name}: {', '.join(told[name])}" for name in (*_TERMS, *_MACHINE, *_LOAD) if told.get(name)]


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
