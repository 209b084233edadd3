"""The doctor's rules on times and memory: what makes a ratio say something about another thing than the mechanism."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from saccade.measurement.machine import BUSY_PERCENT
from saccade.record import Record
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import (
    CLOCKS,
    CROWDING,
    MEASUREMENTS,
    PROCESSES,
    STEADINESS,
    STEPS,
    TIMES,
    WAITS,
    WARM_UPS,
    acts,
    steps_counted,
)
from saccade.reports.fairness.rule import Rule, Seen

LEAST_REPEATS = 5

# How an error begins that says what was known before anything ran, in `measurement.layers`.
_LEFT_OUT = ("refused", "too large", "no core", "no layer", "no block")


def not_measured(case: Case) -> Iterator[Seen]:
    """Measurements that failed; what was left out for a reason that was known beforehand is only said.

    Original 001: any exit of a trial, a typing error included, was taken for "does not fit".
    """
    errors = [
        (one, f"{one.attention} ({one.kind}: {one.error})")
        for one in case.records
        if one.error is not None and one.kind in ("seconds", "memory", "operations", "batch")
    ]
    failed = [words for one, words in errors if not str(one.error).startswith(_LEFT_OUT)]
    left_out = [words for one, words in errors if str(one.error).startswith(_LEFT_OUT)]
    if failed:
        yield Seen(f"these could not be measured: {listed(failed)}")
    if left_out:
        yield Seen(
            f"these make no sense or do not fit at their size, and were left out: {listed(left_out)}", "note", ""
        )


def no_warm_up(case: Case) -> Iterator[Seen]:
    """Times taken while caches were cold and kernels were being chosen.

    Original 000: times out of a training log, which has the first, cold steps in it for all that is told.
    """
    cold = [one for one in case.timed if any(one.values.get(f"warmup_{act}") in ([], 0, False) for act in acts(one))]
    if cold:
        yield Seen(f"these were timed without a warm-up: {_names(cold)}")


def not_steady(case: Case) -> Iterator[Seen]:
    """Times that were still falling when their warm-up ended.

    Original 002's sparse attention kept 15 measurements beside 365 of the dense one, and nothing says that it had
    settled.
    """
    shaky = [
        one
        for one in case.timed
        if any(one.values.get(f"{act.removesuffix('_seconds')}_steady") is False for act in acts(one))
    ]
    if shaky:
        yield Seen(f"these had not settled when their warm-up ended: {_names(shaky)}")


def shared_process(case: Case) -> Iterator[Seen]:
    """Several models measured in one process, where each pays for the others.

    Original 002: three models in one process, so each one's peak contained the weights of the others.
    """
    owners: dict[tuple[str, Any], dict[str, None]] = {}
    for one in case.records:
        if one.kind in ("seconds", "memory") and one.conditions.get("process") is not None:
            owners.setdefault((one.kind, one.conditions["process"]), {})[one.attention] = None
    for (kind, _), names in owners.items():
        if len(names) > 1:
            was = "timed" if kind == "seconds" else "weighed"
            yield Seen(f"these were {was} in one process, where each pays for the others: {listed(names)}")


def one_step(case: Case) -> Iterator[Seen]:
    """A peak of memory after fewer than two training steps.

    Original 001: one step a trial, so AdamW's moments, twice the parameters, were never allocated.
    """
    short = [one for one in [*case.weighed, *case.batches] if any(steps < 2 for steps in steps_counted(one))]
    if short:
        yield Seen(f"the peak of one step lacks what the second one holds: {_names(short)}")


def few_repeats(case: Case) -> Iterator[Seen]:
    """Times of which there are too few to tell a slow moment from a slow mechanism.

    Original 000: one number each, out of a log.
    """
    few = [one for one in case.timed if any(_repeats(one, act) < LEAST_REPEATS for act in acts(one))]
    if few:
        yield Seen(f"fewer than {LEAST_REPEATS} repeats of these were timed: {_names(few)}; one slow moment can decide")


def busy_machine(case: Case) -> Iterator[Seen]:
    """Times taken while something else ran: two threads are then slower than one.

    Original 004: seconds an epoch on a laptop, and nobody says what else it did.
    """
    crowded = [one for one in case.timed if _crowded(one)]
    if crowded:
        yield Seen(f"others used the processor while these were timed: {_names(crowded)}; ratios may be theirs")


def processor_time(case: Case) -> Iterator[Seen]:
    """Processor time, which is not what a user waits for.

    No original: it is the remedy where others use the machine, and must not be read as waiting time.
    """
    if any(one.conditions.get("clock") == "cpu" for one in case.timed):
        yield Seen("times are the process's own processor time, not what a user waits for")


def clock_too_early(case: Case) -> Iterator[Seen]:
    """A clock that was read before the device had finished what it was given.

    Original 002: "average inference time" read the clock before it synchronised: it is the time of asking.
    """
    early = [one for one in case.timed if one.conditions.get("synchronised") is False]
    if early:
        yield Seen(
            f"the clock was read before the device was done: {_names(early)}; what was timed is how long asking takes"
        )


COST_RULES = (
    Rule("not measured", not_measured, ("warning", "note"), (MEASUREMENTS,)),
    Rule("no warm-up", no_warm_up, ("error",), (WARM_UPS,), "warm up until times are steady"),
    Rule("not steady", not_steady, ("warning",), (STEADINESS,), "a quieter machine, or more repeats"),
    Rule("shared process", shared_process, ("error",), (PROCESSES,), "a fresh process for each"),
    Rule("one step", one_step, ("error",), (STEPS,), "two optimiser steps at the least"),
    Rule("few repeats", few_repeats, ("warning",), (TIMES,), f"--repeats {LEAST_REPEATS} or more"),
    Rule(
        "busy machine",
        busy_machine,
        ("warning",),
        (CROWDING,),
        "time again when the machine is idle, or --threads 1 --clock cpu",
    ),
    Rule("processor time", processor_time, ("note",), (CLOCKS,)),
    Rule(
        "clock read too early",
        clock_too_early,
        ("error",),
        (WAITS,),
        "wait for the device (torch.accelerator.synchronize) before each reading of the clock",
    ),
)


def _names(records: Iterable[Record]) -> str:
    return listed(one.attention for one in records)


def _repeats(record: Record, act: str) -> int:
    """How many numbers there are, or were where somebody tells their median alone."""
    told = record.values.get(f"{act.removesuffix('_seconds')}_repeats")
    return len(record.values[act]) if told is None else int(told)


def _crowded(record: Record) -> bool:
    said = record.conditions.get("busy")
    return bool(said) if said is not None else (record.machine.get("pressure_avg10") or 0.0) > BUSY_PERCENT
