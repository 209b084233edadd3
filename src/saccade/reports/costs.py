"""Costs: what a training step, inference and memory take, and how much of softmax's that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from saccade.record import Record
from saccade.reports.function import function_of
from saccade.reports.ratios import Ratio, cost_ratio
from saccade.reports.terms import alike

ACTS = ("step", "latency", "inference")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one mechanism costs.

    Attributes:
        seconds: median of a training step, of inference at batch 1 (latency) and at a good batch (inference).
        ratios: the same divided by the fastest softmax of the same round.
        peak_bytes: of a training step.
        peak_ratio: the same divided by the leanest softmax on the same terms.
        kernel: what ran: "sdpa", "explicit", "eager".
        batch: images of a training step; inference_batch: of an inference call.
        errors: why something could not be measured.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    peak_bytes: int | None = None
    peak_ratio: float | None = None
    kernel: str | None = None
    batch: int | None = None
    inference_batch: int | None = None
    errors: tuple[str, ...] = ()


def costs_by_attention(records: Sequence[Record], baseline: str | None) -> dict[str, Costs]:
    """The costs of every resolved attention."""
    rounds = _rounds(records)
    memory = [record for record in records if record.kind == "memory"]
    names = dict.fromkeys(record.attention_resolved for record in records if record.kind in ("seconds", "memory"))
    return {name: _costs(name, rounds, memory, baseline) for name in names}


def _rounds(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each timing round, the latest round first."""
    rounds: dict[str | None, list[Record]] = {}
    for record in records:
        if record.kind == "seconds":
            rounds.setdefault(record.round, []).append(record)
    return sorted(rounds.values(), key=lambda each: max(record.created for record in each), reverse=True)


def _costs(name: str, rounds: list[list[Record]], memory: list[Record], baseline: str | None) -> Costs:
    timed, rivals = _latest_with_softmax(name, rounds, baseline)
    weighed = next((one for one in reversed(memory) if one.attention_resolved == name), None)
    good = timed if timed and timed.error is None else None
    return Costs(
        seconds={act: median(good.values[f"{act}_seconds"]) for act in ACTS if f"{act}_seconds" in good.values}
        if good
        else {},
        ratios=_ratios(good, rivals) if good else {},
        peak_bytes=weighed.values.get("peak_bytes") if weighed else None,
        peak_ratio=_peak_ratio(weighed, memory, baseline) if weighed else None,
        kernel=timed.conditions.get("kernel_run") if timed else None,
        batch=timed.conditions.get("batch_size") if timed else None,
        inference_batch=timed.conditions.get("inference_batch") if timed else None,
        errors=tuple(dict.fromkeys(one.error for one in (timed, weighed) if one and one.error)),
    )


def _latest_with_softmax(
    name: str, rounds: list[list[Record]], baseline: str | None
) -> tuple[Record | None, list[Record]]:
    """The mechanism's record of the latest round in which softmax was timed on equal terms, and those softmaxes."""
    seen: Record | None = None
    for each in rounds:
        own = next((record for record in each if record.attention_resolved == name), None)
        if own is None:
            continue
        softmaxes = [one for one in _softmaxes(each, baseline) if alike(one, own)]
        if softmaxes:
            return own, softmaxes
        seen = seen or own
    return seen, []


def _softmaxes(records: Sequence[Record], baseline: str | None) -> list[Record]:
    return [one for one in records if one.error is None and function_of(one.attention_resolved) == baseline]


def _ratios(timed: Record, softmaxes: list[Record]) -> dict[str, Ratio]:
    """To the fastest softmax, act by act: ours at its best against another at its default would be no result."""
    ratios = {}
    for act in ACTS:
        key = f"{act}_seconds"
        measured = [one.values[key] for one in softmaxes if key in one.values]
        if measured and key in timed.values:
            ratios[act] = cost_ratio(timed.values[key], min(measured, key=median))
    return ratios


def _peak_ratio(weighed: Record, memory: list[Record], baseline: str | None) -> float | None:
    peaks = [one.values["peak_bytes"] for one in _softmaxes(memory, baseline) if alike(one, weighed)]
    return weighed.values["peak_bytes"] / min(peaks) if peaks and weighed.error is None else None
