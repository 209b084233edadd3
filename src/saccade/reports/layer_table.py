"""Layer table: the lines of a bench as tables, one for each kind of call and set of terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from saccade.reports.columns import Cell, Column
from saccade.reports.growth import LEAST_SIZES, power
from saccade.reports.layers import Line, title
from saccade.reports.numbers import NONE, counted, duration, spread, times
from saccade.reports.ratios import EQUAL

LEGEND = (
    "× softmax = divided by the best softmax at that size in the same round, with its 95 % interval: below 1 is "
    f"cheaper, and {1 / EQUAL:.2f} to {EQUAL:.2f} counts as equal. Below it the median of the repeats ± their "
    "interquartile range, or the bytes above what was there before. A power of 1 is linear in the tokens, 2 quadratic: "
    "fitted to the upper half of the sizes, three at the least, with the 95 % interval that the repeats leave it, and "
    "the share r² of the differences that it explains. Where a mechanism crosses softmax is interpolated between "
    "measured sizes on log axes."
)


def by_kind(found: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of each kind of call on each set of terms, by its title; terms that all share are left out of it."""
    found = list(found)
    told = [line.setting.words() for line in found]
    shared = {about for about in ("batch_size", "dtype") if len({words[about] for words in told}) == 1}
    kinds: dict[str, list[Line]] = {}
    for line in found:
        words = [text for about, text in line.setting.words().items() if about not in shared]
        kinds.setdefault(", ".join([title(line.what, line.act, line.setting), *words]), []).append(line)
    return kinds


def columns(shown: Sequence[Line]) -> list[Column]:
    """The lines of one title as a table: ratio and interval, below them the median and its spread."""
    sizes = sorted({tokens for line in shown for tokens in (*line.points, *line.errors)})
    parts = [Column(("attention", ""), "attention", tuple(map(_name, shown)), True)]
    parts += [
        Column((f"{tokens:,} tokens", "× softmax"), f"{tokens}", tuple(_cell(line, tokens) for line in shown))
        for tokens in sizes
    ]
    if any(point.compile_seconds is not None for line in shown for point in line.points.values()):
        parts.append(Column(("compiled", "in"), "compiled", tuple(_compiled(line) for line in shown)))
    # From one size nothing can be said about another.
    if len(sizes) >= LEAST_SIZES:
        parts.append(Column(("grows by", "power of tokens"), "growth", tuple(_growth(line) for line in shown)))
    if len(sizes) > 1:
        parts.append(Column(("cheaper than", "softmax"), "growth", tuple(_cheaper(line) for line in shown), True))
    return parts


def _name(line: Line) -> Cell:
    return line.attention, "options chosen by size" if line.chosen else ""


def _cell(line: Line, tokens: int) -> Cell:
    if tokens not in line.points:
        return line.errors.get(tokens, NONE).partition(":")[0], ""
    point = line.points[tokens]
    between = f" ({spread(point.ratio)})" if point.ratio and spread(point.ratio) else ""
    ratio = f"{times(point.ratio.value)}{between}" if point.ratio else NONE
    if line.act == "peak":
        return ratio, counted(point.cost, "B")
    low, high = point.quartiles or (point.cost, point.cost)
    return ratio, f"{duration(point.cost)} ± {(high - low) / point.cost:.0%}"


def _compiled(line: Line) -> Cell:
    """The longest of all sizes."""
    took = [point.compile_seconds for point in line.points.values() if point.compile_seconds is not None]
    return (duration(max(took)) if took else NONE), ""


def _growth(line: Line) -> Cell:
    found = line.growth
    if found is None:
        return NONE, ""
    between = "" if found.low is None or found.high is None else f" ({power(found.low)} … {power(found.high)})"
    return f"{found}{between}", f"r² {found.r2:.3f}"


def _cheaper(line: Line) -> Cell:
    found = line.crossing
    if found is None:
        return ("baseline" if line.baseline else NONE), ""
    between = "" if found.low is None or found.high is None else f"{found.low:,.0f}–{found.high:,.0f}"
    return found.words, between
