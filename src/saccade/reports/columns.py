"""Columns: the table of a comparison before it is rendered; a cell is a line that counts and a smaller one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saccade.reports.course import Course
from saccade.reports.numbers import NONE, counted, duration, interval, many, signed, spread, times
from saccade.reports.ratios import Ratio
from saccade.reports.rivals import best_rival
from saccade.reports.rows import Row, best_softmax
from saccade.reports.statistics import MOST_SEEDS

Cell = tuple[str, str]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: two lines.
        group: columns that stay together where the table is cut; "attention" goes with each.
        cells: a row each.
        words: text, read from the left; else numbers, read from the right.
    """

    heading: Cell
    group: str
    cells: tuple[Cell, ...]
    words: bool = False

    @property
    def width(self) -> int:
        """Signs in its longest line."""
        return max(len(line) for cell in (self.heading, *self.cells) for text in cell for line in text.split("\n"))


def columns(rows: Sequence[Row], margin_points: int | float) -> list[Column]:
    """All columns of the table."""
    batches = {row.costs.inference_batch for row in rows if row.costs.inference_batch}
    batch = f"batch {batches.pop()}" if len(batches) == 1 else "in batches"

    def column(heading: Cell, group: str, cell: Callable[[Row], Cell], words: bool = False) -> Column:
        return Column(heading, group, tuple(cell(row) for row in rows), words)

    course = rows[0].course if rows else Course()
    pretrained = [
        column((f"{course.reference} %", "points added"), "pre-training", _added),
        column(("loss", f"{course.average} picture"), "pre-training", _loss),
    ]
    return [
        column(("attention", ""), "attention", _attention, words=True),
        column((f"{course.accuracy} %", "seeds"), "accuracy", _accuracy),
        column(("to softmax", "points, 95 %"), "accuracy", _difference),
        column(("verdict", f"margin {margin_points:g}"), "accuracy", _verdict, words=True),
        *([column(("to rival", "points, 95 %"), "rival", _to_rival)] if any(row.to_rival for row in rows) else []),
        *(pretrained if course.judged_by else []),
        column(("training", "rate"), "training", _training),
        column(("tuning", "points lost"), "training", _tuning),
        column(("parameters", "FLOPs"), "cost", _size),
        column(("step ×", "95 %"), "cost", lambda row: _ratio(row, "step")),
        column(("infer ×", "batch 1"), "cost", lambda row: _ratio(row, "latency")),
        column(("infer ×", batch), "cost", lambda row: _ratio(row, "inference")),
        column(("memory ×", "peak"), "cost", _memory),
    ]


def legend(rows: Sequence[Row]) -> str:
    """What the table's numbers are, in a few sentences."""
    kernels = {act: best_softmax(rows, act) for act in ("step", "latency", "inference")}
    names = {act: row.costs.kernel or row.attention for act, row in kernels.items() if row}
    one = set(names.values())
    which = (
        f"the {one.pop()} kernel" if len(one) == 1 else ", ".join(f"{name} for {act}" for act, name in names.items())
    )
    course = rows[0].course if rows else Course()
    sentences = [
        _of_pretraining(course),
        f"× = divided by the best softmax of the column ({which}) in the same timing round: below 1 is cheaper."
        if names
        else "",
        "Points lost = what a rate of the grid loses to the best one, on average."
        if any(row.sensitivity_points is not None for row in rows)
        else "",
        "Unfused = many kernels one after another, against a softmax that is one."
        if any("unfused" in row.marks for row in rows)
        else "",
        *_of_rivals(rows),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _of_pretraining(course: Course) -> str:
    if not course.judged_by:
        return ""
    same = "the same probe of an encoder" if course.reference == "random" else "the same fine-tuning of an encoder"
    return (
        f"{course.reference.capitalize()} % = {same} with its first weights, and what pre-training adds to it. "
        "Loss = of reconstruction on the test images, and what predicting the training part's "
        f"{course.average} picture gives: nothing is ranked by it. "
        "A step is one of pre-training; infer = the encoder's features of whole images."
    )


def _of_rivals(rows: Sequence[Row]) -> list[str]:
    """Which rows are no mechanisms, and what they are held against."""
    of = next((row.rival_of for row in rows if row.rival), None)
    if of is None:
        return []
    best = best_rival(rows)
    against = f" To rival = to {best.attention}, the best of them on the validation part." if best else ""
    return [
        f"Rival = a softmax model of another shape, chosen so that its step takes no longer than that of {of}.{against}"
    ]


def _attention(row: Row) -> Cell:
    return row.attention, ", ".join([*(["rival"] if row.rival else []), *row.marks])


def _to_rival(row: Row) -> Cell:
    if row.to_rival is None:
        return NONE, ""
    return f"{signed(row.to_rival.points)} {row.to_rival.verdict or ''}".rstrip(), interval(row.to_rival)


def _added(row: Row) -> Cell:
    if row.reference_percent is None:
        return NONE, ""
    added = None if row.mean_percent is None else row.mean_percent - row.reference_percent
    return f"{row.reference_percent:.1f}", "" if added is None else signed(added)


def _loss(row: Row) -> Cell:
    return (
        f"{row.loss:.3f}" if row.loss is not None else NONE,
        f"{row.mean_picture_loss:.3f}" if row.mean_picture_loss is not None else "",
    )


def _accuracy(row: Row) -> Cell:
    if row.mean_percent is None:
        return NONE, ""
    low, high = min(row.accuracy_percent.values()), max(row.accuracy_percent.values())
    return f"{row.mean_percent:.1f}", f"{low:.1f}–{high:.1f}" if len(row.accuracy_percent) > 1 else ""


def _difference(row: Row) -> Cell:
    return (signed(row.difference.points), interval(row.difference)) if row.difference else (NONE, "")


def _verdict(row: Row) -> Cell:
    needed = row.difference.seeds_needed if row.difference else None
    return row.verdict, "" if needed is None else _short(needed)


def _short(needed: int | float) -> str:
    if needed == float("inf"):
        return "test set too small"
    return f"{'over ' if needed > MOST_SEEDS else '~'}{min(needed, MOST_SEEDS):,.0f} seeds"


def _training(row: Row) -> Cell:
    return (
        duration(row.train_seconds) if row.train_seconds is not None else NONE,
        f"{row.lr:.3g}" if row.lr is not None else "",
    )


def _tuning(row: Row) -> Cell:
    if not row.tuning_runs:
        return NONE, ""
    lost = row.sensitivity_points
    return many(row.tuning_runs, "run"), "" if lost is None else f"{lost:.1f}"


def _size(row: Row) -> Cell:
    return (
        counted(row.parameters) if row.parameters is not None else NONE,
        counted(row.flops_per_image) if row.flops_per_image is not None else "",
    )


def _ratio(row: Row, act: str) -> Cell:
    ratio: Ratio | None = row.costs.ratios.get(act)
    return (times(ratio.value), spread(ratio)) if ratio else (NONE, "")


def _memory(row: Row) -> Cell:
    return (
        times(row.costs.peak_ratio) if row.costs.peak_ratio is not None else NONE,
        counted(row.costs.peak_bytes, "B") if row.costs.peak_bytes is not None else "",
    )
