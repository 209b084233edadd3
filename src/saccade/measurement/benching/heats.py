"""Heats: rivals that would not fit into memory together are timed in several rounds, the baseline in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Weight(Generic[T]):
    """One rival, and what it takes.

    Attributes:
        rival: whoever it is.
        resting_bytes: between its turns.
        peak_bytes: more than that, in its turn; None where that is not known.
        baseline: is in each heat.
    """

    rival: T
    resting_bytes: int
    peak_bytes: int | None = None
    baseline: bool = False


def heats(weights: Sequence[Weight[T]], free_bytes: int | None) -> list[list[T]]:
    """Splits rivals so that those of a heat rest in memory together while one of them is in its turn.

    Args:
        weights: the rivals, in their order.
        free_bytes: for all of them; None where that is not known.

    Returns:
        The heats; one heat where all fit, or nothing is known. Who fits with none but the baseline is alone with it.
    """
    baseline = [one for one in weights if one.baseline]
    split: list[list[Weight[T]]] = [list(baseline)]
    for one in (one for one in weights if not one.baseline):
        wanted = [*split[-1], one]
        if free_bytes is not None and len(split[-1]) > len(baseline) and _together(wanted) > free_bytes:
            split.append([*baseline, one])
        else:
            split[-1] = wanted
    order = {id(one): place for place, one in enumerate(weights)}
    return [[one.rival for one in sorted(heat, key=lambda one: order[id(one)])] for heat in split]


def _together(heat: Sequence[Weight[T]]) -> int:
    return sum(one.resting_bytes for one in heat) + max(one.peak_bytes or 0 for one in heat)
