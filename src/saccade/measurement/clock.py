"""The clock: how long some calls take, read only when the device is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# A warm-up ends when its last laps were not faster, by more than this share, than the fastest before them. (That they
# agree would ask for a quiet machine, not for a warm one.)
FASTER = 0.05
LAST_LAPS = 2
MOST_LAPS = 12
MOST_SECONDS = 20.0

# A repeat is as many calls as take about so long: a single short one would measure the clock and the caches.
REPEAT_SECONDS = 0.1


@dataclass(frozen=True)
class Lap:
    """Time of one call, averaged over the calls of a repeat.

    Attributes:
        seconds: by the clock that was asked for; the wall clock is the device's own on CUDA.
        cpu_seconds: processor time of all threads.
    """

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class WarmUp:
    """What went before the repeats that count.

    Attributes:
        laps: a single call each at first, then as many as a repeat has.
        steady: whether they had stopped getting faster, or the warm-up ended because it took too long.
        calls: calls of a repeat from now on.
    """

    laps: tuple[Lap, ...]
    steady: bool
    calls: int


def lap(act: Callable[[], None], calls: int, device: torch.device, clock: str = "wall") -> Lap:
    """Calls `act` so many times and waits for the device before each reading of the clock."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
    wait_for(device)
    cpu, wall = time.process_time(), time.perf_counter()
    if events:
        events[0].record()
    for _ in range(calls):
        act()
    if events:
        events[1].record()
    wait_for(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if events:
        wall = events[0].elapsed_time(events[1]) / 1000
    return Lap(round((cpu if clock == "cpu" else wall) / calls, 9), round(cpu / calls, 9))


def warm_up(act: Callable[[], None], device: torch.device, clock: str = "wall") -> WarmUp:
    """Calls `act` until it gets no faster, or it has been long enough."""
    start = time.perf_counter()
    # The first call loads and allocates what later ones find; the second says how long one takes.
    laps = [lap(act, 1, device, clock) for _ in range(2)]
    calls = max(1, round(REPEAT_SECONDS / max(laps[-1].seconds, 1e-6)))
    while not _steady(laps) and len(laps) < MOST_LAPS:
        if len(laps) > LAST_LAPS + 1 and time.perf_counter() - start > MOST_SECONDS:
            break
        laps.append(lap(act, calls, device, clock))
    return WarmUp(tuple(laps), _steady(laps), calls)


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _steady(laps: list[Lap]) -> bool:
    before, last = laps[:-LAST_LAPS], laps[-LAST_LAPS:]
    if not before:
        return False
    return min(each.seconds for each in last) >= (1 - FASTER) * min(each.seconds for each in before)
