"""A reproduction on paper: the original beside ours, the faults with what finds them; in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from saccade.originals import ORIGINALS
from saccade.originals.original import Part
from saccade.originals.reproduction import Found, Reproduction
from saccade.record import write_records, write_whole
from saccade.reports.fairness.finding import Finding
from saccade.reports.fairness.finding_markup import findings_markdown
from saccade.reports.markup import block, prose

NOT_FOUND = "NOT FOUND"

Line = Sequence[str]


def title(reproduction: Reproduction) -> str:
    """Id, name, and what it compared."""
    listed = ORIGINALS[reproduction.original.id]
    return f"{listed.id}, {listed.name}: {listed.title}"


def beside_table(reproduction: Reproduction) -> Table:
    """What the original said beside what is so here, for a rich console."""
    return _terminal(_beside(reproduction))


def faults_table(found: Iterable[Found]) -> Table:
    """Its faults beside what finds them, for a rich console."""
    return _terminal([_FAULTS[:2], *((one.fault.what, one.by or NOT_FOUND) for one in found)])


def write_reproduction(folder: Path, reproduction: Reproduction, command: str) -> Path:
    """Writes records.jsonl, command and report.md, and the original's claims in a folder of their own.

    Args:
        folder: is made where it is not there.
        reproduction: what there is, finished or not.
        command: the line that made it.

    Returns:
        The report.
    """
    write_records(folder / "records.jsonl", reproduction.records)
    write_records(folder / "claims" / "records.jsonl", reproduction.claims)
    write_whole(folder / "command", f"{command}\n")
    write_whole(folder / "report.md", report(reproduction, command))
    return folder / "report.md"


def report(reproduction: Reproduction, command: str) -> str:
    """All of it in words and tables."""
    original = reproduction.original
    parts = [
        f"# {prose(title(reproduction))}",
        prose(original.was),
        f"Its figures were taken on {prose(original.hardware)}.",
        block(command),
        "## The original beside ours" if reproduction.beside else "",
        _markdown(_beside(reproduction)) if reproduction.beside else "",
        _scaled(reproduction.scaled),
        "## What was wrong, and what finds it",
        _markdown([_FAULTS, *((one.fault.what, one.by or NOT_FOUND, one.seen) for one in reproduction.found)]),
        f"Its question, asked fairly:\n\n{block(original.instead)}",
        *_findings("## All that the doctor says of its claims", reproduction.findings),
        *_findings("## What the doctor says of what was measured here", reproduction.own),
        *(_printed(part) for part in reproduction.parts if part.lines),
        "Every number of ours is computed from [records.jsonl](records.jsonl), a line each measurement; what the "
        "original published is in [claims/records.jsonl](claims/records.jsonl).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_FAULTS = ("what was wrong", "found by", "in its words")


def _beside(reproduction: Reproduction) -> list[Line]:
    """The heading, then the rows."""
    heading = ("what", f"original, on {reproduction.original.hardware}", "ours, on this machine", "comparable?")
    return [heading, *((row.what, row.theirs, row.ours, row.comparable) for row in reproduction.beside)]


def _terminal(lines: Sequence[Line]) -> Table:
    heading, *rows = lines
    table = Table(*heading, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _markdown(lines: Sequence[Line]) -> str:
    heading, *rows = lines
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (heading, [":--"] * len(heading), *(map(prose, row) for row in rows))
    )


def _scaled(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    return "What is smaller or otherwise here:\n\n" + "\n".join(f"* {prose(sentence)}" for sentence in sentences)


def _findings(heading: str, findings: Sequence[Finding]) -> list[str]:
    _, *lists = findings_markdown(findings) or [""]
    return [heading, *lists] if lists else []


def _printed(part: Part) -> str:
    return f"## {prose(part.title)}\n\n{block(chr(10).join(part.lines).rstrip())}"
