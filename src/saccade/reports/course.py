"""Course: what the training runs of a comparison went through before they were judged, read from their records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from saccade.models.sizes import MODELS
from saccade.record import Record
from saccade.reports.numbers import many

_PROBES = {
    "linear": "linear probe",
    "linear_bn": "linear probe behind BatchNorm",
    "knn": "vote of the nearest neighbours",
}


@dataclass(frozen=True)
class Course:
    """How weights came about, and by what they are judged.

    Attributes:
        told: for a sentence.
        judged_by: "probe" or "fine-tune"; "" for the accuracy of a classifier trained as such.
        reference: what the same judgement is called of an encoder that was not pre-trained: "random" for a probe,
            "scratch" for fine-tuning; "" where nothing was pre-trained.
        average: what the constants are that a loss is held against: "mean", or of SimMIM "median".
    """

    told: str = "trained from scratch"
    judged_by: str = ""
    reference: str = ""
    average: str = "mean"

    @property
    def accuracy(self) -> str:
        """Name of what is compared."""
        return f"{self.judged_by} top-1".strip()

    @property
    def step(self) -> str:
        """What a step is one of."""
        return "pre-training step" if self.judged_by else "training step"


def course_of(records: Iterable[Record]) -> Course:
    """The course of a comparison's runs, which is the same for all of them."""
    for record in records:
        if record.kind in ("accuracy", "tuning") and (then := record.conditions.get("then")):
            return _course(record, then)
    return Course()


def _course(record: Record, then: Mapping[str, Any]) -> Course:
    assert record.recipe is not None
    start = f"pre-trained for {_epochs(record.recipe)} as a masked autoencoder, then"
    if then["how"] == "probe":
        return Course(f"{start} {_PROBES[then['method']]}", "probe", "random", average_of(record))
    return Course(f"{start} fine-tuned for {_epochs(then['recipe'])}", "fine-tune", "scratch", average_of(record))


def _epochs(recipe: Mapping[str, Any]) -> str:
    return many(recipe["train"]["epochs"], "epoch")


def average_of(record: Record) -> str:
    """What the best constant is under the error of a masked autoencoder: the "mean", or of SimMIM's the "median"."""
    options = {**MODELS.get(record.model, {}), **record.model_options}
    return "median" if options.get("objective") == "simmim" else "mean"
