"""Numbers as people read them: a true minus, a sensible number of digits, a unit."""

from __future__ import annotations

from saccade.reports.ratios import Ratio
from saccade.reports.statistics import Difference

NONE = "–"


def many(count: int, thing: str) -> str:
    """1 and "seed" as "1 seed", 3 and "seed" as "3 seeds"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def signed(points: int | float) -> str:
    """-0.93 as "−0.9", 0.43 as "+0.4"."""
    return f"{points:+.1f}".replace("-", "−")


def interval(difference: Difference) -> str:
    """The ends of a difference's interval; empty where there is none."""
    if difference.low_points is None or difference.high_points is None:
        return ""
    return f"{signed(difference.low_points)} … {signed(difference.high_points)}"


def times(value: int | float) -> str:
    """A ratio: 0.0065 as "0.0065", 0.812 as "0.81", 12.34 as "12.3"."""
    if 0 < value < 0.1:
        return f"{value:#.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def spread(ratio: Ratio) -> str:
    """The ends of a ratio's interval; empty where there is none, or softmax is divided by itself."""
    return (
        ""
        if ratio.low is None or ratio.high is None or ratio.low == ratio.high
        else f"{times(ratio.low)}–{times(ratio.high)}"
    )


def counted(value: int | float, unit: str = "") -> str:
    """28298 as "28.3 k", with the unit behind the prefix."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # What would be rounded to the next prefix's 1.00 has that one.
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {prefix}{unit}"
    return f"{three_digits(value)} {unit}".strip()


def three_digits(value: int | float) -> str:
    """4.0 as "4.00", 400.0 as "400": columns of numbers line up."""
    return f"{value:#.3g}".rstrip(".")


def duration(seconds: int | float) -> str:
    """0.0000123 as "12.3 µs", 0.0123 as "12.3 ms", 75 as "75 s", 5400 as "1.5 h"."""
    if seconds < 1e-3:
        return f"{three_digits(seconds * 1e6)} µs"
    if seconds < 1:
        return f"{three_digits(seconds * 1e3)} ms"
    if seconds < 600:
        return f"{three_digits(seconds)} s"
    return f"{three_digits(seconds / 60)} min" if seconds < 5400 else f"{three_digits(seconds / 3600)} h"
