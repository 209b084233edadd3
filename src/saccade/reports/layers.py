"""Layers: what `bench` measured, a line for each attention and kind of call, with where it meets softmax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.attention import resolved_text
from saccade.record import Record
from saccade.reports.columns import Cell, Column
from saccade.reports.crossing import Crossing, crossing, exponent
from saccade.reports.function import BASELINE, function_of
from saccade.reports.numbers import NONE, counted, duration, spread, times
from saccade.reports.ratios import EQUAL, Ratio, cost_ratio

TITLES = {
    ("core", "forward"): "core, forward",
    ("core", "forward_backward"): "core, forward + backward",
    ("layer", "forward"): "whole layer, forward",
    ("layer", "forward_backward"): "whole layer, forward + backward",
    ("core", "peak"): "core, peak memory of forward + backward",
    ("layer", "peak"): "whole layer, peak memory of forward + backward",
}
"""Kinds of calls, in the order in which they are shown."""


@dataclass(frozen=True)
class Point:
    """What one attention needs at one size.

    Attributes:
        cost: median seconds, or bytes.
        quartiles: of the repeats' seconds; None for bytes.
        ratio: to the best softmax of the same round; None without one.
    """

    cost: int | float
    quartiles: tuple[float, float] | None = None
    ratio: Ratio | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One attention in one kind of call, over all sizes.

    Attributes:
        attention: as its user wrote it.
        what: "core" or "layer".
        act: "forward", "forward_backward" or "peak".
        baseline: it is softmax, by one of its kernels.
        chosen: its user wrote no options, and at some size others than the defaults were taken.
        points: by number of tokens, ascending.
        errors: why there is no point, by number of tokens.
        resolved: every option used, by number of tokens.
    """

    attention: str
    what: str
    act: str
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
    def exponent(self) -> float | None:
        """The power of the number of tokens by which it grows, fitted."""
        return exponent(list(self.points), [point.cost for point in self.points.values()])

    def plain(self) -> dict[str, Any]:
        """The line as plain values, for JSON; a missing number is None."""
        unit, found = "bytes" if self.act == "peak" else "seconds", self.crossing
        return {
            "attention": self.attention,
            "what": self.what,
            "act": self.act,
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
                    "attention_resolved": self.resolved[tokens],
                }
                for tokens, point in self.points.items()
            ],
            "errors": [{"tokens": tokens, "error": error} for tokens, error in self.errors.items()],
            "exponent": self.exponent,
            "cheaper": found and found.words,
            "crossing_tokens": found and list(found.tokens),
            "crossing_low_tokens": found and found.low,
            "crossing_high_tokens": found and found.high,
        }


def lines(records: Iterable[Record]) -> list[Line]:
    """A line for each attention and kind of call: in the order of `TITLES`, softmax first, as measured within."""
    records = list(records)
    softmax = function_of(resolved_text(BASELINE, 1))
    found = []
    for what, act in TITLES:
        own = [one for one in records if one.conditions["what"] == what and one.kind == _kind(act)]
        names = dict.fromkeys(one.attention for one in own)
        made = [_line(name, what, act, own, softmax) for name in names]
        found += [line for line in sorted(made, key=lambda line: not line.baseline) if any((line.points, line.errors))]
    return found


def columns(shown: Sequence[Line]) -> list[Column]:
    """The lines of one kind of call as a table: ratio and interval, below them the median and its spread."""
    sizes = sorted({tokens for line in shown for tokens in (*line.points, *line.errors)})
    parts = [Column(("attention", ""), "attention", tuple(map(_name, shown)), True)]
    parts += [
        Column((f"{tokens:,} tokens", "× softmax"), f"{tokens}", tuple(_cell(line, tokens) for line in shown))
        for tokens in sizes
    ]
    parts.append(Column(("grows by", "power of tokens"), "growth", tuple(_growth(line) for line in shown)))
    parts.append(Column(("cheaper than", "softmax"), "growth", tuple(_cheaper(line) for line in shown), True))
    return parts


def by_kind(found: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of each kind of call, by its title."""
    kinds: dict[str, list[Line]] = {}
    for line in found:
        kinds.setdefault(TITLES[line.what, line.act], []).append(line)
    return kinds


LEGEND = (
    "× softmax = divided by the best softmax at that size in the same round, with its 95 % interval: below 1 is "
    f"cheaper, and {1 / EQUAL:.2f} to {EQUAL:.2f} counts as equal. Below it the median of the repeats ± their "
    "interquartile range, or the bytes above inputs and weights. A power of 1 is linear in the tokens, 2 quadratic. "
    "Where a mechanism crosses softmax is interpolated between measured sizes on log axes."
)


def gaps(found: Iterable[Line]) -> list[str]:
    """Why numbers are missing, a sentence each."""
    sizes: dict[tuple[str, str], dict[str, None]] = {}
    for line in found:
        for tokens, error in line.errors.items():
            sizes.setdefault((line.attention, error), {})[f"{tokens:,}"] = None
    return [f"{attention} at {', '.join(at)} tokens: {error}" for (attention, error), at in sizes.items()]


def busy(records: Iterable[Record]) -> bool:
    """Whether others used the processors too much for the times to be trusted."""
    return any(record.conditions.get("busy") for record in records)


def _kind(act: str) -> str:
    return "memory" if act == "peak" else "seconds"


def _line(name: str, what: str, act: str, records: Sequence[Record], softmax: str) -> Line:
    points: dict[int, Point] = {}
    errors: dict[int, str] = {}
    resolved: dict[int, str] = {}
    for record in sorted((one for one in records if one.attention == name), key=lambda one: one.conditions["tokens"]):
        tokens = record.conditions["tokens"]
        resolved[tokens] = record.attention_resolved
        if record.error is not None:
            errors[tokens] = record.error
            continue
        rivals = [one for one in records if _beside(one, record) and function_of(one.attention_resolved) == softmax]
        points[tokens] = _point(record, act, rivals)
    baseline = {function_of(text) for text in resolved.values()} == {softmax}
    chosen = any(one.conditions["options_chosen"] for one in records if one.attention == name)
    return Line(
        attention=name,
        what=what,
        act=act,
        baseline=baseline,
        chosen=chosen,
        points=points,
        errors=errors,
        resolved=resolved,
    )


def _beside(one: Record, other: Record) -> bool:
    """Whether both were measured at one size, in one round where there are rounds."""
    return one.error is None and one.round == other.round and one.conditions["tokens"] == other.conditions["tokens"]


def _point(record: Record, act: str, softmaxes: Sequence[Record]) -> Point:
    if act == "peak":
        cost = record.values["peak_bytes"]
        least = min((one.values["peak_bytes"] for one in softmaxes), default=0)
        return Point(cost, ratio=Ratio(cost / least) if least > 0 and cost > 0 else None)
    own = record.values[f"{act}_seconds"]
    best = min((one.values[f"{act}_seconds"] for one in softmaxes), key=np.median, default=None)
    low, middle, high = np.percentile(own, [25, 50, 75])
    return Point(float(middle), (float(low), float(high)), cost_ratio(own, best) if best else None)


def _name(line: Line) -> Cell:
    return line.attention, "options chosen by size" if line.chosen else ""


def _cell(line: Line, tokens: int) -> Cell:
    if tokens not in line.points:
        return line.errors.get(tokens, NONE).partition(":")[0], ""
    point = line.points[tokens]
    between = f" ({spread(point.ratio)})" if point.ratio and spread(point.ratio) else ""
    ratio = f"{times(point.ratio.value)}{between}" if point.ratio else NONE
    if point.quartiles is None:
        return ratio, counted(point.cost, "B")
    low, high = point.quartiles
    return ratio, f"{duration(point.cost)} ± {(high - low) / point.cost:.0%}"


def _growth(line: Line) -> Cell:
    return (NONE if line.exponent is None else f"{line.exponent:.2f}", "")


def _cheaper(line: Line) -> Cell:
    found = line.crossing
    if found is None:
        return ("baseline" if line.baseline else NONE), ""
    between = "" if found.low is None or found.high is None else f"{found.low:,.0f}–{found.high:,.0f}"
    return found.words, between
