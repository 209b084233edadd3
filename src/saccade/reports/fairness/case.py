"""The case: records that are examined together, or a plan while there are none, and what is read from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from saccade.record import Record
from saccade.reports.fairness.plan import PlanFacts
from saccade.reports.fairness.planned import plans_of
from saccade.reports.function import baseline_of, function_of
from saccade.reports.trained import Trained, chance_percent, trained_by_function

# A run has learned something where it has come this part of the way from guessing to all right.
LEAST_LEARNED = 0.1


@dataclass(frozen=True)
class Case:
    """What rules are asked about.

    Attributes:
        records: of one comparison at one scale, rivals under their own names (`contenders.apart`).
        told: the plan, where nothing has run yet; None to read what was planned from the records.
        scales: sizes of the model at which all of it was repeated.
    """

    records: Sequence[Record] = ()
    told: PlanFacts | None = None
    scales: int = 1

    @cached_property
    def plans(self) -> tuple[PlanFacts, ...]:
        """What was planned, for each model and size that is among the records."""
        return plans_of(self.records, self.scales) if self.told is None else (self.told,)

    @cached_property
    def baseline(self) -> str | None:
        """The function of softmax; None where no record is of it."""
        return baseline_of(self.records)

    @cached_property
    def trained(self) -> dict[str, Trained]:
        """The runs that were judged, by function."""
        return trained_by_function(self.records)

    @cached_property
    def runs(self) -> list[Record]:
        """The training runs that finished, each judged on the test part."""
        return [one for one in self.records if one.kind == "accuracy" and one.error is None]

    @cached_property
    def tuning(self) -> list[Record]:
        """The training runs that were to find a rate."""
        return [one for one in self.records if one.kind == "tuning"]

    @cached_property
    def timed(self) -> list[Record]:
        """The timings that succeeded."""
        return [one for one in self.records if one.kind == "seconds" and one.error is None]

    @cached_property
    def weighed(self) -> list[Record]:
        """The peaks of memory that could be measured."""
        return [one for one in self.records if one.kind == "memory" and one.error is None]

    @cached_property
    def batches(self) -> list[Record]:
        """The largest batches that were looked for."""
        return [one for one in self.records if one.kind == "batch"]

    @cached_property
    def rounds(self) -> dict[str | None, list[Record]]:
        """The timings of each round."""
        rounds: dict[str | None, list[Record]] = {}
        for one in self.timed:
            rounds.setdefault(one.round, []).append(one)
        return rounds

    def is_softmax(self, record: Record) -> bool:
        """Whether it is of the baseline, by whatever kernel."""
        return function_of(record.attention_resolved) == self.baseline

    def name(self, function: str) -> str:
        """The function as its user wrote it; plain softmax rather than by one of its kernels."""
        written = [one.attention for one in self.records if function_of(one.attention_resolved) == function]
        return min(written, key=len, default=function)

    def learned(self) -> Iterator[tuple[str, Trained, float]]:
        """Name, runs and accuracy in percent, mean over seeds, of each function whose accuracy is known."""
        for function, own in self.trained.items():
            if own.mean_percent is not None:
                yield self.name(function), own, own.mean_percent

    @property
    def least_learned_percent(self) -> float:
        """Below so much accuracy hardly anything was learned."""
        chance = chance_percent(self.records)
        return chance + LEAST_LEARNED * (100 - chance)
