"""Scaling: time and memory against tokens on log axes, with the fitted powers; a picture for each kind of call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from saccade.reports.figures import INK, PALE
from saccade.reports.layer_table import by_kind
from saccade.reports.layers import Line
from saccade.reports.numbers import counted, duration

# Okabe and Ito 2008, safe for the colour-blind; black is softmax's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
MARKERS = "o^svDXP<>"
SOFTMAX_LINES = ("-", "--", ":")

# Of the height of a picture: lines of text that are nearer would cover each other.
APART = 0.045


@dataclass(frozen=True)
class Axis:
    """What stands against tokens, and the name of its picture."""

    name: str
    label: str
    memory: bool

    def text(self, cost: int | float) -> str:
        """A cost at the axis."""
        return counted(cost, "B") if self.memory else duration(cost)


AXES = (
    Axis("time-tokens", "time of a call, median and quartiles", memory=False),
    Axis("memory-tokens", "bytes above what was there before", memory=True),
)


def scaling_pictures(found: Sequence[Line], folder: Path) -> list[Path]:
    """Draws time-tokens and memory-tokens, each as .png and .svg.

    Returns:
        The files; none where nothing was measured at two sizes.
    """
    return [path for axis in AXES for path in _picture(axis, found, folder)]


def _picture(axis: Axis, found: Sequence[Line], folder: Path) -> list[Path]:
    measured = {
        title: drawn
        for title, lines in by_kind(line for line in found if (line.act == "peak") == axis.memory).items()
        if (drawn := [line for line in lines if line.points])
        and len({size for line in drawn for size in line.points}) > 1
    }
    if not measured:
        return []
    columns = min(2, len(measured))
    rows = -(-len(measured) // columns)
    figure = Figure(figsize=(5.6 * columns + 2.4, 4 * rows), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    signs = _signs([line for lines in measured.values() for line in lines])
    for place, (title, lines) in enumerate(measured.items(), start=1):
        _draw(figure.add_subplot(rows, columns, place), axis, title, lines, signs)
    _legend(figure, signs)
    paths = [folder / f"{axis.name}.{kind}" for kind in ("png", "svg")]
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _signs(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """How each attention is drawn, everywhere alike: softmax black, its kernels told apart by the stroke."""
    strokes, colours, markers = cycle(SOFTMAX_LINES), cycle(COLOURS), cycle(MARKERS)
    signs: dict[str, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: not line.baseline):
        if line.attention in signs:
            continue
        if line.baseline:
            signs[line.attention] = {"color": "black", "linestyle": next(strokes), "linewidth": 2.2, "zorder": 3}
        else:
            signs[line.attention] = {
                "color": next(colours),
                "linestyle": "-",
                "linewidth": 1.4,
                "marker": next(markers),
            }
    return signs


def _draw(axes: Axes, axis: Axis, title: str, lines: Sequence[Line], signs: Mapping[str, dict[str, Any]]) -> None:
    for line in lines:
        costs = [point.cost for point in line.points.values()]
        axes.plot(list(line.points), costs, label=line.attention, markersize=5, **signs[line.attention])
        ends = [point.quartiles or (point.cost, point.cost) for point in line.points.values()]
        low, high = zip(*ends, strict=True)
        axes.vlines(list(line.points), low, high, color=signs[line.attention]["color"], linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = sorted({tokens for line in lines for tokens in line.points})
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: axis.text(cost)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color=PALE, linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel("tokens", color=INK)
    axes.set_ylabel(axis.label, color=INK)
    axes.set_title(title, loc="left", fontsize=11)
    _fits(axes, lines, signs)


def _fits(axes: Axes, lines: Sequence[Line], signs: Mapping[str, dict[str, Any]]) -> None:
    """The fitted powers as thin lines, each named where it ends."""
    grown = [(line, line.growth) for line in lines]
    fits = sorted(((one.cost(one.tokens[-1]), one, line) for line, one in grown if one), key=lambda fit: fit[0])
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((one.tokens[-1], cost))[1] for cost, one, _ in fits]
    for (_, one, line), height in zip(fits, apart(heights, APART), strict=True):
        colour = signs[line.attention]["color"]
        ends = (one.tokens[0], one.tokens[-1])
        axes.plot(ends, [one.cost(end) for end in ends], color=colour, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
        axes.annotate(
            f"N^{one}", (1.01, height), xycoords="axes fraction", color=colour, fontsize=7, va="center"
        ).set_parse_math(False)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Ascending heights, moved up where they are nearer than that to the one below."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    return moved


def _legend(figure: Figure, signs: Mapping[str, object]) -> None:
    """One for all pictures: whoever is in none of the first may be in a later one."""
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    legend = figure.legend(
        handles=[handles[name] for name in signs],
        loc="outside right upper",
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        # A name is text, whatever signs are in it.
        text.set_parse_math(False)
