"""Races saccade's ViT against timm's and vit-pytorch's: a training step and inference, one function, equal terms.

    python benchmarks/vit_step.py

Every rival lives in a process of its own; they take turns on one thread, by processor time. Before any timing all of
them are shown to compute the same class scores and gradients from the same weights. Run it on a quiet machine: about
ten minutes. Writes command, records.jsonl and report.md to results/<date>-<machine>-vit-step/.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from saccade.measurement.isolate import Worker
from saccade.measurement.machine import machine_facts
from saccade.measurement.subject import Subject
from saccade.measurement.turns import Rival, take_turns
from saccade.record import Record, write_records, write_whole
from saccade.reports.ratios import cost_ratio

ROOT = Path(__file__).resolve().parent.parent

RIVALS = ("saccade", "timm", "timm, explicit", "saccade, no qkv bias", "vit-pytorch")
NO_QKV_BIAS = RIVALS[3:]
WHAT = ("step", "inference")

# Ours against theirs, and theirs may be the faster of several.
RACES = (("saccade", ("timm", "timm, explicit")), ("saccade, no qkv bias", ("vit-pytorch",)))

# How far two codes for one function may differ in float32, relative to the largest value.
SAME_WITHIN = 1e-4


@dataclass(frozen=True)
class Shape:
    """A model and its batch sizes."""

    model: str
    batch_size: int


SHAPES = {
    "cifar": Shape("vit_micro_patch2_32", 32),
    "cifar-128": Shape("vit_micro_patch2_32", 128),
    "vit-s": Shape("vit_small_patch16_224", 4),
}


def main() -> int:
    asked = arguments().parse_args()
    # Where a worker finds the rivals, and the import of timm that works beside any build of torch.
    found = [str(ROOT / "benchmarks"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found))
    folder = asked.output or default_folder("vit-step")
    records: list[Record] = []
    for shape in asked.shapes:
        for dtype in asked.dtypes:
            records += race(subject_of(SHAPES[shape], dtype, asked), asked.repeats)
            write_records(folder / "records.jsonl", records)
    command = shlex.join(["python", *sys.argv])
    write_whole(folder / "command", command + "\n")
    write_whole(folder / "report.md", report(records, command))
    print(report(records, command))
    print(f"written: {folder}", file=sys.stderr)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["cifar", "vit-s"])
    parser.add_argument(
        "--dtypes", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="of the weights"
    )
    parser.add_argument("--batch-size", type=int, help="images, instead of each shape's own number")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each rival")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--mallopt", action="store_true", help="let every rival keep its freed memory (glibc)")
    parser.add_argument("--output", type=Path)
    return parser


def default_folder(question: str) -> Path:
    facts = machine_facts()
    machine = re.sub(r"[^a-z0-9]+", "-", f"{facts['processor']} {facts['cores']} cores".lower()).strip("-")
    return ROOT / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{machine}-{question}"


def subject_of(shape: Shape, dtype: str, asked: argparse.Namespace) -> Subject:
    batch_size = asked.batch_size or shape.batch_size
    return Subject(
        model=shape.model,
        batch_size=batch_size,
        inference_batch=batch_size,
        dtype=dtype,
        threads=asked.threads,
        clock=asked.clock,
        allocator="keep" if asked.mallopt else "default",
    )


def race(subject: Subject, repeats: int) -> list[Record]:
    """One round of all rivals on one model and dtype."""
    print(f"{subject.model}, {subject.dtype}: {len(RIVALS)} rivals", file=sys.stderr)
    machine = machine_facts()
    subjects = [
        replace(subject, attention="softmax(qkv_bias=False)" if code in NO_QKV_BIAS else "softmax") for code in RIVALS
    ]
    with ExitStack() as workers:
        rivals = [Rival(workers.enter_context(_worker(code, one))) for code, one in zip(RIVALS, subjects, strict=True)]
        for rival in rivals:
            rival.get_ready()
        check_functions(rivals)
        crowd = take_turns(rivals, WHAT, repeats)
    name = datetime.now(UTC).isoformat(timespec="microseconds")
    return [
        Record(
            kind="seconds",
            **one.about(),
            values=rival.values,
            conditions={
                **one.conditions(),
                "inference_batch": one.inference_batch,
                "rival": code,
                **rival.conditions,
                **crowd,
            },
            machine=machine,
            round=name,
            error=rival.error,
        )
        for code, one, rival in zip(RIVALS, subjects, rivals, strict=True)
    ]


def check_functions(rivals: Sequence[Rival]) -> None:
    """Ends the race where two codes that should compute one function do not; the difference goes into the records."""
    functions = dict(zip(RIVALS, [rival.conditions.pop("function", None) for rival in rivals], strict=True))
    for rival in rivals:
        if rival.error:
            raise SystemExit(f"a rival did not get ready: {rival.error}")
    for ours, theirs in RACES:
        for code in theirs:
            away = difference(functions[code], functions[ours])
            if away > SAME_WITHIN:
                raise SystemExit(f"{code} does not compute what {ours} does: {away:.2g} apart, allowed {SAME_WITHIN:g}")
            rivals[RIVALS.index(code)].conditions["function_difference"] = away


def difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference, over the largest value."""
    if len(one) != len(other):
        return float("inf")
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / max(map(abs, other))


def report(records: Sequence[Record], command: str) -> str:
    """The records in words and tables."""
    facts = records[0].machine
    conditions = records[0].conditions
    busy = any(record.conditions["busy"] for record in records)
    lines = [
        "# A ViT's training step and inference: saccade, timm, vit-pytorch",
        "",
        f"`{command}`",
        "",
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, saccade at {facts['commit']}.",
        f"Threads: {conditions['threads']}. Clock: {conditions['clock']}. Allocator: {conditions['allocator']}. "
        "Every rival has the same weights, dtype, batch, optimiser (fused AdamW, float32 master weights under bf16), "
        "no checkpointing and no compilation, and its own process; they take turns.",
        "vit-pytorch has no biases on q, k and v, so it races saccade without them, and its two extra norms around the "
        "patch embedding are taken out. timm races by its faster attention. Ratios above 1: saccade is faster; 95 % "
        "bootstrap interval over the turns; below 1.1 counts as equal.",
        *(["**Others used the processors meanwhile: these times are not to be trusted.**"] if busy else []),
        *_tables(records),
    ]
    return "\n".join(lines) + "\n"


def _tables(records: Sequence[Record]) -> Iterator[str]:
    for name in dict.fromkeys(record.round for record in records):
        rivals = {record.conditions["rival"]: record for record in records if record.round == name}
        first = rivals["saccade"]
        dtype, batch = first.conditions["dtype"], first.conditions["batch_size"]
        yield f"\n## {first.model}, {dtype}, batch {batch}\n"
        yield "| rival | kernel | step, ms | inference, ms |"
        yield "|---|---|---|---|"
        for code, record in rivals.items():
            yield f"| {code} ({record.conditions['code']}) | {record.conditions['kernel_run']} | {_times(record)} |"
        yield "\n| race | step | inference |"
        yield "|---|---|---|"
        for ours, theirs in RACES:
            cells = [_ratio([rivals[code] for code in theirs], rivals[ours], what) for what in WHAT]
            yield f"| {' / '.join(theirs)} over {ours} | {' | '.join(cells)} |"


def _times(record: Record) -> str:
    if record.error:
        return f"{record.error} | "
    return " | ".join(f"{1000 * median(record.values[f'{what}_seconds']):.0f}" for what in WHAT)


def _ratio(theirs: Sequence[Record], ours: Record, what: str) -> str:
    """The time of the fastest of theirs, over ours."""
    there = [record.values[f"{what}_seconds"] for record in theirs if not record.error]
    if ours.error or not there:
        return "failed"
    ratio = cost_ratio(min(there, key=median), ours.values[f"{what}_seconds"])
    between = "" if ratio.low is None else f" ({ratio.low:.2f} .. {ratio.high:.2f})"
    return f"{ratio.value:.2f}{between}"


def _worker(code: str, subject: Subject) -> Worker:
    return Worker(
        "rivals:timed_rival",
        {"code": code, "subject": asdict(subject)},
        threads=subject.threads,
        allocator=subject.allocator,
    )


if __name__ == "__main__":
    sys.exit(main())
