"""Races saccade's attention cores against the packages that compute the same functions, on equal terms.

    python benchmarks/attention_cores.py

A race is one function at one number of tokens: ours and theirs on the same input and weights, forward and forward with
backward, each side in a process of its own, in turns, on one thread, by processor time. Before any timing both are
shown to give the same output and gradients. In fresh processes are measured: the peak of forward alone, what is kept
from forward to backward, and the peak of both. Run it on a quiet machine: about seven minutes, four with `--sides 56`.
Writes command, records.jsonl and report.md to results/<date>-<machine>-attention-cores/.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from core_rivals import CASES, MEMORIES, OURS, Case, Reach
from saccade.measurement.benching.layer import LayerSubject
from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.machine import machine_facts
from saccade.measurement.terms import Terms
from saccade.measurement.turns import Rival, take_turns
from saccade.record import Record, write_records, write_whole
from saccade.reports.numbers import counted, duration
from saccade.reports.ratios import cost_ratio
from vit_step import ROOT, default_folder, difference

ACTS = ("forward", "forward_backward")

# How far two codes for one function may differ in float32, relative to the largest value seen: one row of a thousand
# that is wrong shows more.
SAME_WITHIN = 1e-4


def main() -> int:
    asked = arguments().parse_args()
    # Where a worker finds the rivals.
    found = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found))
    folder = asked.output or default_folder("attention-cores")
    records: list[Record] = []
    for name in asked.cases:
        for side in asked.sides or CASES[name].sides:
            records += race(name, subject_of(CASES[name], side, asked), asked)
            write_records(folder / "records.jsonl", records)
    command = shlex.join(["python", *sys.argv])
    write_whole(folder / "command", command + "\n")
    write_whole(folder / "report.md", report(records, command))
    print(report(records, command))
    print(f"written: {folder}", file=sys.stderr)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sides", nargs="+", type=int, help="of the square grids, instead of each case's own")
    parser.add_argument("--batch-size", type=int, help="images, instead of each case's own number")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--mallopt", action="store_true", help="let both sides keep their freed memory (glibc)")
    parser.add_argument("--no-memory", action="store_true", help="only times")
    parser.add_argument("--output", type=Path)
    return parser


def subject_of(case: Case, side: int, asked: argparse.Namespace) -> LayerSubject:
    return LayerSubject(
        attention=case.at.get(side, case.attention),
        dim=case.dim,
        num_heads=case.heads,
        grid=(side, side),
        terms=Terms(
            batch_size=asked.batch_size or case.sides.get(side, 4),
            threads=asked.threads,
            clock=asked.clock,
            allocator="keep" if asked.mallopt else "default",
        ),
    )


def race(name: str, subject: LayerSubject, asked: argparse.Namespace) -> list[Record]:
    """One round of ours and theirs, then each side's memory."""
    sides = [OURS, *CASES[name].peers]
    print(f"{name}, {subject.tokens.count:,} tokens: {', '.join(sides)}", file=sys.stderr)
    machine = machine_facts()
    with ExitStack() as workers:
        rivals = []
        for side in sides:
            rivals.append(Rival(workers.enter_context(_worker("timed_core", name, side, subject))))
            rivals[-1].get_ready()
        check_functions(name, sides, rivals)
        crowd = take_turns(rivals, ACTS, asked.repeats)
    round_ = datetime.now(UTC).isoformat(timespec="microseconds")
    records = [
        _record(
            "seconds", name, side, subject, machine, {**rival.conditions, **crowd}, rival.values, rival.error, round_
        )
        for side, rival in zip(sides, rivals, strict=True)
    ]
    codes = {side: rival.conditions["code"] for side, rival in zip(sides, rivals, strict=True)}
    if not asked.no_memory:
        records += [_weighed(name, side, subject, machine, codes[side]) for side in sides]
    return records


def check_functions(name: str, sides: Sequence[str], rivals: Sequence[Rival]) -> None:
    """Ends the race where two codes that should compute one function do not; the difference goes into the records."""
    functions = [rival.conditions.pop("function", None) for rival in rivals]
    for side, rival in zip(sides, rivals, strict=True):
        if rival.error:
            raise SystemExit(f"{name}: {side} did not get ready: {rival.error}")
    ours, *theirs = functions
    for side, rival, function in zip(sides[1:], rivals[1:], theirs, strict=True):
        away = {part: difference(function[part], values) for part, values in ours.items()}
        # Written so that a NaN is wrong too.
        wrong = [part for part, distance in away.items() if not distance <= SAME_WITHIN]
        if wrong:
            raise SystemExit(
                f"{name}: {side} does not compute what {OURS} does: {wrong[0]} is {away[wrong[0]]:.2g} apart, "
                f"allowed {SAME_WITHIN:g}"
            )
        rival.conditions["function_difference"] = max(away.values())


def report(records: Sequence[Record], command: str) -> str:
    """The records in words and tables."""
    facts, conditions = records[0].machine, records[0].conditions
    busy = any(record.conditions.get("busy") for record in records)
    lines = [
        "# Attention cores: saccade against the packages that compute the same functions",
        "",
        f"`{command}`",
        "",
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, saccade at {facts['commit']}.",
        f"Threads: {conditions['threads']}. Clock: {conditions['clock']}. Allocator: {conditions['allocator']}. "
        "Both sides have the same input and weights, float32, no compilation, and a process each; they take turns. "
        "Output and gradients were shown to be the same before. Ratios above 1: saccade is faster or leaner; 95 % "
        "bootstrap interval over the turns; below 1.1 counts as equal.",
        "Memory is what a fresh process holds above inputs and weights, method "
        f"{next((r.values['method'] for r in records if 'method' in r.values), 'none')}. forward: the most during a "
        "pass without gradients. kept: between forward and backward, the output included; a model holds that of all "
        "its layers at once. both: the most during forward and backward, of which output and gradients are a part that "
        "nobody can avoid.",
        "nystrom-attention starts its pseudo-inverse from the largest sum of all heads and images, so every head of "
        "every image is alike here; it pads where landmarks do not divide the tokens, so there are 56 at 784. "
        "Orthoformer has no package: the loop is written here in the form of Motionformer's, with our start. The "
        "lambda layer has its projections; the others are cores between projections.",
        *(["", "**Others used the processors meanwhile: these times are not to be trusted.**"] if busy else []),
        "",
        "| function | tokens, images | code | forward | forward + backward | memory: forward | kept | both |",
        "|---|---|---|---|---|---|---|---|",
        *(_side(record, records) for record in records if record.kind == "seconds"),
        "",
        "| race | tokens | forward | forward + backward | memory: forward | kept | both | wanted |",
        "|---|---|---|---|---|---|---|---|",
        *_ratios(records),
    ]
    return "\n".join(lines) + "\n"


def _side(record: Record, records: Sequence[Record]) -> str:
    told = record.conditions
    times = [record.error or ""] * 2 if record.error else [_time(record, act) for act in ACTS]
    weights = ["–" if one is None else counted(one, "B") for one in _memories(record, records)]
    cells = [told["case"], f"{told['tokens']:,}, {told['batch_size']}", told["code"], *times, *weights]
    return f"| {' | '.join(cells)} |"


def _time(record: Record, act: str) -> str:
    return duration(median(record.values[f"{act}_seconds"]))


def _ratios(records: Sequence[Record]) -> Iterator[str]:
    timed = [record for record in records if record.kind == "seconds"]
    for ours in timed:
        if ours.conditions["rival"] != OURS:
            continue
        name = ours.conditions["case"]
        theirs = [one for one in timed if one.round == ours.round and one is not ours]
        for peer in theirs:
            times = [_ratio(peer, ours, act) for act in ACTS]
            both = zip(_memories(peer, records), _memories(ours, records), strict=True)
            memories = [f"{one / own:.2f}" if one and own else "–" for one, own in both]
            cells = [f"{peer.conditions['rival']} over {name}", f"{ours.conditions['tokens']:,}", *times, *memories]
            yield f"| {' | '.join(cells)} | {_wanted(CASES[name].reach)} |"


def _wanted(reach: Reach) -> str:
    which = {"forward_peak": "forward", "kept": "kept", "peak": "both"}[reach.of]
    return f"{reach.faster:g} ×" + (f", {reach.leaner:g} × leaner: {which}" if reach.leaner else "")


def _ratio(theirs: Record, ours: Record, act: str) -> str:
    if theirs.error or ours.error:
        return "failed"
    ratio = cost_ratio(theirs.values[f"{act}_seconds"], ours.values[f"{act}_seconds"])
    between = "" if ratio.low is None else f" ({ratio.low:.2f} .. {ratio.high:.2f})"
    return f"{ratio.value:.2f}{between}"


def _memories(timed: Record, records: Sequence[Record]) -> list[int | None]:
    """The bytes of the same side of the same race, as `MEMORIES`."""
    told = ("case", "rival", "tokens")
    for record in records:
        alike = all(record.conditions[name] == timed.conditions[name] for name in told)
        if record.kind == "memory" and record.error is None and alike:
            return [record.values[f"{memory}_bytes"] for memory in MEMORIES]
    return [None] * len(MEMORIES)


def _weighed(name: str, side: str, subject: LayerSubject, machine: dict[str, Any], code: str) -> Record:
    values: dict[str, Any] = {}
    error = None
    with _worker("CoreMemory", name, side, subject) as worker:
        try:
            worker.ready()
            values = worker.ask("measure")
        except WorkerFailed as failed:
            error = str(failed)
            print(f"  {side} could not be weighed: {error}", file=sys.stderr)
    conditions = {"process": worker.process, "code": code}
    return _record("memory", name, side, subject, machine, conditions, values, error, None)


def _record(
    kind: str,
    name: str,
    side: str,
    subject: LayerSubject,
    machine: dict[str, Any],
    conditions: dict[str, Any],
    values: dict[str, Any],
    error: str | None,
    round_: str | None,
) -> Record:
    what = "layer" if CASES[name].layout == "layer" else "core"
    return Record(
        kind=kind,
        **subject.about(what),
        values=values,
        conditions={
            **subject.conditions(what),
            "case": name,
            "rival": side,
            "layout": CASES[name].layout,
            **conditions,
        },
        machine=machine,
        round=round_,
        error=error,
    )


def _worker(serve: str, name: str, side: str, subject: LayerSubject) -> Worker:
    return Worker(
        f"core_rivals:{serve}",
        {"case": name, "rival": side, "subject": asdict(subject)},
        threads=subject.terms.threads,
        # A weighing process sets its own.
        allocator=subject.terms.allocator if serve == "timed_core" else "default",
    )


if __name__ == "__main__":
    sys.exit(main())
