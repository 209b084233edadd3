"""Seconds: rivals in processes of their own, checked, warmed up, and timed in turns; every repeat is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.machine import BUSY_PERCENT, machine_facts, stalled_seconds
from saccade.measurement.subject import Subject
from saccade.record import Record

What = Literal["forward", "step", "latency", "inference"]

WHAT: tuple[What, ...] = ("forward", "step", "latency", "inference")
"""Forward pass of a training batch, training step, inference of one image, and of `inference_batch` images."""


def time_rivals(
    subjects: Sequence[Subject],
    *,
    repeats: int = 5,
    what: Sequence[What] = WHAT,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[Record]:
    """Times the subjects against each other: one round, whose ratios mean something.

    Each lives in a fresh process. Before any timing its attention is held against its reference at this shape. Each is
    then warmed up until steady, and they take turns, the order moving on by one each time. All of them are in memory
    together.

    Args:
        subjects: the rivals.
        repeats: turns of each.
        what: of `WHAT`.
        patience_seconds: how long one answer may take.

    Returns:
        A record a subject, in their order. Values: for each of `what`, `<what>_seconds` by the subject's clock and
        `<what>_cpu_seconds`, a number a repeat; the same with `warmup_` in front; `<what>_calls` averaged in each
        number, and `<what>_steady`. Whoever fails has an `error` and no values, and the others go on.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: must be at least 1")
    machine = machine_facts()
    with ExitStack() as workers:
        rivals = [_Rival(subject, workers.enter_context(_worker(subject, patience_seconds))) for subject in subjects]
        for rival in rivals:
            rival.get_ready()
        for one in what:
            for rival in rivals:
                rival.warm_up(one)
        stalled, start = stalled_seconds(), time.perf_counter()
        for repeat in range(repeats):
            for one in what:
                for rival in rotated(rivals, repeat):
                    rival.repeat(one)
        crowd = crowding(stalled, stalled_seconds(), time.perf_counter() - start)
    name = datetime.now(UTC).isoformat(timespec="microseconds")
    return [rival.record(name, machine, crowd) for rival in rivals]


def rotated(rivals: Sequence[Any], turn: int) -> list[Any]:
    """The rivals with another one first each turn, so that none is always behind the same one."""
    first = turn % max(1, len(rivals))
    return [*rivals[first:], *rivals[:first]]


def crowding(stalled_before: float | None, stalled_after: float | None, seconds: float) -> dict[str, Any]:
    """How much of the time some process waited for a processor, and whether that is too much to trust the times."""
    if stalled_before is None or stalled_after is None:
        return {"pressure_percent": None, "busy": None}
    percent = 100 * (stalled_after - stalled_before) / seconds
    return {"pressure_percent": round(percent, 2), "busy": percent > BUSY_PERCENT}


class _Rival:
    """A worker from the outside, and what it has answered so far."""

    def __init__(self, subject: Subject, worker: Worker) -> None:
        self.subject = subject
        self.worker = worker
        self.values: dict[str, Any] = {}
        self.conditions: dict[str, Any] = {}
        self.error: str | None = None

    def get_ready(self) -> None:
        def ask() -> None:
            self.worker.ready()
            self.conditions = self.worker.ask("facts")

        self._unless_failed(ask)

    def warm_up(self, what: str) -> None:
        def ask() -> None:
            warm = self.worker.ask("warm_up", what=what)
            self.values |= {f"{what}_calls": warm["calls"], f"{what}_steady": warm["steady"]}
            for lap in warm["laps"]:
                self._keep(f"warmup_{what}", lap)

        self._unless_failed(ask)

    def repeat(self, what: str) -> None:
        self._unless_failed(lambda: self._keep(what, self.worker.ask("repeat", what=what)))

    def record(self, name: str, machine: dict[str, Any], crowd: dict[str, Any]) -> Record:
        return Record(
            kind="seconds",
            **self.subject.about(),
            values={} if self.error else self.values,
            conditions={
                **self.subject.conditions(),
                "inference_batch": self.subject.inference_batch,
                **self.conditions,
                **crowd,
            },
            machine=machine,
            round=name,
            error=self.error,
        )

    def _keep(self, name: str, lap: dict[str, float]) -> None:
        for unit, value in lap.items():
            self.values.setdefault(f"{name}_{unit}", []).append(value)

    def _unless_failed(self, ask: Callable[[], None]) -> None:
        if self.error is None:
            try:
                ask()
            except WorkerFailed as failed:
                self.error = str(failed)
                self.worker.close()


def _worker(subject: Subject, patience_seconds: float) -> Worker:
    return Worker(
        "saccade.measurement.timed:Timed",
        {"subject": asdict(subject)},
        threads=subject.threads,
        allocator=subject.allocator,
        patience_seconds=patience_seconds,
    )
