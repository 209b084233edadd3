"""The report of a search for the largest batch: the table, what was tried, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.record import Record, write_records, write_whole
from saccade.reports.batches import columns, gaps, legend, tries
from saccade.reports.markup import block, code, prose
from saccade.reports.tables import markdown_table

_TERMS = ("dtype", "amp_dtype", "checkpointing", "device", "threads", "memory_asked", "for")
_MACHINE = ("processor", "cores", "memory_bytes", "accelerator", "system", "python", "torch", "saccade", "commit")

_HOW = (
    "A batch is predicted by tensors without values: weights, gradients, AdamW's moments and activations of two "
    "training steps, or of a forward pass in eval mode, are counted as they come and go. The model is not run; on a "
    "CPU what a process keeps without it is weighed with the smallest model and one image."
)
_TRIED = (
    "Then it was tried, each time in a fresh process, whose peak was measured, by two training steps or forward "
    "passes: the largest batch fits, one image more does not, or only now and then; both were tried twice."
)


def write_batch_report(folder: Path, records: Sequence[Record], command: str = "") -> Path:
    """Writes records.jsonl and report.md.

    Args:
        folder: is made where it is not there.
        records: of one search.
        command: the line that made them.

    Returns:
        The report.
    """
    write_records(folder / "records.jsonl", records)
    write_whole(folder / "report.md", batch_report(records, command))
    return folder / "report.md"


def batch_report(records: Sequence[Record], command: str = "") -> str:
    """The records in words and a table."""
    tried = tries(records)
    options = {code(one.attention): code(one.attention_resolved) for one in records if one.values}
    parts = [
        f"# The largest batch of {code(records[0].model)}",
        markdown_table(columns(records), "").strip(),
        legend(records),
        "\n".join(f"* {prose(gap)}" for gap in gaps(records)),
        "## How it was found",
        block(command) if command else "",
        f"{_HOW} {_TRIED if tried else ''}".strip(),
        block("\n".join(_terms(records[0]))),
        "\n".join(f"* {name}: {resolved}" for name, resolved in options.items() if name != resolved),
        f"## What was tried\n\n{block(chr(10).join(tried))}" if tried else "",
        "Every number is computed from [records.jsonl](records.jsonl), a line for each attention.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _terms(record: Record) -> list[str]:
    told: dict[str, object] = {"model_options": dict(record.model_options)}
    told |= {name: record.conditions.get(name) for name in _TERMS}
    told |= {name: record.machine.get(name) for name in _MACHINE}
    return [f"{name}: {value}" for name, value in told.items() if value not in (None, "", {}, False)]
