"""Rivals: whether a mechanism beats the softmax models that cost as little by other means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from saccade.record import Record
from saccade.reports.fairness.finding import listed
from saccade.reports.function import function_of
from saccade.reports.numbers import interval, signed, times
from saccade.reports.ratios import EQUAL
from saccade.reports.rows import Row
from saccade.reports.statistics import Difference
from saccade.reports.trained import Trained, differences_to, trained_by_function


def with_rivals(found: Sequence[Row], records: Iterable[Record], margin_points: int | float) -> list[Row]:
    """The rows, mechanisms of the rivals' cost with their difference to the best rival.

    The procedure is that of the differences to softmax (`reports/statistics.py`), adjusted over these mechanisms.
    """
    most = _most(found)
    found = [_marked(row) if row.rival and _timed(row) and not _takes(row, most) else row for row in found]
    best = best_rival(found)
    if best is None:
        return found
    trained = trained_by_function(records)
    names = [function_of(row.attention_resolved) for row in (best, *of_that_cost(found))]
    differences = differences_to(names[0], _only(names, trained), float(margin_points))
    return [replace(row, to_rival=differences.get(function_of(row.attention_resolved))) for row in found]


def best_rival(found: Sequence[Row]) -> Row | None:
    """The rival that is best on the validation part, of those that take no longer than they may.

    Not on the test part: what was chosen there would look better than it is.
    """
    most = _most(found)
    judged = [row for row in found if row.rival and row.validation_percent is not None and not row.diverged]
    fit = [row for row in judged if _takes(row, most)]
    return max(fit, key=lambda row: row.validation_percent or 0.0, default=None)


def of_that_cost(found: Sequence[Row]) -> list[Row]:
    """The mechanisms that take no longer than rivals may."""
    most = _most(found)
    return [row for row in found if not row.rival and not row.baseline and _takes(row, most)]


def against_rivals(found: Sequence[Row]) -> list[str]:
    """Whether a mechanism beats the best rival, in sentences; none where no rivals were compared."""
    rivals = [row for row in found if row.rival]
    if not rivals:
        return []
    at = f"At the cost of {rivals[0].rival_of}"
    best = best_rival(found)
    if best is None:
        return [f"{at}, no other softmax model is left: none has finished, or none was as cheap when timed again."]
    told = (
        f"{at}, the best of the other softmax models, chosen on the validation part, is {best.attention} "
        f"({times(best.costs.ratios['step'].value)} × softmax's time; its accuracy to softmax's: "
        f"{best.verdict}{_points(best.difference)})"
    )
    return [f"{told}. {_verdicts([row for row in found if row.to_rival is not None])}."]


def _verdicts(rows: Sequence[Row]) -> str:
    """What the mechanisms of that cost are to it."""
    decided = [(row, row.to_rival) for row in rows if row.to_rival is not None]
    if not decided:
        return "No mechanism of that cost has finished its runs beside it"
    if all(difference.verdict is None for _, difference in decided):
        return f"Too few seeds say whether it is beaten: {_each(decided)}"
    beating = [(row, difference) for row, difference in decided if difference.verdict == "better"]
    others = [(row, difference) for row, difference in decided if difference.verdict != "better"]
    if beating:
        rest = f"; {_each(others)}" if others else ""
        return f"It is beaten: {_each(beating)}{rest}"
    if all(difference.verdict == "worse" for _, difference in others):
        return f"No mechanism beats it: {_each(others)}"
    return f"No mechanism was shown to beat it: {_each(others)}"


def _each(decided: Sequence[tuple[Row, Difference]]) -> str:
    """Each mechanism's verdict against the rival."""
    told = (
        " ".join(filter(None, (row.attention, difference.verdict))) + _points(difference) for row, difference in decided
    )
    return listed(told, 20)


def _points(difference: Difference | None) -> str:
    """In brackets, with the interval where there is one."""
    if difference is None:
        return ""
    ends = f", 95 % interval {interval(difference)}" if interval(difference) else ""
    return f" ({signed(difference.points)} points{ends})"


def _marked(row: Row) -> Row:
    """A rival that took longer when all were timed than when it was chosen."""
    return replace(row, marks=(f"dearer than {row.rival_of}", *row.marks))


def _most(found: Sequence[Row]) -> float:
    """The longest step, over softmax's, that still counts as that of the mechanism whose cost is met; 0 for none."""
    of = next((row.rival_of for row in found if row.rival), "")
    return next((EQUAL * row.costs.ratios["step"].value for row in found if row.attention == of and _timed(row)), 0.0)


def _takes(row: Row, most: float) -> bool:
    return _timed(row) and row.costs.ratios["step"].value <= most


def _timed(row: Row) -> bool:
    return "step" in row.costs.ratios


def _only(names: Sequence[str], trained: Mapping[str, Trained]) -> dict[str, Trained]:
    return {name: trained[name] for name in names if name in trained}
