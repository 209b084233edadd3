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
        fixed: parts of the model, as `operations` names its stacks, whose attention is the same for all.
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
    fixed: tuple[str, ...] = ()

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """Softmax first."""
        return (self.softmax, *self.rivals)

    @property
    def parts(self) -> Mapping[str, Mapping[str, Any]]:
        """Encoder and decoder with softmax; a classifier has the one part."""
        counted = self.softmax.operations
        return counted.get("stacks") or {"encoder": counted}

    @property
    def swapped(self) -> Mapping[str, Mapping[str, Any]]:
        """The parts that the mechanisms are in."""
        return {name: part for name, part in self.parts.items() if name not in self.fixed}

    @property
    def quadratic_share(self) -> float:
        """Share of the N² products of the swapped parts in the arithmetic of all blocks."""
        if len(self.parts) == 1:
            return float(self.softmax.operations["quadratic_share"])
        quadratic = sum(part["quadratic_flops"] for part in self.swapped.values())
        return float(quadratic / sum(part["softmax_flops"] for part in self.parts.values()))

    @property
    def bounds(self) -> dict[str, float]:
        """For each rival the declared FLOPs of softmax's model divided by its own: its arithmetic gains so much."""
        return self._bounds("flops_per_image")

    @property
    def inference_bounds(self) -> dict[str, float]:
        """The same of what the user of a trained model runs, where that is something else."""
        if len(self.parts) == 1:
            return {}
        return self._bounds("inference_flops_per_image")

    def _bounds(self, counted: str) -> dict[str, float]:
        softmax = self.softmax.operations
        return {
            rival.attention: softmax[counted] / rival.operations[counted] for rival in self.rivals if rival.operations
        }
