"""Layers: what `bench` measured, a line for each attention and kind of call, with where it meets softmax."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.attention import resolved_text
from saccade.record import Record
from saccade.reports.contenders import apart
from saccade.reports.crossing import Crossing, crossing
from saccade.reports.function import BASELINE, function_of
from saccade.reports.growth import Growth, growth
from saccade.reports.ratios import Ratio, cost_ratio
from saccade.reports.terms import alike, machine, terms

TITLES = {
    ("core", "forward"): "core, forward",
    ("core", "forward_backward"): "core, forward + backward",
    ("layer", "forward"): "whole layer, forward",
    ("layer", "forward_backward"): "whole layer, forward + backward",
    ("block", "forward"): "block, forward",
    ("block", "forward_backward"): "block, forward + backward",
    ("model", "inference"): "model, inference",
    ("model", "step"): "model, training step",
    ("core", "peak"): "core, peak memory of forward + backward",
    ("layer", "peak"): "whole layer, peak memory of forward + backward",
    ("block", "peak"): "block, peak memory of forward + backward",
    ("model", "peak"): "model, peak memory of a training step",
}
"""Kinds of calls, in the order in which they are shown."""

UNWATCHED = "this system does not say whether others used the processors meanwhile"

_COMPILING = "warmup_{}_compile_seconds"


@dataclass(frozen=True)
class Setting:
    """The terms on which lines stand beside each other.

    Attributes:
        model: its name; empty for layers and blocks.
        batch_size: images of a call.
        dtype: of the weights.
        amp_dtype: of autocast.
        compile: by torch.compile.
        checkpointing: forward runs again in backward.
        rest: all other terms, and the machine, as JSON.
    """

    model: str
    batch_size: int | None
    dtype: str | None
    amp_dtype: str | None
    compile: bool
    checkpointing: bool
    rest: str

    @classmethod
    def of(cls, record: Record) -> Setting:
        """That of a record."""
        told = terms(record) | machine(record)
        named = {name: told.pop(name) for name in ("batch_size", "dtype", "amp_dtype", "compile", "checkpointing")}
        named |= {name: bool(named[name]) for name in ("compile", "checkpointing")}
        model = record.model if record.conditions["what"] == "model" else ""
        return cls(model=model, rest=json.dumps(told, sort_keys=True, default=str), **named)

    def __str__(self) -> str:
        return ", ".join(self.words().values())

    def words(self) -> dict[str, str]:
        """What a reader should know, by what it is about."""
        told = {"batch_size": f"batch {self.batch_size}", "dtype": self.dtype or ""}
        if self.amp_dtype:
            told["amp_dtype"] = f"{self.amp_dtype} autocast"
        if self.compile:
            told["compile"] = "compiled"
        if self.checkpointing:
            told["checkpointing"] = "checkpointing"
        return told


@dataclass(frozen=True)
class Point:
    """What one attention needs at one size.

    Attributes:
        cost: median seconds, or bytes.
        repeats: seconds of each; the bytes alone.
        ratio: to the best softmax of the same round; None without one.
        compile_seconds: what compiling took; None where nothing was compiled.
    """

    cost: int | float
    repeats: tuple[int | float, ...]
    ratio: Ratio | None = None
    compile_seconds: float | None = None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Of the repeats; None for bytes, which are measured once."""
        if len(self.repeats) < 2:
            return None
        low, high = np.percentile(self.repeats, [25, 75])
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One attention in one kind of call, on one set of terms, over all sizes.

    Attributes:
        attention: as its user wrote it; of a rival, its name.
        what: "core", "layer", "block" or "model".
        act: "forward", "forward_backward", "step", "inference" or "peak".
        setting: the terms.
        baseline: it is softmax, by one of its kernels.
        chosen: its user wrote no options, and at some size others than the defaults were taken.
        points: by number of tokens, ascending.
        errors: why there is no point, by number of tokens.
        resolved: every option used, by number of tokens.
    """

    attention: str
    what: str
    act: str
    setting: Setting
    baseline: bool = False
    chosen: bool = False
    points: Mapping[int, Point] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    resolved: Mapping[int, str] = field(default_factory=dict)

    @property
    def crossing(self) -> Crossing | None:
        """Where it meets softmax; None for softmax, and where nothing was measured."""
        ratios = {tokens: point.ratio for tokens, point in self.points.items() if point.ratio}
        return None if self.baseline or not ratios else crossing(list(ratios), list(ratios.values()))

    @property
    def growth(self) -> Growth | None:
        """How it grows with the number of tokens, where there are enough sizes to tell."""
        return growth(list(self.points), [point.repeats for point in self.points.values()])

    def plain(self) -> dict[str, Any]:
        """The line as plain values, for JSON; a missing number is None."""
        unit, found, grown = "bytes" if self.act == "peak" else "seconds", self.crossing, self.growth
        return {
            "attention": self.attention,
            "what": self.what,
            "act": self.act,
            "model": self.setting.model or None,
            "batch_size": self.setting.batch_size,
            "dtype": self.setting.dtype,
            "amp_dtype": self.setting.amp_dtype,
            "compile": self.setting.compile,
            "checkpointing": self.setting.checkpointing,
            "baseline": self.baseline,
            "options_chosen": self.chosen,
            "sizes": [
                {
                    "tokens": tokens,
                    unit: point.cost,
                    f"{unit}_quartiles": point.quartiles and list(point.quartiles),
                    "ratio": point.ratio and point.ratio.value,
                    "ratio_low": point.ratio and point.ratio.low,
                    "ratio_high": point.ratio and point.ratio.high,
                    "compile_seconds": point.compile_seconds,
                    "attention_resolved": self.resolved[tokens],
                }
                for tokens, point in self.points.items()
            ],
            "errors": [{"tokens": tokens, "error": error} for tokens, error in self.errors.items()],
            "exponent": grown and grown.exponent,
            "exponent_low": grown and grown.low,
            "exponent_high": grown and grown.high,
            "exponent_r2": grown and grown.r2,
            "exponent_tokens": grown and list(grown.tokens),
            "cheaper": found and found.words,
            "crossing_tokens": found and list(found.tokens),
            "crossing_low_tokens": found and found.low,
            "crossing_high_tokens": found and found.high,
        }


def lines(records: Iterable[Record]) -> list[Line]:
    """A line for each attention, kind of call and set of terms: as in `TITLES`, softmax first, as measured within."""
    softmax = function_of(resolved_text(BASELINE, 1))
    found = []
    for what, act, own in by_act(records):
        for setting, same in by_setting(own).items():
            made = [_line(name, what, act, setting, same, softmax) for name in dict.fromkeys(map(_name, same))]
            found += sorted(made, key=lambda line: not line.baseline)
    return found


def by_act(records: Iterable[Record]) -> list[tuple[str, str, list[Record]]]:
    """The records of a bench for each kind of call, in the order of `TITLES`; a rival's has its name as attention."""
    measured = [one for one in apart(records) if one.kind in ("seconds", "memory") and "what" in one.conditions]
    found = []
    for what, act in TITLES:
        kind = "memory" if act == "peak" else "seconds"
        own = [one for one in measured if one.conditions["what"] == what and one.kind == kind]
        if own:
            found.append((what, act, own))
    return found


def by_setting(records: Iterable[Record]) -> dict[Setting, list[Record]]:
    """The records on each set of terms."""
    settings: dict[Setting, list[Record]] = {}
    for record in records:
        settings.setdefault(Setting.of(record), []).append(record)
    return settings


def why_missing(record: Record, act: str) -> str | None:
    """Why a record has no cost of an act that counts; None where it has.

    One act may have failed, as a backward pass for which there is no memory, and another be there.
    """
    failed: Mapping[str, str] = record.conditions.get("failed", {})
    if act in failed:
        return failed[act]
    there = ("peak_bytes" if act == "peak" else f"{act}_seconds") in record.values
    return record.error if not (there and failed) else None


def title(what: str, act: str, setting: Setting) -> str:
    """A kind of call in words; a model by its name."""
    told = TITLES[what, act]
    return f"{setting.model}, {told.removeprefix('model, ')}" if setting.model else told


def gaps(found: Iterable[Line]) -> list[str]:
    """Why numbers are missing, a sentence each."""
    sizes: dict[tuple[str, str], dict[str, None]] = {}
    for line in found:
        for tokens, error in line.errors.items():
            sizes.setdefault((line.attention, error), {})[f"{tokens:,}"] = None
    return [f"{attention} at {', '.join(at)} tokens: {error}" for (attention, error), at in sizes.items()]


def busy(records: Iterable[Record]) -> bool:
    """Whether others used the machine too much for the times to be trusted."""
    return any(record.conditions.get("busy") for record in records)


def unwatched(records: Iterable[Record]) -> bool:
    """Whether the system could not tell if others used the processors, as without Linux's /proc/pressure."""
    watched = [one.conditions["busy"] for one in records if one.kind == "seconds" and "busy" in one.conditions]
    return bool(watched) and all(busy is None for busy in watched)


def _name(record: Record) -> str:
    return record.attention


def _size(record: Record) -> int:
    """The tokens of those it stands beside."""
    return record.conditions.get("beside_tokens", record.conditions["tokens"])


def _line(name: str, what: str, act: str, setting: Setting, records: Sequence[Record], softmax: str) -> Line:
    points: dict[int, Point] = {}
    errors: dict[int, str] = {}
    resolved: dict[int, str] = {}
    own = [one for one in records if one.attention == name]
    for record in sorted(own, key=_size):
        tokens, why = _size(record), why_missing(record, act)
        resolved.setdefault(tokens, record.attention_resolved)
        if why is not None:
            errors[tokens] = why
        # Softmax is in several rounds where not all would fit into memory together; the first is as good as any.
        elif tokens not in points:
            rivals = [one for one in records if _beside(one, record, act) and _is_softmax(one, softmax)]
            points[tokens] = _point(record, act, rivals)
    return Line(
        attention=name,
        what=what,
        act=act,
        setting=setting,
        baseline=all(_is_softmax(one, softmax) for one in own),
        chosen=any(one.conditions["options_chosen"] for one in own),
        points=points,
        errors={tokens: why for tokens, why in errors.items() if tokens not in points},
        resolved=resolved,
    )


def _is_softmax(record: Record, softmax: str) -> bool:
    return function_of(record.attention_resolved) == softmax


def _beside(one: Record, other: Record, act: str) -> bool:
    """Whether both were measured at one size, on equal terms, in one round where there are rounds."""
    return (
        why_missing(one, act) is None and one.round == other.round and alike(one, other) and _size(one) == _size(other)
    )


def _point(record: Record, act: str, softmaxes: Sequence[Record]) -> Point:
    if act == "peak":
        cost = record.values["peak_bytes"]
        least = min((one.values["peak_bytes"] for one in softmaxes), default=0)
        return Point(cost, (cost,), Ratio(cost / least) if least > 0 and cost > 0 else None)
    own = record.values[f"{act}_seconds"]
    best = min((one.values[f"{act}_seconds"] for one in softmaxes), key=np.median, default=None)
    ratio = cost_ratio(own, best) if best else None
    return Point(float(np.median(own)), tuple(own), ratio, record.values.get(_COMPILING.format(act)))
