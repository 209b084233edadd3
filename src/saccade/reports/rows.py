"""Rows: what a comparison found, a row for each mechanism, computed from its records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from saccade.record import Record
from saccade.reports.costs import Costs, costs_by_attention
from saccade.reports.course import Course, course_of
from saccade.reports.function import baseline_of, function_of
from saccade.reports.statistics import Difference
from saccade.reports.trained import Trained, chance_percent, differences_to, trained_by_function

# Kernels that never hold the N x N table in memory; "eager" and "explicit" code is many kernels one after another.
FUSED = ("sdpa",)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One mechanism, or a rival: a softmax model of its cost.

    Attributes:
        attention: as its user wrote it.
        attention_resolved: every option written out.
        baseline: it is softmax, by one of its kernels.
        rival: it is softmax in another model.
        rival_of: the mechanism whose step a rival must meet, as its user wrote it.
        marks: what a reader must know beside the numbers, a few words each.
        accuracy_percent: top-1 on the test set, by seed; the kernels of softmax share it, being one function.
        difference: to softmax; None for softmax, and where runs are missing or diverged.
        validation_percent: top-1 on the validation part, mean over seeds.
        to_rival: difference to the best rival, of a mechanism that costs no more than it may.
        parameters: of the whole model; None where they were not counted.
        flops_per_image: of a forward pass of the whole model, as declared.
        costs: seconds, bytes, and their ratios to softmax.
        train_seconds: of a training run, mean over seeds.
        lr: learning rate.
        tuning_runs: how many rates were tried for it.
        sensitivity_points: how much a rate of the grid loses to the best, on average.
        diverged: seeds of runs that diverged.
        course: what its runs went through before they were judged.
        reference_percent: accuracy of the same without pre-training, mean over seeds.
        loss: of reconstruction on the test part, mean over seeds; nothing is ranked by it.
        mean_loss: what predicting one colour gives there, the mean of the training part (of SimMIM, the median).
        mean_picture_loss: what predicting its mean picture gives there (of SimMIM, its median picture).
    """

    attention: str
    attention_resolved: str
    baseline: bool = False
    rival: bool = False
    rival_of: str = ""
    marks: tuple[str, ...] = ()
    accuracy_percent: dict[int, float] = field(default_factory=dict)
    difference: Difference | None = None
    validation_percent: float | None = None
    to_rival: Difference | None = None
    parameters: int | None = None
    flops_per_image: int | None = None
    costs: Costs = field(default_factory=Costs)
    train_seconds: float | None = None
    lr: float | None = None
    tuning_runs: int = 0
    sensitivity_points: float | None = None
    diverged: tuple[int, ...] = ()
    course: Course = field(default_factory=Course)
    reference_percent: float | None = None
    loss: float | None = None
    mean_loss: float | None = None
    mean_picture_loss: float | None = None

    @property
    def mean_percent(self) -> float | None:
        """Top-1, mean over seeds."""
        return mean(self.accuracy_percent.values()) if self.accuracy_percent else None

    @property
    def verdict(self) -> str:
        """The verdict on its accuracy, or why there is none."""
        if self.baseline:
            return "diverged" if self.diverged else "baseline"
        if self.diverged:
            return "diverged"
        if self.difference is None:
            return "not trained" if not self.accuracy_percent else "incomplete"
        return self.difference.verdict or "too few seeds"

    @property
    def eligible(self) -> bool:
        """Whether it may be recommended as far as accuracy goes."""
        return self.verdict in ("baseline", "better", "not worse")

    def plain(self) -> dict[str, Any]:
        """The row as plain values, for JSON and data frames; a missing number is None."""
        difference = self.difference or Difference(float("nan"))
        return {
            "attention": self.attention,
            "attention_resolved": self.attention_resolved,
            "baseline": self.baseline,
            "kernel": self.costs.kernel,
            "marks": list(self.marks),
            "test_top1_percent": self.mean_percent,
            "test_top1_percent_by_seed": {str(seed): value for seed, value in self.accuracy_percent.items()},
            "difference_points": None if self.difference is None else difference.points,
            "difference_low_points": difference.low_points,
            "difference_high_points": difference.high_points,
            "verdict": self.verdict,
            "remedy": difference.remedy,
            "parameters": self.parameters,
            "flops_per_image": self.flops_per_image,
            **self._plain_costs(),
            "train_seconds": self.train_seconds,
            "lr": self.lr,
            "tuning_runs": self.tuning_runs,
            "lr_sensitivity_points": self.sensitivity_points,
            "diverged_seeds": list(self.diverged),
            **self._plain_course(),
            **self._plain_rival(),
        }

    def _plain_rival(self) -> dict[str, Any]:
        """What only a comparison with rivals has."""
        if self.rival:
            return {"rival_of": self.rival_of}
        if self.to_rival is None:
            return {}
        return {
            "to_rival_points": self.to_rival.points,
            "to_rival_low_points": self.to_rival.low_points,
            "to_rival_high_points": self.to_rival.high_points,
            "to_rival_verdict": self.to_rival.verdict,
        }

    def _plain_course(self) -> dict[str, Any]:
        """What only a masked autoencoder has."""
        if not self.course.judged_by:
            return {}
        return {
            "judged_by": self.course.judged_by,
            f"{self.course.reference}_test_top1_percent": self.reference_percent,
            "reconstruction_loss": self.loss,
            "reconstruction_mean_loss": self.mean_loss,
            "reconstruction_mean_picture_loss": self.mean_picture_loss,
        }

    def _plain_costs(self) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for act in ("step", "latency", "inference"):
            ratio = self.costs.ratios.get(act)
            plain |= {
                f"{act}_seconds": self.costs.seconds.get(act),
                f"{act}_ratio": ratio.value if ratio else None,
                f"{act}_ratio_low": ratio.low if ratio else None,
                f"{act}_ratio_high": ratio.high if ratio else None,
            }
        return {**plain, "peak_bytes": self.costs.peak_bytes, "peak_ratio": self.costs.peak_ratio}


def rows(records: Iterable[Record], margin_points: int | float = 1.0) -> list[Row]:
    """A row for each mechanism: the kernels of softmax first, then by the cost of a training step, rivals last.

    Args:
        records: of one comparison at one scale, in the order in which they were made, rivals under their own names.
        margin_points: how many points of accuracy are too few to matter, fixed before anything was seen.
    """
    records = list(records)
    baseline = baseline_of(records)
    trained = trained_by_function(records)
    rivals = {one.attention_resolved: one.conditions.get("rival_of", "") for one in records if _is_rival(one)}
    differences = _differences(baseline, trained, rivals, float(margin_points)) if baseline else {}
    costs = costs_by_attention(records, baseline)
    operations = {
        function_of(one.attention_resolved): one for one in records if one.kind == "operations" and one.error is None
    }
    fused = _fused(_fastest_softmax(costs, baseline))
    course = course_of(records)
    written = {record.attention_resolved: record.attention for record in reversed(records)}

    def row(name: str) -> Row:
        function = function_of(name)
        own = trained.get(function, Trained())
        cost = costs.get(name, Costs())
        counted = operations.get(function)
        return Row(
            attention=written[name],
            attention_resolved=name,
            baseline=function == baseline,
            rival=name in rivals,
            rival_of=written.get(rivals.get(name, ""), ""),
            marks=_marks(written[name], own, cost, function == baseline, fused),
            accuracy_percent=own.accuracy_percent,
            difference=differences.get(function),
            validation_percent=own.mean_of("validation_top1_percent"),
            parameters=counted.values.get("parameters") if counted else None,
            flops_per_image=counted.values.get("flops_per_image") if counted else None,
            costs=cost,
            train_seconds=own.train_seconds,
            lr=own.lr,
            tuning_runs=len(own.tuning),
            sensitivity_points=own.sensitivity_points(chance_percent(records)),
            diverged=own.diverged,
            course=course,
            **_pretrained(own, course),
        )

    return sorted(map(row, written), key=_place)


def softmax_rows(found: Sequence[Row]) -> list[Row]:
    """The kernels of softmax."""
    return [row for row in found if row.baseline]


def best_softmax(found: Sequence[Row], act: str = "step") -> Row | None:
    """The softmax that is fastest at a training step, at latency or at inference; None where none was timed."""
    timed = [row for row in found if row.baseline and act in row.costs.seconds]
    return min(timed, key=lambda row: row.costs.seconds[act], default=None)


def _differences(
    baseline: str, trained: Mapping[str, Trained], rivals: Collection[str], margin_points: float
) -> dict[str, Difference]:
    """To softmax, of mechanisms and of rivals: two questions, so that neither changes what is found of the other."""
    mechanisms = {name: one for name, one in trained.items() if name not in rivals}
    others = {name: one for name, one in trained.items() if name in rivals or name == baseline}
    return differences_to(baseline, mechanisms, margin_points) | differences_to(baseline, others, margin_points)


def _is_rival(record: Record) -> bool:
    """By its declared counts, which say of whom."""
    return record.kind == "operations" and "rival" in record.conditions


def _place(row: Row) -> tuple[bool, bool, float, str]:
    ratio = row.costs.ratios.get("step")
    return row.rival, not row.baseline, ratio.value if ratio else float("inf"), row.attention


def _fastest_softmax(costs: Mapping[str, Costs], baseline: str | None) -> str | None:
    """The kernel of the softmax whose training step is the fastest."""
    timed = [one for name, one in costs.items() if function_of(name) == baseline and "step" in one.seconds]
    return min(timed, key=lambda one: one.seconds["step"]).kernel if timed else None


def _marks(written: str, own: Trained, cost: Costs, baseline: bool, fused_softmax: bool) -> tuple[str, ...]:
    marks = []
    if baseline and cost.kernel and cost.kernel not in written:
        marks.append(f"{cost.kernel} kernel")
    if not baseline and fused_softmax and cost.kernel and not _fused(cost.kernel):
        marks.append("unfused")
    if own.diverged:
        marks.append(f"diverged at {_seeds(own.diverged)}")
    return (*marks, *(error.partition(":")[0] for error in cost.errors))


def _pretrained(own: Trained, course: Course) -> dict[str, Any]:
    """What pre-training came to; the loss of a classifier is another thing."""
    if not course.judged_by:
        return {}
    return {
        "reference_percent": own.mean_of(f"{course.reference}_test_top1_percent"),
        "loss": own.mean_of("test_loss"),
        "mean_loss": own.mean_of("test_baseline_loss"),
        "mean_picture_loss": own.mean_of("test_mean_picture_loss"),
    }


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _fused(kernel: str | None) -> bool:
    return kernel is not None and all(one.strip() in FUSED for one in kernel.split(","))
