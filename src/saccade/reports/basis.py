"""Basis: what a conclusion rests on, read from the records; it holds for nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.record import Record
from saccade.reports.course import Course, course_of
from saccade.reports.fairness.finding import listed
from saccade.reports.function import BASELINE
from saccade.reports.numbers import many


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What was compared on what.

    Attributes:
        model: its name.
        data: facts of the images.
        images_seen: by each training run; in pre-training, where there was any.
        then_images_seen: by each run in the fine-tuning that followed.
        seeds: of softmax's finished runs.
        operations: counts of softmax's model.
        conditions: under which costs were measured, else under which models were trained.
        machine: the machine they were measured on.
        margin_points: how many points are too few to matter.
        larger: counts of softmax's model at each further scale, by its name.
        course: how weights came about.
    """

    model: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    images_seen: int | None = None
    then_images_seen: int | None = None
    seeds: tuple[int, ...] = ()
    operations: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    margin_points: float = 1.0
    larger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    course: Course = field(default_factory=Course)

    @property
    def sentence(self) -> str:
        """The basis in words."""
        parts = [self._data(), self._model(), self._runs(), self._place()]
        told = "; ".join(part for part in parts if part)
        return f"This rests on {told}; it says nothing about other data, sizes or devices."

    def _data(self) -> str:
        images = self.data.get("images", {})
        counts = [f"{images[part]:,} {part} images" for part in ("train", "test") if part in images]
        return _with(str(self.data.get("name", "")), [*counts, *self._seen()])

    def _seen(self) -> Sequence[str]:
        if self.images_seen is None:
            return []
        seen = f"{self.images_seen:,} seen by each run" + (" in pre-training" if self.course.judged_by else "")
        then = "" if self.then_images_seen is None else f" and {self.then_images_seen:,} in fine-tuning"
        return [seen + then]

    def _model(self) -> str:
        if not self.operations:
            return self.model
        larger = [f"and {name}: {listed(_sizes(counted))}" for name, counted in self.larger.items()]
        return _with(self.model, [*_sizes(self.operations), *larger])

    def _runs(self) -> str:
        return ", ".join((many(len(self.seeds), "seed"), many(1 + len(self.larger), "scale"), self.course.told))

    def _place(self) -> str:
        told = self.conditions
        if not told:
            return ""
        name = self.machine.get("processor") if str(told.get("device")) == "cpu" else self.machine.get("accelerator")
        dtype = f"{told.get('dtype')}" + (f" under {told['amp_dtype']} autocast" if told.get("amp_dtype") else "")
        details = [str(name)] if name else []
        details += [many(told["threads"], "thread")] if told.get("threads") else []
        details += ["processor time"] if told.get("clock") == "cpu" else []
        return f"{dtype} on {_with(str(told.get('device')), details)}"


def basis(
    records: Iterable[Record],
    margin_points: int | float = 1.0,
    *,
    larger: Mapping[str, Mapping[str, Any]] | None = None,
) -> Basis:
    """Reads what a comparison rests on from the records of plain softmax at one scale, the latest of each kind."""
    own = [record for record in records if record.attention.strip() == BASELINE and record.error is None]
    runs = [record for record in own if record.kind == "accuracy"]
    costs = [record for record in own if record.kind == "seconds"] or runs
    counted = [record for record in own if record.kind == "operations"]
    return Basis(
        model=own[-1].model if own else "",
        data=(runs[-1].data or {}) if runs else {},
        images_seen=runs[-1].values.get("images_seen") if runs else None,
        then_images_seen=runs[-1].values.get("then_images_seen") if runs else None,
        seeds=tuple(sorted({record.seed for record in runs if record.seed is not None})),
        operations=counted[-1].values if counted else {},
        conditions=costs[-1].conditions if costs else {},
        machine=costs[-1].machine if costs else {},
        margin_points=float(margin_points),
        larger=larger or {},
        course=course_of(runs),
    )


def _sizes(counted: Mapping[str, Any]) -> list[str]:
    """Tokens, width and heads, of encoder and decoder where there are both."""
    stacks = counted.get("stacks") or {"encoder": counted}
    sizes = {
        name: f"N {size['tokens']} tokens, width D {size['width']}, heads {size['head_width']} wide"
        for name, size in stacks.items()
    }
    return [*sizes.values()] if len(sizes) == 1 else [f"{name}: {told}" for name, told in sizes.items()]


def _with(name: str, details: Sequence[str]) -> str:
    return f"{name} ({', '.join(details)})" if details else name
