"""Curves: how a training run went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LINE, SECOND, INK, PALE = "#0072B2", "#D55E00", "#333333", "#9A9A9A"

# Draws one of the two pictures: axes, epochs from 1, their rows.
Drawing = Callable[[Axes, Sequence[int], Sequence[Mapping[str, Any]]], None]

# Accuracies closer than this fill no picture: it would show chance, enlarged.
LEAST_POINTS = 5.0


def curves(history: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws accuracy and seconds, epoch by epoch, side by side in curves.png.

    Args:
        history: an epoch each, with `epoch` (from 0), `eval_top1`, `train_seconds` and, within these, `data_seconds`.
        folder: where the picture goes.

    Returns:
        The files; none for a run without epochs.
    """
    return _side_by_side(history, folder, _accuracy)


def _side_by_side(history: Sequence[Mapping[str, Any]], folder: Path, draw: Drawing) -> list[Path]:
    """What `draw` draws on the left, the seconds on the right."""
    if not history:
        return []
    figure = Figure(figsize=(9, 3.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [int(row["epoch"]) + 1 for row in history]
    draw(left, epochs, history)
    _seconds(right, epochs, *([float(row[key]) for row in history] for key in ("train_seconds", "data_seconds")))
    for axes in (left, right):
        _frame(axes)
    path = folder / "curves.png"
    figure.savefig(path)
    return [path]


def loss_curves(history: Sequence[Mapping[str, Any]], folder: Path, *, average: str = "mean") -> list[Path]:
    """Draws the losses of a pre-training and its seconds, epoch by epoch, side by side in curves.png.

    Args:
        history: an epoch each, with `epoch` (from 0), `train_loss`, `eval_loss`, `eval_baseline_loss`,
            `eval_mean_picture_loss`, `train_seconds` and `data_seconds`.
        folder: where the picture goes.
        average: what the constants are: "mean", or of an absolute error "median".

    Returns:
        The files; none for a run without epochs.
    """
    return _side_by_side(history, folder, partial(_losses, average=average))


def _losses(axes: Axes, epochs: Sequence[int], history: Sequence[Mapping[str, Any]], average: str) -> None:
    """With the lines of the two constants: below the lower one, something is learned of the images."""
    validation, training = ([float(row[key]) for row in history] for key in ("eval_loss", "train_loss"))
    _line(axes, epochs, validation, LINE, label="validation")
    _line(axes, epochs, training, SECOND, label="training", linestyle=(0, (4, 2)))
    constants = {key: float(history[-1][f"eval_{key}_loss"]) for key in ("baseline", "mean_picture")}
    for key, words in (("baseline", average), ("mean_picture", f"{average} picture")):
        axes.axhline(constants[key], color=PALE, linewidth=1.2, linestyle=":")
        axes.annotate(
            f"predicting the {words}",
            (1, constants[key]),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color=INK,
        )
    axes.set_ylim(0, 1.15 * max(*validation, *training, *constants.values()))
    axes.set_title(f"loss on hidden patches: {validation[-1]:.4f} (validation) at the end", loc="left", fontsize=10)
    axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK)


def _accuracy(axes: Axes, epochs: Sequence[int], history: Sequence[Mapping[str, Any]]) -> None:
    percent = [float(row["eval_top1"]) for row in history]
    _line(axes, epochs, percent, LINE)
    axes.set_title(f"top-1 on the validation part, %: {percent[-1]:.1f} at the end", loc="left", fontsize=10)
    middle, half = (max(percent) + min(percent)) / 2, (max(percent) - min(percent)) / 2
    half = max(1.1 * half, LEAST_POINTS / 2)
    # A little above 100 %, for a line along the edge would be cut.
    axes.set_ylim(max(middle - half, -1), min(middle + half, 101))


def _seconds(axes: Axes, epochs: Sequence[int], train: Sequence[float], data: Sequence[float]) -> None:
    """From 0 upwards: an epoch that takes a tenth more must not look like twice as long."""
    _line(axes, epochs, train, LINE, label="training")
    _line(axes, epochs, data, SECOND, label="of it, waiting for images", linestyle=(0, (4, 2)))
    axes.set_ylim(0, 1.3 * max(*train, *data, 1e-9))
    axes.set_title(f"seconds an epoch: {sum(train) / len(train):.3g} on average", loc="left", fontsize=10)
    axes.legend(loc="upper right", ncols=2, frameon=False, fontsize=9, labelcolor=INK)


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float], colour: str, **options: Any) -> None:
    # A line through one or a few points would show nothing, or hide where they are.
    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(epochs, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, **options)


def _frame(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel("epoch", color=INK)
