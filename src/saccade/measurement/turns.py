"""Turns: rivals in processes of their own are warmed up, then timed one after the other, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.machine import BUSY_PERCENT, stalled_seconds

T = TypeVar("T")


class Rival:
    """A worker that is timed, and what it has answered so far.

    What lives in the worker offers `facts()`, a table of conditions; `warm_up(what)`, a `clock.WarmUp` as a table; and
    `repeat(what)`, a `clock.Lap` as a table.

    Attributes:
        values: of each thing timed, `<what>_seconds` and `<what>_cpu_seconds`, a number a repeat; the same with
            `warmup_` in front; `<what>_calls` averaged in each number; `<what>_steady`.
        conditions: name of the process, and what the worker says of itself.
        error: why it has failed; from then on it is not asked, and there are no values.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.values: dict[str, Any] = {}
        self.conditions: dict[str, Any] = {"process": worker.process}
        self.error: str | None = None

    def get_ready(self) -> None:
        """Waits until the worker is there."""
        self._unless_failed(self._meet)

    def warm_up(self, what: str) -> None:
        """Lets it warm up."""
        self._unless_failed(lambda: self._keep_warm_up(what))

    def repeat(self, what: str) -> None:
        """Lets it have its turn."""
        self._unless_failed(lambda: self._keep(what, self.worker.ask("repeat", what=what)))

    def _meet(self) -> None:
        self.worker.ready()
        self.conditions |= self.worker.ask("facts")

    def _keep_warm_up(self, what: str) -> None:
        warm = self.worker.ask("warm_up", what=what)
        self.values |= {f"{what}_calls": warm["calls"], f"{what}_steady": warm["steady"]}
        for lap in warm["laps"]:
            self._keep(f"warmup_{what}", lap)

    def _keep(self, name: str, lap: dict[str, float]) -> None:
        for unit, value in lap.items():
            self.values.setdefault(f"{name}_{unit}", []).append(value)

    def _unless_failed(self, ask: Callable[[], None]) -> None:
        if self.error is not None:
            return
        try:
            ask()
        except WorkerFailed as failed:
            self.error = str(failed)
            self.values = {}
            self.worker.close()


def take_turns(
    rivals: Sequence[Rival], what: Sequence[str], repeats: int, shown: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Warms up each thing of each rival, then times each so many times, the order moving on by one each time.

    Args:
        rivals: who takes turns.
        what: things that each can do.
        repeats: turns of each at each.
        shown: is told how many warm-ups and turns are done, of len(rivals) * len(what) * (1 + repeats).

    Returns:
        Conditions of the round: `pressure_percent`, the share of its time in which some process waited for a processor,
        and whether that made it `busy`.
    """
    done = 0
    for one in what:
        for rival in rivals:
            rival.warm_up(one)
            shown(done := done + 1)
    stalled, start = stalled_seconds(), time.perf_counter()
    for repeat in range(repeats):
        for one in what:
            for rival in rotated(rivals, repeat):
                rival.repeat(one)
                shown(done := done + 1)
    return crowding(stalled, stalled_seconds(), time.perf_counter() - start)


def rotated(rivals: Sequence[T], turn: int) -> list[T]:
    """The rivals with another one first each turn, so that none is always behind the same one."""
    first = turn % max(1, len(rivals))
    return [*rivals[first:], *rivals[:first]]


def crowding(stalled_before: float | None, stalled_after: float | None, seconds: float) -> dict[str, Any]:
    """Whether too many wanted the processors for times to be trusted; None where Linux does not say."""
    if stalled_before is None or stalled_after is None:
        return {"pressure_percent": None, "busy": None}
    percent = 100 * (stalled_after - stalled_before) / seconds
    return {"pressure_percent": round(percent, 2), "busy": percent > BUSY_PERCENT}
