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
        kernel: what runs: "sdpa", "explicit", "eager"; None where that is not known.
        refusal: why it makes no sense at this size, where it does not.
    """

    attention: str
    operations: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    kernel: str | None = "eager"
    refusal: str | None = None


Tuning = Literal["here", "some", "beforehand", "elsewhere", "none"]
"""Whether learning rates are tuned in this comparison; only some of them are; they were in another one, which is named;
they differ, and it is not said why; or they are not."""


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """A planned comparison; where it is read from records, what these do not tell is None or empty.

    Attributes:
        softmax: the baseline.
        rivals: the other mechanisms.
        seeds: runs of each, the fewest of any.
        tuning: of learning rates.
        tuned_where: where the records of rates tuned beforehand are.
        data: `Dataset.facts()`.
        device: as torch writes it.
        batch_size: images of a training step.
        scales: sizes of the model at which everything is repeated.
        init: "scratch", or what the weights are pre-trained by.
        fixed: parts of the model, as `operations` names its stacks, whose attention is the same for all.
        timed: what a time is that of.
        layer_flops: of it on one image, forward, where it is a layer of its own and no block of a model.
    """

    softmax: Contender
    rivals: tuple[Contender, ...]
    seeds: int | None
    tuning: Tuning | None
    tuned_where: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = "cpu"
    batch_size: int | None
    scales: int = 1
    init: str | None = "scratch"
    fixed: tuple[str, ...] = ()
    timed: str = "a block of this model"
    layer_flops: int | float | None = None

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
        if len(self.parts) == 1 and "quadratic_share" in self.softmax.operations:
            return float(self.softmax.operations["quadratic_share"])
        quadratic = sum(arithmetic(part)[0] for part in self.swapped.values())
        return quadratic / sum(arithmetic(part)[1] for part in self.parts.values())

    @property
    def timed_flops(self) -> int | float:
        """Of one block on one image, forward, on average over the model; or of the layer that is timed alone."""
        if self.layer_flops is not None:
            return self.layer_flops
        depth = sum(part["depth"] for part in self.parts.values())
        counted = self.softmax.operations.get("flops_per_image")
        return (sum(arithmetic(part)[1] for part in self.parts.values()) if counted is None else counted) / depth

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
        softmax = self.softmax.operations.get(counted)
        return {
            rival.attention: softmax / rival.operations[counted]
            for rival in self.rivals
            if softmax and rival.operations.get(counted)
        }


def arithmetic(part: Mapping[str, Any]) -> tuple[int | float, int | float]:
    """Operations of a part's blocks with softmax, those of the products with N² and all, of one image, forward.

    As counted, or as 4 N² D and 24 N D² for each block where only its measures are known: an MLP ratio of 4.
    """
    if "softmax_flops" in part:
        return part["quadratic_flops"], part["softmax_flops"]
    n, d = part["tokens"], part["width"]
    quadratic = 4 * n**2 * d * part["depth"]
    return quadratic, quadratic + 24 * n * d**2 * part["depth"]
