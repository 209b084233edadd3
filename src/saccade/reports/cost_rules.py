"""The doctor's rules on times and memory: what makes a ratio say something about another thing than the mechanism."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from saccade.record import Record
from saccade.reports.finding import Finding, listed
from saccade.reports.rows import Row
from saccade.reports.terms import differing, machine, terms, versions

BUSY_PERCENT = 5.0
LEAST_REPEATS = 5


def failed(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Any exit of a trial, a typing error included, taken for "does not fit"."""
    errors = [
        f"{one.attention} ({one.kind}: {one.error})"
        for one in records
        if one.error is not None and one.kind in ("seconds", "memory", "operations")
    ]
    if errors:
        yield Finding("not measured", "warning", f"these could not be measured: {listed(errors)}")


def unequal_terms(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """One side's best against the other's default: five mechanisms with reversible blocks, the baseline without."""
    groups: dict[tuple[str, str | None], list[Record]] = {}
    for one in records:
        if one.kind in ("seconds", "memory", "accuracy"):
            groups.setdefault((one.kind, one.round), []).append(one)
    for (kind, _), group in groups.items():
        for name, values in differing(terms(one) for one in group).items():
            yield Finding(
                "unequal terms",
                "error",
                f"{name} differs between records of {kind}: {listed(values)}; equal terms are what makes a ratio mean "
                "something",
                "measure all on the same terms",
            )


def unlike_machines(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Costs of two machines, or accuracies of two versions, in one table."""
    costs = [one for one in records if one.kind in ("seconds", "memory")]
    for name, values in differing(machine(one) for one in costs).items():
        yield Finding(
            "unlike machines",
            "error",
            f"costs were measured with {name} {listed(values)}",
            "measure all on one machine",
        )
    # A rate is a choice and no result: it may have been tuned by an earlier version, as long as all were by that one.
    tuning = [one for one in records if one.kind == "tuning"]
    mixed = {
        **differing(versions(one) for one in tuning),
        **differing(versions(one) for one in records if one.kind != "tuning"),
        **differing(machine(one) for one in records if one.kind == "accuracy"),
    }
    for name, values in mixed.items():
        yield Finding(
            "unlike versions",
            "warning",
            f"the records were made with {name} {listed(values)}",
            "make them anew in another folder, if results seem odd",
        )


def no_warm_up(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A clock that ran while caches were cold and kernels were being chosen."""
    cold = [one.attention for one in _timed(records) if any(not one.values.get(f"warmup_{key}") for key in _acts(one))]
    if cold:
        yield Finding(
            "no warm-up",
            "error",
            f"these were timed without a warm-up: {listed(cold)}",
            "warm up until times are steady",
        )
    shaky = [
        one.attention
        for one in _timed(records)
        if any(one.values.get(f"{key.removesuffix('_seconds')}_steady") is False for key in _acts(one))
    ]
    if shaky:
        yield Finding(
            "not steady",
            "warning",
            f"these had not settled when their warm-up ended: {listed(shaky)}",
            "a quieter machine, or more repeats",
        )


def shared_process(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Three models in one process: each one's peak contained the weights of the others."""
    owners: dict[tuple[str, Any], dict[str, None]] = {}
    for one in records:
        if one.kind in ("seconds", "memory") and one.conditions.get("process") is not None:
            owners.setdefault((one.kind, one.conditions["process"]), {})[one.attention] = None
    for names in owners.values():
        if len(names) > 1:
            yield Finding(
                "shared process",
                "error",
                f"these were measured in one process, where each pays for the others: {listed(names)}",
                "a fresh process for each",
            )


def one_step(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """One training step a trial: AdamW's moments, twice the parameters, were never allocated."""
    short = [one.attention for one in records if one.kind == "memory" and one.values.get("optimiser_steps") in (0, 1)]
    if short:
        yield Finding(
            "one step",
            "error",
            f"the peak of one step lacks what the second one holds: {listed(short)}",
            "two optimiser steps at the least",
        )
    few = [one.attention for one in _timed(records) if any(len(one.values[key]) < LEAST_REPEATS for key in _acts(one))]
    if few:
        yield Finding(
            "few repeats",
            "warning",
            f"fewer than {LEAST_REPEATS} repeats of these were timed: {listed(few)}; one slow moment can decide",
            f"--repeats {LEAST_REPEATS} or more",
        )


def busy(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Times taken while something else ran: two threads are then slower than one."""
    crowded = [one.attention for one in _timed(records) if _crowded(one)]
    if crowded:
        yield Finding(
            "busy machine",
            "warning",
            f"others used the processor while these were timed: {listed(crowded)}; ratios may be theirs",
            "time again when the machine is idle, or --threads 1 --clock cpu",
        )


def processor_time(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Processor time read as waiting time."""
    if any(one.conditions.get("clock") == "cpu" for one in _timed(records)):
        yield Finding("processor time", "note", "times are the process's own processor time, not what a user waits for")


def no_baseline(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Times of different days set against each other: a mechanism added later needs softmax beside it."""
    lonely = [row.attention for row in rows if row.costs.seconds and not row.costs.ratios]
    if lonely:
        yield Finding(
            "round without softmax",
            "warning",
            f"no softmax was timed together with these, on the same terms: {listed(lonely)}; they get no ratio",
            "time them and softmax in one round",
        )


COST_RULES = (
    failed,
    unequal_terms,
    unlike_machines,
    no_warm_up,
    shared_process,
    one_step,
    busy,
    processor_time,
    no_baseline,
)


def _timed(records: Sequence[Record]) -> list[Record]:
    return [one for one in records if one.kind == "seconds" and one.error is None]


def _acts(record: Record) -> list[str]:
    """The names of the wall times that count."""
    return [
        key
        for key in record.values
        if key.endswith("_seconds") and not key.startswith("warmup_") and not key.endswith("_cpu_seconds")
    ]


def _crowded(record: Record) -> bool:
    said = record.conditions.get("busy")
    return bool(said) if said is not None else (record.machine.get("pressure_avg10") or 0.0) > BUSY_PERCENT
