"""Turns: rivals in processes of their own are warmed up, then timed one after the other, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.machine import BUSY_PERCENT, stalled_seconds

T = TypeVar("T")

# Reasons after which there is no process to be asked again.
_GONE = ("killed", "timed out")

# Stands among the things that a rival can fail at.
READY = "ready"


class Rival:
    """A worker that is timed, and what it has answered so far.

    What lives in the worker offers `facts()`, a table of conditions; `warm_up(what)`, a `clock.WarmUp` as a table, with
    what `compiling.first_call` tells where it was compiled; and `repeat(what)`, a `clock.Lap` as a table.

    Attributes:
        values: of each thing timed, `<what>_seconds` and `<what>_cpu_seconds`, a number a repeat; the same with
            `warmup_` in front; `<what>_calls` averaged in each number; `<what>_steady`; where it was compiled,
            `warmup_<what>_compile_seconds` and `<what>_graph_breaks`.
        conditions: name of the process, and what the worker says of itself.
        failed: why, by each thing that has failed, or `READY`; it is not asked for that again, and for nothing more
            once its process is gone. What was measured before is kept.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.values: dict[str, Any] = {}
        self.conditions: dict[str, Any] = {"process": worker.process}
        self.failed: dict[str, str] = {}
        self._gone = False

    @property
    def error(self) -> str | None:
        """Its first failure; None where it has not failed."""
        return next(iter(self.failed.values()), None)

    def get_ready(self) -> None:
        """Waits until the worker is there."""
        self._unless_failed(READY, self._meet)
        if self.failed:
            self._leave()

    def warm_up(self, what: str) -> None:
        """Lets it warm up."""
        self._unless_failed(what, lambda: self._keep_warm_up(what))

    def repeat(self, what: str) -> None:
        """Lets it have its turn."""
        self._unless_failed(what, lambda: self._keep(what, self.worker.ask("repeat", what=what)))

    def _meet(self) -> None:
        self.worker.ready()
        self.conditions |= self.worker.ask("facts")

    def _keep_warm_up(self, what: str) -> None:
        warm = self.worker.ask("warm_up", what=what)
        if "does_not_compile" in warm:
            self.failed[what] = f"does not compile: {warm['does_not_compile']}"
            return
        if "compile_seconds" in warm:
            self.values[f"warmup_{what}_compile_seconds"] = warm["compile_seconds"]
            self.values[f"{what}_graph_breaks"] = warm["graph_breaks"]
        self.values |= {f"{what}_calls": warm["calls"], f"{what}_steady": warm["steady"]}
        for lap in warm["laps"]:
            self._keep(f"warmup_{what}", lap)

    def _keep(self, name: str, lap: dict[str, float]) -> None:
        for unit, value in lap.items():
            self.values.setdefault(f"{name}_{unit}", []).append(value)

    def _unless_failed(self, what: str, ask: Callable[[], None]) -> None:
        if self._gone or what in self.failed:
            return
        try:
            ask()
        except WorkerFailed as failed:
            self.failed[what] = str(failed)
            if failed.reason in _GONE:
                self._leave()

    def _leave(self) -> None:
        self._gone = True
        self.worker.close()


def take_turns(
    rivals: Sequence[Rival], what: Sequence[str], repeats: int, shown: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """One thing after the other: all rivals are warmed up for it, then take turns at it, another first each time.

    So whoever fails at one, as where there is memory for a forward pass but not for a backward one, has been timed at
    those before.

    Args:
        rivals: who takes turns.
        what: things that each can do.
        repeats: turns of each at each.
        shown: is told how many warm-ups and turns are done, of len(rivals) * len(what) * (1 + repeats).

    Returns:
        Conditions of the round: `pressure_percent`, the share of its time in which some process waited for a processor,
        and whether that made it `busy`.
    """
    done, stalled, seconds = 0, [], 0.0
    for one in what:
        for rival in rivals:
            rival.warm_up(one)
            shown(done := done + 1)
        before, start = stalled_seconds(), time.perf_counter()
        for repeat in range(repeats):
            for rival in rotated(rivals, repeat):
                rival.repeat(one)
                shown(done := done + 1)
        after = stalled_seconds()
        stalled.append(None if before is None or after is None else after - before)
        seconds += time.perf_counter() - start
    return crowding(stalled, seconds)


def rotated(rivals: Sequence[T], turn: int) -> list[T]:
    """The rivals with another one first each turn, so that none is always behind the same one."""
    first = turn % max(1, len(rivals))
    return [*rivals[first:], *rivals[:first]]


def crowding(stalled: Sequence[float | None], seconds: float) -> dict[str, Any]:
    """Whether too many wanted the processors for times to be trusted; None where Linux does not say.

    Args:
        stalled: seconds in which some process waited for a processor, of each part of the time.
        seconds: all of that time.
    """
    known = [one for one in stalled if one is not None]
    if len(known) < len(stalled) or not seconds:
        return {"pressure_percent": None, "busy": None}
    percent = 100 * sum(known) / seconds
    return {"pressure_percent": round(percent, 2), "busy": percent > BUSY_PERCENT}
