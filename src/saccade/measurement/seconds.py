"""Seconds: subjects timed against each other in one round, each in a process of its own and checked beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime

from saccade.measurement.isolate import PATIENCE_SECONDS, Worker
from saccade.measurement.machine import machine_facts
from saccade.measurement.subject import Subject
from saccade.measurement.turns import Rival, take_turns
from saccade.record import Record

WHAT = ("forward", "step", "latency", "inference")
"""Forward pass of a training batch, training step, inference of one image, and of `inference_batch` images."""


def time_rivals(
    subjects: Sequence[Subject],
    *,
    repeats: int = 5,
    what: Sequence[str] = WHAT,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[Record]:
    """Times subjects against each other: one round, within which ratios mean something.

    Each lives in a fresh process, and all are in memory together. Before any timing, output and gradients of its
    attention are held against the reference at this shape.

    Args:
        subjects: the rivals.
        repeats: turns of each.
        what: of `WHAT`.
        patience_seconds: how long one answer may take.

    Returns:
        A record a subject, in their order, with the values that `Rival` lists. Whoever fails has an `error`, and in the
        conditions what has `failed`; its other values are kept, and the others go on.

    Raises:
        ValueError: no repeats, or nothing that is known to time.
    """
    if repeats < 1 or not set(what) <= set(WHAT):
        raise ValueError(
            f"repeats={repeats}, what={list(what)}: at least 1 repeat is needed, of any of {', '.join(WHAT)}"
        )
    machine = machine_facts()
    with ExitStack() as workers:
        rivals = [Rival(workers.enter_context(_worker(subject, patience_seconds))) for subject in subjects]
        for rival in rivals:
            rival.get_ready()
        crowd = take_turns(rivals, what, repeats)
    name = datetime.now(UTC).isoformat(timespec="microseconds")
    return [
        Record(
            kind="seconds",
            **subject.about(),
            values=rival.values,
            conditions={
                **subject.conditions(),
                "inference_batch": subject.inference_batch,
                **rival.conditions,
                **crowd,
                **({"failed": rival.failed} if rival.failed else {}),
            },
            machine=machine,
            round=name,
            error=rival.error,
        )
        for subject, rival in zip(subjects, rivals, strict=True)
    ]


def _worker(subject: Subject, patience_seconds: float) -> Worker:
    return Worker(
        "saccade.measurement.timed:timed_subject",
        {"subject": asdict(subject)},
        threads=subject.threads,
        allocator=subject.allocator,
        patience_seconds=patience_seconds,
    )
