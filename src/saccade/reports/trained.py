"""Trained: what the training runs of each mechanism came to, and how each stands to softmax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
from jaxtyping import Bool

from saccade.record import Record
from saccade.reports.function import function_of
from saccade.reports.statistics import Difference, differences


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The runs of one mechanism that were judged on the test set.

    Attributes:
        finished: by seed.
        diverged: seeds whose run ended in a loss that is not finite.
        tuning: its tuning runs, at one rate each.
    """

    finished: Mapping[int, Record] = field(default_factory=dict)
    diverged: tuple[int, ...] = ()
    tuning: tuple[Record, ...] = ()

    @property
    def accuracy_percent(self) -> dict[int, float]:
        """Top-1 on the test set, by seed; without the runs of others that do not tell it."""
        told = {seed: one.values.get("test_top1_percent") for seed, one in self.finished.items()}
        return {seed: float(percent) for seed, percent in told.items() if percent is not None}

    @property
    def mean_percent(self) -> float | None:
        """The same, mean over seeds."""
        return mean(self.accuracy_percent.values()) if self.accuracy_percent else None

    @property
    def train_seconds(self) -> float | None:
        """Seconds of training and of what followed on it, mean over seeds."""
        there = self.mean_of("train_seconds") is not None
        return mean(map(trained_seconds, self.finished.values())) if there else None

    @property
    def lr(self) -> float | None:
        """The learning rate of its last run."""
        return rate_of(self.finished[max(self.finished)]) if self.finished else None

    def mean_of(self, value: str) -> float | None:
        """A value of the finished runs, mean over seeds; None where one does not hold it."""
        there = [float(one.values[value]) for one in self.finished.values() if value in one.values]
        return mean(there) if there and len(there) == len(self.finished) else None

    def sensitivity_points(self, chance_percent: float) -> float | None:
        """How much validation accuracy a rate of the grid loses to the best one, mean over the grid.

        What Wortsman et al. 2023 (https://arxiv.org/abs/2309.14322) measure in loss. A rate that diverged counts as
        chance.
        """
        if len(self.tuning) < 2:
            return None
        reached = [validation_percent(one, chance_percent) for one in self.tuning]
        return max(reached) - mean(reached)


def rate_of(record: Record) -> float | None:
    """The learning rate of a run; None where its record does not tell it."""
    rate = (record.recipe or {}).get("train", {}).get("lr")
    return None if rate is None else float(rate)


def trained_seconds(record: Record) -> float:
    """Seconds of a run's training and of what followed on it."""
    return float(record.values["train_seconds"]) + float(record.values.get("then_seconds", 0.0))


def validation_percent(record: Record, chance_percent: float) -> float:
    """Validation accuracy of a run; chance where it diverged."""
    return float(record.values.get("validation_top1_percent", chance_percent))


def reconstruction(record: Record) -> dict[str, float]:
    """What pre-training came to on the test part, or else the validation part: the loss, and those of two constants."""
    values = record.values.get("pretraining") or record.values
    for part in ("test", "validation"):
        told = {name: values.get(f"{part}_{name}") for name in ("loss", "baseline_loss", "mean_picture_loss")}
        if told["baseline_loss"] is not None:
            return {name: float(loss) for name, loss in told.items() if loss is not None}
    return {}


def gained_points(record: Record) -> float | None:
    """How much more a run reaches than the same without pre-training; None where one of the two is not known."""
    values = record.values
    without = values.get("random_test_top1_percent", values.get("scratch_test_top1_percent"))
    reached = values.get("test_top1_percent")
    return None if reached is None or without is None else float(reached) - float(without)


def chance_percent(records: Iterable[Record]) -> float:
    """What guessing gets; 0 where no record names the number of classes."""
    classes = next((one.data["classes"] for one in records if one.data and "classes" in one.data), None)
    return 100 / int(classes) if classes else 0.0


def trained_by_function(records: Iterable[Record]) -> dict[str, Trained]:
    """The training runs of each function, the latest of each seed and of each rate."""
    accuracy: dict[str, dict[int, Record]] = {}
    tuning: dict[str, dict[float, Record]] = {}
    for record in records:
        function = function_of(record.attention_resolved)
        if record.kind == "accuracy" and record.seed is not None:
            accuracy.setdefault(function, {})[record.seed] = record
        if record.kind == "tuning" and (rate := rate_of(record)) is not None:
            tuning.setdefault(function, {})[rate] = record
    return {
        function: Trained(
            finished={seed: one for seed, one in sorted(accuracy.get(function, {}).items()) if one.error is None},
            diverged=tuple(sorted(seed for seed, one in accuracy.get(function, {}).items() if one.error is not None)),
            tuning=tuple(one for _, one in sorted(tuning.get(function, {}).items())),
        )
        for function in {**accuracy, **tuning}
    }


def differences_to(baseline: str, trained: Mapping[str, Trained], margin_points: float) -> dict[str, Difference]:
    """How each mechanism that finished softmax's seeds on softmax's test images stands to it.

    A mechanism that diverged or is incomplete has no place in the table of mechanisms and seeds, and no difference.
    """
    softmax = trained.get(baseline, Trained())
    if not softmax.finished or softmax.diverged or not all(map(answers_known, softmax.finished.values())):
        return {}
    rivals = [name for name, one in trained.items() if name != baseline and _comparable(one, softmax)]
    seeds = list(softmax.finished)
    correct = np.stack([_correct(trained[name], seeds) for name in [baseline, *rivals]])
    return dict(zip(rivals, differences(correct, margin_points), strict=True))


def _comparable(one: Trained, softmax: Trained) -> bool:
    return all(
        seed in one.finished and _same_images(one.finished[seed], record) for seed, record in softmax.finished.items()
    )


def _same_images(one: Record, other: Record) -> bool:
    return (
        answers_known(one)
        and (one.data or {}).get("fingerprint") == (other.data or {}).get("fingerprint")
        and (one.values["test_images"] == other.values["test_images"])
    )


def _correct(one: Trained, seeds: Sequence[int]) -> Bool[np.ndarray, "s n"]:
    return np.stack([right_answers(one.finished[seed]) for seed in seeds])


def answers_known(record: Record) -> bool:
    """Whether it tells which test images the run got right."""
    return {"test_correct", "test_images"} <= set(record.values)


def right_answers(record: Record) -> Bool[np.ndarray, " n"]:
    """Which test images a run got right: one bit each, in order, in hexadecimal."""
    packed = np.frombuffer(bytes.fromhex(record.values["test_correct"]), dtype=np.uint8)
    return np.unpackbits(packed, count=int(record.values["test_images"])).astype(bool)
