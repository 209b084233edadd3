"""How a comparison decides: paired differences to softmax, their intervals, and verdicts adjusted by Holm's procedure.

Every mechanism is trained with the same seeds and judged on the same test images, so a difference has two sources of
chance: the seeds (initial weights, order, augmentation) and the images that happen to be in the test set.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from saccade.reports.student import probability_below, quantile

Verdict = Literal["worse", "better", "not worse", "undecided"]

# Fewer say too little about the spread between seeds: no interval is shown, nothing is decided.
LEAST_SEEDS = 3

# One-sided, so that a verdict never contradicts the two-sided 95 % interval that is shown beside it.
ALPHA = 0.025

# Where so many would not do, their number is no advice.
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Paired:
    """Differences to softmax, in fractions of the test set; leading axes are comparisons of their own.

    Attributes:
        difference: of each of r mechanisms, mean over seeds.
        residual: MSE of the mechanism x seed table, both its margins taken out.
        image_variance: what the choice of test images adds to the variance of each difference.
        seeds: S.
    """

    difference: Float[np.ndarray, "*k r"]
    residual: Float[np.ndarray, "*k 1"]
    image_variance: Float[np.ndarray, "*k r"]
    seeds: int

    def standard_error(self, seeds: int | float) -> Float[np.ndarray, "*k r"]:
        """The root of 2 MSE / S + (b + c) / n² - (b - c)² / n³, for any number of seeds S."""
        return np.sqrt(2 * self.residual / seeds + self.image_variance)

    def degrees(self, seeds: int) -> int:
        """Degrees of freedom of Student's t: (M - 1)(S - 1), those of the MSE.

        The images' share of the error is known far better, but counting that in (Welch and Satterthwaite) called 4 % of
        truly equal pairs different where 2.5 % was promised, at 2 mechanisms and 3 seeds. The smaller number keeps the
        promise in every case tried.
        """
        return self.difference.shape[-1] * (seeds - 1)


@dataclass(frozen=True)
class Difference:
    """One mechanism's accuracy minus softmax's, in points.

    Attributes:
        points: mean over seeds.
        low_points: lower end of the unadjusted 95 % interval; None below `LEAST_SEEDS`.
        high_points: upper end.
        verdict: None below `LEAST_SEEDS`.
        seeds_needed: where undecided, how many seeds would decide if difference and spread stay as they are, at most
            `MOST_SEEDS` + 1; infinite where the test set is too small for any number of them.
    """

    points: float
    low_points: float | None = None
    high_points: float | None = None
    verdict: Verdict | None = None
    seeds_needed: int | float | None = None

    @property
    def remedy(self) -> str:
        """What would decide an undecided difference; empty where nothing is undecided."""
        if self.seeds_needed is None:
            return ""
        if math.isinf(self.seeds_needed):
            return "no number of seeds decides: the test set is too small"
        if self.seeds_needed > MOST_SEEDS:
            return f"more than {MOST_SEEDS:,} seeds would be needed"
        return f"about {self.seeds_needed:.0f} seeds would be needed"


def paired(correct: Bool[np.ndarray, "*k m s n"]) -> Paired:
    """Differences to the first of m mechanisms, from which of n test images each got right at each of s seeds."""
    m, s, n = correct.shape[-3:]
    accuracy = correct.mean(-1)
    residuals = accuracy - accuracy.mean(-1, keepdims=True) - accuracy.mean(-2, keepdims=True)
    residuals += accuracy.mean((-2, -1), keepdims=True)
    softmax, others = correct[..., :1, :, :], correct[..., 1:, :, :]
    b = (others & ~softmax).sum(-1).mean(-1)
    c = (softmax & ~others).sum(-1).mean(-1)
    return Paired(
        difference=accuracy[..., 1:, :].mean(-1) - accuracy[..., :1, :].mean(-1),
        residual=(residuals**2).sum((-2, -1), keepdims=True)[..., 0] / max((m - 1) * (s - 1), 1),
        image_variance=(b + c) / n**2 - (b - c) ** 2 / n**3,
        seeds=s,
    )


def holm(p_values: Float[np.ndarray, "*k r"]) -> Float[np.ndarray, "*k r"]:
    """Adjusts r p-values of one question so that the chance of any false answer stays below the level (Holm 1979)."""
    order = np.argsort(p_values, axis=-1)
    steps = np.arange(p_values.shape[-1], 0, -1)
    rising = np.maximum.accumulate(np.take_along_axis(p_values, order, -1) * steps, axis=-1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, np.minimum(rising, 1.0), -1)
    return adjusted


def verdicts(table: Paired, margin_points: float, seeds: int | float | None = None) -> np.ndarray:
    """The verdict on each mechanism, as strings of shape (*k, r).

    Each question is a family of one-sided tests at `ALPHA`, adjusted over the mechanisms; the first that is answered
    with yes names the verdict: worse (below -margin), better (above 0), not worse (above -margin).

    Args:
        table: what was found.
        margin_points: how many points are too few to matter, fixed before anything was seen.
        seeds: decide as if there had been so many, infinity included; None means those of the table.
    """
    seeds = table.seeds if seeds is None else seeds
    margin = margin_points / 100
    questions = {
        "worse": 1 - _p_above(table, -margin, seeds),
        "better": _p_above(table, 0.0, seeds),
        "not worse": _p_above(table, -margin, seeds),
    }
    return np.select([holm(p) <= ALPHA for p in questions.values()], list(questions), "undecided")


def seeds_needed(table: Paired, margin_points: float) -> list[int | float]:
    """For each mechanism the least number of seeds that would decide if difference and spread stay as they are."""

    def decided(seeds: int | float, index: int) -> bool:
        return bool(verdicts(table, margin_points, seeds)[index] != "undecided")

    def least(index: int) -> int | float:
        if not decided(math.inf, index):
            return math.inf
        counts = range(LEAST_SEEDS, MOST_SEEDS + 1)
        return LEAST_SEEDS + bisect.bisect_left(counts, True, key=lambda seeds: decided(seeds, index))

    return [least(index) for index in range(table.difference.shape[-1])]


def differences(correct: Bool[np.ndarray, "m s n"], margin_points: float) -> list[Difference]:
    """Each mechanism's difference to the first, which is softmax; without interval and verdict below three seeds."""
    table = paired(correct)
    points = [float(value) for value in 100 * table.difference]
    if table.seeds < LEAST_SEEDS or not points:
        return [Difference(value) for value in points]
    reach = 100 * quantile(1 - ALPHA, table.degrees(table.seeds)) * table.standard_error(table.seeds)
    found: Sequence[Verdict] = verdicts(table, margin_points).tolist()
    needed = seeds_needed(table, margin_points)
    return [
        Difference(value, value - half, value + half, verdict, count if verdict == "undecided" else None)
        for value, half, verdict, count in zip(points, reach.tolist(), found, needed, strict=True)
    ]


def _p_above(table: Paired, bound: float, seeds: int | float) -> Float[np.ndarray, "*k r"]:
    """One-sided p-values against the hypothesis that a difference is `bound` or less."""
    # Two models that answer alike on every image and seed leave no error to divide by.
    t = (table.difference - bound) / np.maximum(table.standard_error(seeds), 1e-12)
    if math.isinf(seeds):
        return 1 - np.vectorize(statistics.NormalDist().cdf, otypes=[float])(t)
    return 1 - probability_below(t, table.degrees(int(seeds)))
