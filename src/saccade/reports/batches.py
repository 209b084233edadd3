"""Batches: the largest batch of each attention in a table, with what it needs and how far that is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saccade.measurement.largest_batch.batch import KINDS
from saccade.record import Record
from saccade.reports.columns import Cell, Column
from saccade.reports.function import baseline_of, function_of
from saccade.reports.numbers import NONE, counted, times


def ok_line(batch_size: int, fits: bool | None, reason: str) -> str:
    """A try as original 001 printed it, but with the reason where that printed NG."""
    return f"batch_size={batch_size} => {'OK' if fits else reason}"


def columns(records: Sequence[Record]) -> list[Column]:
    """The records as a table: for each kind the batch, and below it how many times softmax's; then the memory."""
    softmax = baseline_of(records)
    baseline = next((one for one in records if function_of(one.attention_resolved) == softmax), None)
    parts = [Column(("attention", ""), "attention", tuple((one.attention, "") for one in records), True)]
    for kind in kinds(records):
        batches = tuple(_batch(one, kind, baseline) for one in records)
        parts.append(Column((f"{kind} batch", "× softmax"), kind, batches))
        parts.append(Column(("memory", "an image"), kind, tuple(_bytes(one, kind) for one in records)))
    return [*parts, Column(("known", "from"), "known", tuple(map(_known, records)), True)]


def kinds(records: Sequence[Record]) -> list[str]:
    """What batches were found for."""
    return [kind for kind, start in KINDS.items() if any(f"{start}largest_batch" in one.values for one in records)]


def legend(records: Sequence[Record]) -> str:
    """What the numbers mean."""
    first = next((one for one in records if one.values), None)
    if first is None:
        return ""
    total, margin = first.values["budget_bytes"], first.values["margin"]
    amounts = {kind: counted(first.values[f"{KINDS[kind]}baseline_bytes"], "B") for kind in kinds([first])}
    alike = len(set(amounts.values())) == 1
    taken = " and ".join(dict.fromkeys(one if alike else f"{one} ({kind})" for kind, one in amounts.items()))
    kept = f", of which {margin:.3g} is kept free" if margin else ""
    said = (
        f"The largest batch in {counted(total, 'B')}{kept}; × softmax = divided by softmax's. Memory is what that "
        f"batch needs, with the {taken} that are taken before there is any model, by softmax's process; below it what "
        "an image adds."
    )
    if gpu := first.conditions["for"]:
        return f"{said} Predicted for {gpu}, {first.values['verified']}: keep a margin."
    if first.conditions["device"] == "cpu":
        return (
            f"{said} A process that keeps what it frees may need a fifth more: with MALLOC_MMAP_THRESHOLD_=65536 in "
            "the environment glibc gives it back, as it does here."
        )
    return said


def gaps(records: Sequence[Record]) -> list[str]:
    """Why batches are missing, a sentence each."""
    return [f"{one.attention}: {one.error}" for one in records if one.error] + list(_too_large(records))


def tries(records: Sequence[Record]) -> list[str]:
    """What was tried, in the lines of original 001."""
    lines: list[str] = []
    for record in records:
        for kind, start in KINDS.items():
            if tried := record.values.get(f"{start}tried"):
                lines.append(f"====== {record.attention}, {kind} ======")
                lines += [ok_line(one["batch_size"], one["fits"], one["reason"]) for one in tried]
                found = record.values[f"{start}largest_batch"] if tried[-1]["fits"] is not None else "not found"
                lines += [f"=> batch_size = {found}", ""]
    return lines[:-1]


def _too_large(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        for kind, start in KINDS.items():
            if record.values.get(f"{start}largest_batch") == 0:
                needed = record.values[f"{start}next_bytes"]
                needs = f"one needs {counted(needed, 'B')} and there" if needed else "there"
                allowed = counted(record.values["budget_bytes"] * (1 - record.values["margin"]), "B")
                yield f"{record.attention}: no image fits in {kind}: {needs} are {allowed}"


def _batch(record: Record, kind: str, baseline: Record | None) -> Cell:
    own = record.values.get(f"{KINDS[kind]}largest_batch")
    if own is None:
        return (record.error or NONE).partition(":")[0], ""
    theirs = baseline and baseline.values.get(f"{KINDS[kind]}largest_batch")
    return f"{own:,}", times(own / theirs) if theirs else NONE


def _bytes(record: Record, kind: str) -> Cell:
    at, image = (record.values.get(f"{KINDS[kind]}{name}") for name in ("predicted_bytes_at", "bytes_per_image"))
    return counted(at, "B") if at else NONE, counted(image, "B") if image else ""


def _known(record: Record) -> Cell:
    """Whether it was predicted or tried, and what was predicted where that was something else."""
    values = record.values
    starts = [start for start in KINDS.values() if f"{start}largest_batch" in values]
    confirmed = [values[f"{start}confirmed"] for start in starts]
    if not starts:
        return NONE, ""
    if all(one is None for one in confirmed):
        within = max(values[f"{start}within"] or 0.0 for start in starts)
        return "prediction", f"within {100 * within:.2g} %" if values["verified"] == "here" else values["verified"]
    off = {
        start: values[f"{start}predicted_largest_batch"]
        for start in starts
        if values[f"{start}predicted_largest_batch"] != values[f"{start}largest_batch"]
    }
    if not all(confirmed):
        tried = "not confirmed"
    elif any(values.get(f"{start}next_fits") == "at times" for start in starts):
        tried = "tries; one more at times"
    else:
        tried = "tries"
    return tried, ", ".join(f"{one:,} predicted" for one in off.values())
