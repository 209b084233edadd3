"""PlanFacts: what is known of a comparison before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One mechanism of a planned comparison.

    Attributes:
        attention: as its user wrote it.
        operations: what `measurement.operations` counts of its model; empty where the model cannot be built.
        model: everything about the model but the attention, by name: must be the same for all.
        kernel: what runs: "sdpa", "explicit", "eager".
        refusal: why it makes no sense at this size, where it does not.
    """

    attention: str
    operations: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    kernel: str = "eager"
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """A planned comparison.

    Attributes:
        softmax: the baseline.
        rivals: the other mechanisms.
        seeds: runs of each.
        tuning: whether learning rates are tuned in this comparison, were "beforehand", or not at all.
        tuned_where: where the records of rates tuned beforehand are.
        data: `Dataset.facts()`.
        device: as torch writes it.
        batch_size: images of a training step.
        scales: sizes of the model at which everything is repeated.
        init: "scratch", or what the weights are pre-trained by.
    """

    softmax: Contender
    rivals: tuple[Contender, ...]
    seeds: int
    tuning: Literal["here", "beforehand", "none"]
    tuned_where: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    batch_size: int
    scales: int = 1
    init: str = "scratch"

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """Softmax first."""
        return (self.softmax, *self.rivals)

    @property
    def bounds(self) -> dict[str, float]:
        """For each rival the declared FLOPs of softmax's model divided by its own: its arithmetic gains so much."""
        softmax = self.softmax.operations
        return {
            rival.attention: softmax["flops_per_image"] / rival.operations["flops_per_image"]
            for rival in self.rivals
            if rival.operations
        }
