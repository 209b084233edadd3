"""Crossing: from how many tokens on a mechanism is cheaper than softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from saccade.reports.ratios import EQUAL, Ratio

EVERYWHERE, NOWHERE = "cheaper everywhere measured", "nowhere measured"
NEVER_DEARER, LIKE_SOFTMAX = "cheaper or equal everywhere measured", "equal everywhere measured"


@dataclass(frozen=True)
class Crossing:
    """Where a mechanism's cost meets softmax's.

    Attributes:
        tokens: where the ratio passes 1, ascending; interpolated between the two measured sizes around it, on log axes.
        words: from where on it is cheaper; or that it is so everywhere or nowhere among the sizes measured, or that
            some or all of its ratios lie within what counts as equal.
        low: where the ends of the ratios' intervals pass 1, the fewer tokens of the two; None where there are several
            crossings, or an end does not pass.
        high: the more tokens of the two.
    """

    tokens: tuple[float, ...]
    words: str
    low: float | None = None
    high: float | None = None


def crossing(tokens: Sequence[int], ratios: Sequence[Ratio]) -> Crossing:
    """Where the ratios pass 1.

    Args:
        tokens: sizes, ascending, each above 0.
        ratios: to softmax, one for each.

    Raises:
        ValueError: no sizes, not as many ratios, or sizes that do not ascend.
    """
    if not tokens or len(tokens) != len(ratios) or list(tokens) != sorted(set(tokens)):
        raise ValueError(f"{len(ratios)} ratios at {list(tokens)} tokens: needs one for each of some ascending sizes")
    values = [ratio.value for ratio in ratios]
    places = _crossings(tokens, values)
    if not places:
        return Crossing((), _without(values))
    first, last = values[0] < 1, values[-1] < 1
    words = _stretches([_rounded(place) for place in places], first)
    if len(places) > 1:
        return Crossing(tuple(places), words)
    ends = [_only(tokens, [getattr(ratio, end) for ratio in ratios], last) for end in ("low", "high")]
    known = sorted(end for end in ends if end is not None)
    return Crossing(tuple(places), words, *(known if len(known) == len(ends) else ()))


def _crossings(tokens: Sequence[int], values: Sequence[float]) -> list[float]:
    """Every place where the values pass 1, straight lines on log axes between them."""
    sizes, heights = [log(size) for size in tokens], [log(value) for value in values]
    places = []
    for i in range(len(sizes) - 1):
        if (heights[i] < 0) != (heights[i + 1] < 0):
            share = heights[i] / (heights[i] - heights[i + 1])
            places.append(exp(sizes[i] + share * (sizes[i + 1] - sizes[i])))
    return places


def _only(tokens: Sequence[int], values: Sequence[float | None], cheaper_at_the_end: bool) -> float | None:
    """The one crossing of an end of the intervals in the same direction; None where there is not exactly one."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    places = _crossings(tokens, known)
    return places[0] if len(places) == 1 and (known[-1] < 1) == cheaper_at_the_end else None


def _without(values: Sequence[float]) -> str:
    if all(1 / EQUAL <= value <= EQUAL for value in values):
        return LIKE_SOFTMAX
    if values[0] >= 1:
        return NOWHERE
    return EVERYWHERE if max(values) < 1 / EQUAL else NEVER_DEARER


def _stretches(places: Sequence[str], cheaper_first: bool) -> str:
    """Where it is cheaper: "up to 49", "from 1,240", "from 49 to 810 and from 2,100"."""
    parts = [f"up to {places[0]}"] if cheaper_first else []
    rest = list(places[1:] if cheaper_first else places)
    while rest:
        start, end = rest[0], rest[1:2]
        parts.append(f"from {start} to {end[0]}" if end else f"from {start}")
        rest = rest[2:]
    return " and ".join(parts)


def _rounded(tokens: float) -> str:
    """To two digits above a hundred: the interpolation knows no more."""
    digits = max(0, len(str(int(tokens))) - 2)
    return f"{round(tokens / 10**digits) * 10**digits:,}"
