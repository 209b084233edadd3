"""Races saccade's masked autoencoder against facebookresearch/mae's and transformers': a step's time and its memory.

    python benchmarks/mae_step.py

Every rival lives in a process of its own; they take turns on one thread, by processor time. Before any timing all of
them are shown to compute the same loss and gradients from the same weights. In bf16 a peer races by the fastest of
bf16 weights and autocast. facebookresearch/mae races as published and with the faster optimiser that saccade has, and
goals count against the fastest of these. Memory is the true high-water mark of fresh processes at two batch sizes, and
through these two points goes the line that names the largest batch of a budget. Run it on a quiet machine: about ten
minutes.
Writes command, records.jsonl and report.md to results/<date>-<machine>-mae-step/.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.machine import machine_facts
from saccade.measurement.subject import Subject
from saccade.measurement.turns import Rival, take_turns
from saccade.record import Record, write_records, write_whole
from saccade.reports.ratios import cost_ratio
from vit_step import ROOT, SAME_WITHIN, default_folder, difference

OURS = "saccade"
AUTOCAST = ", autocast"
PEERS = {
    "fp32": ("fb as published", "fb", "fb, explicit", "transformers"),
    "bf16": (
        f"fb as published{AUTOCAST}",
        "fb, explicit",
        f"fb{AUTOCAST}",
        f"fb, explicit{AUTOCAST}",
        f"transformers{AUTOCAST}",
    ),
}
# Whose memory is measured: the peer that keeps least of those that are fastest.
WEIGHED = {"fp32": "fb", "bf16": "fb"}


@dataclass(frozen=True)
class Shape:
    """A model, the images of a timed step, and the two batch sizes that are weighed."""

    model: str
    batch_size: int
    weighed: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)


SHAPES = {
    "tiny": Shape("mae_tiny_patch16_224", 4, (8, 24)),
    "narrow": Shape(
        "mae_tiny_patch16_224",
        8,
        # In bf16 smaller batches keep attention weights, so that their line would not be that of the largest.
        (64, 96),
        {"decoder_embed_dim": 128, "decoder_depth": 8, "decoder_num_heads": 8},
    ),
    "base": Shape("mae_base_patch16_224", 2, (4, 12)),
}


def main() -> int:
    asked = arguments().parse_args()
    # Where a worker finds the rivals, and the import of timm that works beside any build of torch.
    found = [str(ROOT / "benchmarks"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found))
    folder = asked.output or default_folder("mae-step")
    records: list[Record] = []
    for dtype in asked.dtypes:
        for name in asked.shapes:
            records += race(subject_of(SHAPES[name], dtype, asked), asked.repeats)
            write_records(folder / "records.jsonl", records)
        for name in asked.weigh:
            for checkpointing in (False, True):
                records += weigh(SHAPES[name], dtype, checkpointing, asked)
                write_records(folder / "records.jsonl", records)
    command = shlex.join(["python", *sys.argv])
    write_whole(folder / "command", command + "\n")
    text = report(records, command, asked.budget_mib * 2**20)
    write_whole(folder / "report.md", text)
    print(text)
    print(f"written: {folder}", file=sys.stderr)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["tiny", "base"], help="that are timed")
    parser.add_argument("--weigh", nargs="*", choices=SHAPES, default=["narrow"], help="whose memory is measured")
    parser.add_argument("--dtypes", nargs="+", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--batch-size", type=int, help="images of a timed step, instead of each shape's own number")
    parser.add_argument("--budget-mib", type=int, default=4096, help="for the largest batch")
    parser.add_argument("--confirm", action="store_true", help="weigh each largest batch, too")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each rival")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--mallopt", action="store_true", help="let every timed rival keep its freed memory (glibc)")
    parser.add_argument("--output", type=Path)
    return parser


def subject_of(shape: Shape, dtype: str, asked: argparse.Namespace) -> Subject:
    return Subject(
        model=shape.model,
        options=shape.options,
        batch_size=asked.batch_size or shape.batch_size,
        dtype=dtype,
        threads=asked.threads,
        clock=asked.clock,
        allocator="keep" if asked.mallopt else "default",
    )


def on_its_terms(subject: Subject, code: str) -> Subject:
    """A rival under autocast has float32 weights."""
    return replace(subject, dtype="fp32", amp_dtype="bf16") if code.endswith(AUTOCAST) else subject


def race(subject: Subject, repeats: int) -> list[Record]:
    """One round of all rivals on one model and dtype."""
    codes = (OURS, *PEERS[subject.dtype])
    print(f"{subject.model}, {subject.dtype}: {len(codes)} rivals", file=sys.stderr)
    machine = machine_facts()
    subjects = {code: on_its_terms(subject, code) for code in codes}
    with ExitStack() as workers:
        rivals = {}
        for code, one in subjects.items():
            worker = _worker("timed_rival", one, {"code": code, "subject": asdict(one)})
            rivals[code] = Rival(workers.enter_context(worker))
            rivals[code].get_ready()
        check_functions(rivals)
        crowd = take_turns(list(rivals.values()), ("step",), repeats)
    name = datetime.now(UTC).isoformat(timespec="microseconds")
    return [
        Record(
            kind="seconds",
            **subjects[code].about(),
            values=rival.values,
            conditions={
                **subjects[code].conditions(),
                "rival": code,
                "race": subject.dtype,
                **rival.conditions,
                **crowd,
            },
            machine=machine,
            round=name,
            error=rival.error,
        )
        for code, rival in rivals.items()
    ]


def check_functions(rivals: dict[str, Rival]) -> None:
    """Ends the race where two codes do not compute one function; the difference goes into the records."""
    functions = {code: rival.conditions.pop("function", None) for code, rival in rivals.items()}
    for rival in rivals.values():
        if rival.error:
            raise SystemExit(f"a rival did not get ready: {rival.error}")
    for code, rival in rivals.items():
        away = difference(functions[code], functions[OURS])
        if away > SAME_WITHIN:
            raise SystemExit(f"{code} does not compute what {OURS} does: {away:.2g} apart, allowed {SAME_WITHIN:g}")
        rival.conditions["function_difference"] = away


def weigh(shape: Shape, dtype: str, checkpointing: bool, asked: argparse.Namespace) -> list[Record]:
    """Ours and the peer at two batch sizes, and, where asked, at the largest batch that these two foretell."""
    records = []
    for code in (OURS, WEIGHED[dtype]):
        base = replace(subject_of(shape, dtype, asked), allocator="default")
        # What a process holds whatever the batch would hide the peak of a small one that keeps little.
        sizes = [size * (2 if checkpointing else 1) for size in shape.weighed]
        mine = [_weighed(code, replace(base, batch_size=size), checkpointing) for size in sizes]
        if asked.confirm and not any(record.error for record in mine):
            largest = largest_batch(mine, asked.budget_mib * 2**20)
            mine.append(_weighed(code, replace(base, batch_size=largest), checkpointing))
        records += mine
    return records


def _weighed(code: str, subject: Subject, checkpointing: bool) -> Record:
    print(f"{subject.model}, {subject.dtype}, {code}: peak of {subject.batch_size} images", file=sys.stderr)
    values, error = {}, None
    told = {"code": code, "subject": asdict(subject), "checkpointing": checkpointing}
    with _worker("MaePeak", subject, told) as worker:
        try:
            worker.ready()
            values = worker.ask("measure")
        except WorkerFailed as failed:
            error = str(failed)
    conditions = {**subject.conditions(), "checkpointing": checkpointing, "rival": code, "process": worker.process}
    about = subject.about()
    return Record(kind="memory", **about, values=values, conditions=conditions, machine=machine_facts(), error=error)


def line_through(records: Sequence[Record]) -> tuple[float, float]:
    """Bytes whatever the batch, and bytes an image, by the first two records."""
    (few, least), (many, most) = (
        (record.conditions["batch_size"], record.values["peak_bytes"]) for record in records[:2]
    )
    slope = (most - least) / (many - few)
    return least - slope * few, slope


def largest_batch(records: Sequence[Record], budget_bytes: int) -> int:
    """Images that fit into the budget by the line through the first two records."""
    constant, slope = line_through(records)
    return max(1, int((budget_bytes - constant) / slope))


def report(records: Sequence[Record], command: str, budget_bytes: int) -> str:
    """The records in words and tables."""
    facts, conditions = records[0].machine, records[0].conditions
    busy = any(record.conditions.get("busy") for record in records)
    lines = [
        "# A masked autoencoder's training step: saccade, facebookresearch/mae, transformers",
        "",
        f"`{command}`",
        "",
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, saccade at {facts['commit']}.",
        f"Threads: {conditions['threads']}. Clock: {conditions['clock']}. Allocator: {conditions['allocator']}. "
        "75 % of the patches are hidden. Every rival has the same weights, images, hidden patches and batch, and its "
        "own process; they take turns. All but the one as published have the same optimiser (fused AdamW, float32 "
        "master weights under bf16).",
        '"fb" is facebookresearch/mae out of timm\'s parts; "explicit" has the attention of timm 0.3.2, which it asks '
        'for: product, softmax, product. "As published" steps like its main_pretrain.py: torch\'s AdamW as it is by '
        "default, timm's fused attention. A goal counts against the fastest of all these. Ratios above 1: saccade is "
        "faster, or smaller; 95 % bootstrap interval over the turns; below 1.1 counts as equal.",
        *(["**Others used the processors meanwhile: these times are not to be trusted.**"] if busy else []),
        *_times([record for record in records if record.kind == "seconds"]),
        *_memory([record for record in records if record.kind == "memory"], budget_bytes),
    ]
    return "\n".join(lines) + "\n"


def _times(records: Sequence[Record]) -> Iterator[str]:
    for name in dict.fromkeys(record.round for record in records):
        there = {record.conditions["rival"]: record for record in records if record.round == name}
        ours = there[OURS]
        yield f"\n## {_model(ours)}, {ours.conditions['race']}, batch {ours.conditions['batch_size']}\n"
        yield "| rival | step, ms | over saccade's |"
        yield "|---|---|---|"
        for code, record in there.items():
            if record.error or ours.error:
                yield f"| {code} | {record.error or ''} | |"
                continue
            seconds = record.values["step_seconds"]
            ratio = cost_ratio(seconds, ours.values["step_seconds"])
            between = "" if ratio.low is None else f" ({ratio.low:.2f} .. {ratio.high:.2f})"
            whose = record.conditions["code"]
            yield f"| {code} ({whose}) | {1000 * median(seconds):.0f} | {ratio.value:.2f}{between} |"
        raced = {code: record for code, record in there.items() if code.startswith("fb") and not record.error}
        if raced and not ours.error:
            fastest = min(raced, key=lambda code: median(raced[code].values["step_seconds"]))
            ratio = cost_ratio(raced[fastest].values["step_seconds"], ours.values["step_seconds"])
            yield f"\nThe goal counts against {fastest}: {ratio.value:.2f}."


def _memory(records: Sequence[Record], budget_bytes: int) -> Iterator[str]:
    if not records:
        return
    yield f"\n## Memory of a step, and the largest batch in {budget_bytes / 2**20:,.0f} MiB\n"
    yield "| model | dtype | checkpointing | rival | MiB an image | whatever the batch | largest batch | MiB at it |"
    yield "|---|---|---|---|---|---|---|---|"
    kinds: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        at = record.conditions
        key = (_model(record), at["dtype"], "on" if at["checkpointing"] else "off", at["rival"])
        kinds.setdefault(key, []).append(record)
    for key, found in kinds.items():
        failed = [record.error for record in found if record.error]
        if failed:
            yield f"| {' | '.join(key)} | {failed[0]} | | | |"
            continue
        constant, slope = line_through(found)
        largest = largest_batch(found, budget_bytes)
        seen = f"{found[2].values['peak_bytes'] / 2**20:,.0f}" if len(found) > 2 else ""
        yield f"| {' | '.join(key)} | {slope / 2**20:.2f} | {constant / 2**20:.0f} | {largest} | {seen} |"


def _model(record: Record) -> str:
    width = record.model_options.get("decoder_embed_dim")
    return record.model if width is None else f"{record.model} with a decoder of {width}"


def _worker(serve: str, subject: Subject, told: dict[str, Any]) -> Worker:
    return Worker(f"mae_rivals:{serve}", told, threads=subject.threads, allocator=subject.allocator)


if __name__ == "__main__":
    sys.exit(main())
