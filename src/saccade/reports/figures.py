"""Figures: accuracy against cost of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from saccade.reports.basis import Basis
from saccade.reports.numbers import many
from saccade.reports.placement import distance_to, place_labels
from saccade.reports.rows import Row
from saccade.reports.statistics import LEAST_SEEDS

# Told apart by shape, by filling, and by lightness in grey; colours of Okabe and Ito 2008, safe for the colour-blind.
MARKERS = {
    "baseline": ("D", "#000000", True),
    "better": ("^", "#0072B2", True),
    "not worse": ("o", "#0072B2", True),
    "undecided": ("o", "#7A7A7A", False),
    "worse": ("v", "#D55E00", True),
    "too few seeds": ("s", "#7A7A7A", False),
    "incomplete": ("s", "#7A7A7A", False),
    "diverged": ("X", "#D55E00", False),
    "rival": ("P", "#009E73", False),
}
INK, PALE = "#333333", "#9A9A9A"
LABEL_POINTS = 9

# A label farther from its point gets a line to it.
FAR_PIXELS = 25.0

TICKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0)


def accuracy_cost(rows: Sequence[Row], basis: Basis, folder: Path) -> list[Path]:
    """Draws accuracy against the time of a training step, as accuracy-cost.png and .svg.

    Returns:
        The files; none where no mechanism has both an accuracy and a time.
    """
    shown = [row for row in rows if row.mean_percent is not None and "step" in row.costs.ratios]
    if not shown:
        return []
    figure = Figure(figsize=(8, 5.2), dpi=160, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _lines(axes, shown, basis)
    for row in shown:
        _point(axes, row, shown)
    _axes(axes, shown)
    _words(figure, axes, shown, basis)
    # The layout decides where everything is; it must have been made before labels look for room.
    canvas.draw()
    figure.set_layout_engine("none")
    _labels(axes, shown, basis)
    paths = [folder / f"accuracy-cost.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _lines(axes: Axes, shown: Sequence[Row], basis: Basis) -> None:
    """Softmax's accuracy and time, and the margin below."""
    softmax = _softmax_percent(shown)
    if softmax is None:
        return
    axes.axhline(softmax, color=PALE, linewidth=0.8, zorder=0)
    axes.axvline(1.0, color=PALE, linewidth=0.8, zorder=0)
    if any(row.difference and row.difference.verdict for row in shown):
        axes.axhline(softmax - basis.margin_points, color=PALE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)


def _point(axes: Axes, row: Row, shown: Sequence[Row]) -> None:
    marker, colour, filled = MARKERS.get(_sign(row), MARKERS["incomplete"])
    (left, right), (low, high) = _bars(row, shown)
    x, y = _place(row)
    axes.errorbar(
        x,
        y,
        xerr=[[x - left], [right - x]],
        yerr=[[y - low], [high - y]],
        fmt=marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=8,
        markeredgewidth=1.4,
        elinewidth=1.2,
        capsize=0,
        zorder=3 if row.baseline else 2,
    )


def _sign(row: Row) -> str:
    """What its marker stands for."""
    return "rival" if row.rival else row.verdict


def _place(row: Row) -> tuple[float, float]:
    assert row.mean_percent is not None
    return row.costs.ratios["step"].value, row.mean_percent


def _bars(row: Row, shown: Sequence[Row]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of the interval of its cost, and of its difference to softmax, set at softmax's accuracy."""
    x, y = _place(row)
    ratio, difference, softmax = row.costs.ratios["step"], row.difference, _softmax_percent(shown)
    across = (x if ratio.low is None else ratio.low, x if ratio.high is None else ratio.high)
    if difference is None or difference.low_points is None or difference.high_points is None or softmax is None:
        return across, (y, y)
    return across, (softmax + difference.low_points, softmax + difference.high_points)


def _softmax_percent(shown: Sequence[Row]) -> float | None:
    return next((row.mean_percent for row in shown if row.baseline), None)


def _axes(axes: Axes, shown: Sequence[Row]) -> None:
    axes.set_xscale("log")
    lows, highs = zip(*(_bars(row, shown)[0] for row in shown), strict=True)
    low, high = min(*lows, 0.8), max(*highs, 1.25)
    axes.set_xlim(low / 1.12, high * 1.12)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(low / 1.12, high * 1.12)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9)
    course = shown[0].course
    axes.set_xlabel(f"time of a {course.step}, × softmax's (left is cheaper)", color=INK)
    axes.set_ylabel(f"{course.accuracy} on the test set, %", color=INK)
    softmax = _softmax_percent(shown)
    if softmax is not None:
        _points_axis(axes, softmax)


def _points_axis(axes: Axes, softmax: float) -> None:
    """The same heights once more, as points above or below softmax."""

    def to_points(percent: Any) -> Any:
        return percent - softmax

    def to_percent(points: Any) -> Any:
        return points + softmax

    right = axes.secondary_yaxis("right", functions=(to_points, to_percent))
    right.set_ylabel("points to softmax", color=INK)
    right.tick_params(colors=INK, labelsize=9)
    right.spines["right"].set_color(PALE)
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))


def _ticks(low: float, high: float) -> list[float]:
    """At most eight or so of the round numbers between the two, 1 among them."""
    inside = [tick for tick in TICKS if low <= tick <= high]
    step = 1 + len(inside) // 9
    one = inside.index(1.0)
    return [tick for place, tick in enumerate(inside) if (place - one) % step == 0]


def _words(figure: Figure, axes: Axes, shown: Sequence[Row], basis: Basis) -> None:
    """What is shown, by which signs, and how sure it is."""
    title = f"{basis.model} on {basis.data.get('name', 'its data')}: accuracy against cost"
    axes.set_title(title, loc="left", fontsize=12, color="black", parse_math=False, pad=22)
    verdicts = dict.fromkeys(map(_sign, shown))
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            color=colour,
            markerfacecolor=colour if filled else "white",
            markersize=7,
            label={"baseline": "softmax", "rival": "softmax in another model"}.get(verdict, verdict),
        )
        for verdict, (marker, colour, filled) in MARKERS.items()
        if verdict in verdicts
    ]
    decided = any(row.difference and row.difference.verdict for row in shown)
    if decided:
        label = f"margin, {basis.margin_points:g} points below softmax"
        handles.append(Line2D([], [], color=PALE, linewidth=1, linestyle=(0, (4, 3)), label=label))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9, labelcolor=INK
    )
    of_accuracy = " and of the difference to softmax" if decided else f"; of the accuracy from {LEAST_SEEDS} seeds on"
    bars = f"bars: 95 % intervals of the cost{of_accuracy}"
    seeds = many(len(basis.seeds), "seed")
    axes.text(
        0, 1.015, f"{seeds}; {bars}", transform=axes.transAxes, fontsize=8.5, color=INK, va="bottom", parse_math=False
    )


def _labels(axes: Axes, shown: Sequence[Row], basis: Basis) -> None:
    """Each point's name, where there is room, with a line to the point where that is far."""
    points = axes.transData.transform([_place(row) for row in shown])
    sizes = np.array([_label_size(axes, row.attention) for row in shown])
    boxes = place_labels(points, sizes, _obstacles(axes, shown, basis), np.array(axes.bbox.extents))
    for row, point, box in zip(shown, points, boxes, strict=True):
        far = distance_to(box, point) > FAR_PIXELS
        axes.annotate(
            row.attention,
            _place(row),
            xytext=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
            textcoords="figure pixels",
            ha="center",
            va="center",
            fontsize=LABEL_POINTS,
            color="black",
            parse_math=False,
            zorder=1,
            # Where a line must pass behind a name, the name stays readable.
            path_effects=[withStroke(linewidth=3, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": PALE, "linewidth": 0.8, "shrinkB": 6} if far else None,
        )


def _label_size(axes: Axes, name: str) -> tuple[float, float]:
    """Width and height of a name in pixels."""
    text = axes.text(0, 0, name, fontsize=LABEL_POINTS, parse_math=False)
    extent = text.get_window_extent()
    text.remove()
    return extent.width, extent.height


def _obstacles(axes: Axes, shown: Sequence[Row], basis: Basis) -> Float[np.ndarray, "k 4"]:
    """The signs, the bars and the lines as boxes in pixels."""
    left, bottom, right, top = axes.bbox.extents
    boxes = []
    softmax = _softmax_percent(shown)
    if softmax is not None:
        x, y = axes.transData.transform((1.0, softmax))
        _, margin = axes.transData.transform((1.0, softmax - basis.margin_points))
        boxes += [(x - 1, bottom, x + 1, top), *((left, line - 1, right, line + 1) for line in (y, margin))]
    for row in shown:
        (low_x, high_x), (low_y, high_y) = _bars(row, shown)
        x, y = axes.transData.transform(_place(row))
        (low_x, low_y), (high_x, high_y) = axes.transData.transform([(low_x, low_y), (high_x, high_y)])
        boxes += [(x - 11, y - 11, x + 11, y + 11), (low_x, y - 3, high_x, y + 3), (x - 3, low_y, x + 3, high_y)]
    return np.array(boxes)
