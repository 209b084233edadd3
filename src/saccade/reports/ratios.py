"""Ratios of costs, paired by repeat, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_REPEATS = 3
DRAWS = 10_000

# Below this a difference in cost is noise of the machine and its build, whatever the interval says.
EQUAL = 1.1


@dataclass(frozen=True)
class Ratio:
    """A cost divided by softmax's, with its 95 % interval.

    Attributes:
        value: below 1 is cheaper.
        low: lower end; None with fewer than `LEAST_REPEATS` repeats.
        high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def cheaper(self) -> bool:
        """Cheaper by more than chance and by more than `EQUAL`."""
        return self.value < 1 / EQUAL and (self.high is None or self.high < 1)

    @property
    def dearer(self) -> bool:
        """Dearer by more than chance and by more than `EQUAL`."""
        return self.value > EQUAL and (self.low is None or self.low > 1)


def cost_ratio(ours: Sequence[float], softmax: Sequence[float], seed: int = 0) -> Ratio:
    """The median over repeats of our cost divided by softmax's in the same repeat.

    Rivals take turns within a repeat, so what slows the machine down for a while cancels. The interval draws repeats
    with replacement (percentile bootstrap, seeded).

    Raises:
        ValueError: not the same number of repeats, none, or a cost that is not above 0.
    """
    if len(ours) != len(softmax) or not len(ours):
        raise ValueError(
            f"{len(ours)} and {len(softmax)} repeats: a ratio needs the same number on both sides, 1 or more"
        )
    if min(*ours, *softmax) <= 0:
        raise ValueError("a cost of 0 or less cannot be divided")
    logs = np.log(ours) - np.log(softmax)
    value = float(np.exp(np.median(logs)))
    if len(logs) < LEAST_REPEATS:
        return Ratio(value)
    drawn = np.random.default_rng(seed).integers(len(logs), size=(DRAWS, len(logs)))
    low, high = np.exp(np.percentile(np.median(logs[drawn], axis=1), [2.5, 97.5]))
    return Ratio(value, float(low), float(high))
