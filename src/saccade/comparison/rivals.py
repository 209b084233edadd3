"""Rivals of a comparison: softmax models whose training step takes no longer than a mechanism's, found by the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saccade.comparison.costs import Terms, measured_alike, time_entries
from saccade.comparison.question import BASELINE, Entry, Question
from saccade.comparison.store import Store
from saccade.comparison.then import Task
from saccade.measurement.rivals import Rival, families, nearest
from saccade.record import Record
from saccade.reports.function import function_of
from saccade.reports.numbers import times
from saccade.reports.ratios import EQUAL, cost_ratio
from saccade.training.progress import Progress

# Turns of each in a hasty round: what is chosen by it is timed again with everybody else.
HASTY_REPEATS = 3

# Guesses of a family after which the best of them is taken.
MOST_ROUNDS = 4


@dataclass(frozen=True)
class Found:
    """The rivals of one mechanism.

    Attributes:
        entries: one of each family that has one.
        told: what was decided, in a sentence.
    """

    entries: tuple[Entry, ...]
    told: str


def require_rivals(task: Task, wanted: bool, aim: str | None) -> None:
    """Checks that the task has rivals.

    Raises:
        ValueError: it is that of masked autoencoders.
    """
    if (wanted or aim is not None) and task == "mae":
        raise ValueError(
            "--rivals with --task mae: larger patches and merged tokens change what is hidden and predicted, which is "
            "another task; leave --rivals out"
        )


def aims(question: Question, entries: Sequence[Entry], aim: str | None) -> list[Entry]:
    """The mechanisms of which one gives the cost that rivals must meet: the one that is named, or all of them.

    Raises:
        ValueError: it is softmax, or none that is compared; or nothing is.
    """
    mechanisms = [entry for entry in entries if function_of(entry.attention_resolved) != function_of(entries[0].name)]
    found = [one for one in mechanisms if aim is None or one.name == question.entry(aim).name]
    if not found:
        names = ", ".join(one.attention for one in mechanisms)
        asked = "--rivals" if aim is None else f"--rivals-of {aim}"
        raise ValueError(f"{asked}: a mechanism other than softmax gives the cost; compared are {names or 'none'}")
    return found


def find_rivals(
    question: Question, mechanisms: Sequence[Entry], terms: Terms, store: Store, progress: Progress
) -> Found:
    """Chooses, of each way to make softmax's model cheaper, the dearest whose step takes no longer than a mechanism's.

    Declared FLOPs say where to look; what counts is the measured step: at most `EQUAL` times that of the cheapest of
    the mechanisms. All are timed beside softmax in a few hasty rounds, which stay in the folder.

    Args:
        question: model and images.
        mechanisms: see `aims`.
        terms: of the measurements.
        store: the comparison's folder.
        progress: is told what is timed.
    """
    clock = _Hasty(question, replace(terms, repeats=HASTY_REPEATS), store, progress)
    steps = clock.steps(mechanisms)
    if not steps:
        return Found((), "no rivals were looked for, since no mechanism's step could be timed")
    cheapest = min((one for one in mechanisms if one.key in steps), key=lambda one: steps[one.key])
    target = steps[cheapest.key]
    at = f"a step of {cheapest.attention} takes {times(target)} × softmax's"
    if target > 1 / EQUAL:
        return Found((), f"{at}, which saves nothing to speak of: softmax as it is is its rival")
    searches = [
        _Search(way, family, target)
        for way, family in families(question.recipe.model.name, question.recipe.model.options).items()
    ]
    for _ in range(MOST_ROUNDS):
        guesses = [(search, guess) for search in searches if (guess := search.guess()) is not None]
        if not guesses:
            break
        tried = [question.rival(guess.label, cheapest, guess.changes) for _, guess in guesses]
        steps = clock.steps(tried)
        for (search, guess), entry in zip(guesses, tried, strict=True):
            search.tried[guess.label] = steps.get(entry.key, math.inf)
    best = {search: search.best() for search in searches}
    met = [f"{one.label} ({times(search.tried[one.label])} ×)" for search, one in best.items() if one]
    told = f"{at}; softmax models that take no longer: {', '.join(met) or 'none'}"
    if missing := [search.way for search, one in best.items() if not one]:
        told += f"; none was found by {', '.join(missing)}"
    return Found(tuple(question.rival(one.label, cheapest, one.changes) for one in best.values() if one), told)


@dataclass(eq=False)
class _Search:
    """One family and what the clock said of it so far.

    Attributes:
        way: its name.
        family: from the dearest to the cheapest, by declared FLOPs.
        target: the wanted step, over softmax's.
        tried: measured steps by label, over softmax's; infinite where one could not be measured.
    """

    way: str
    family: Sequence[Rival]
    target: float
    tried: dict[str, float] = field(default_factory=dict)

    def guess(self) -> Rival | None:
        """Which to time next; None where that would tell nothing more."""
        if not self.tried:
            return nearest(self.family, self.target)
        if any(self.target / EQUAL <= step <= self.target * EQUAL for step in self.tried.values()):
            return None
        dear = [one for one in self.family if self.tried.get(one.label, 0.0) > self.target * EQUAL][-1:]
        cheap = [one for one in self.family if self.tried.get(one.label, math.inf) <= self.target * EQUAL][:1]
        first = self.family.index(dear[0]) + 1 if dear else 0
        last = self.family.index(cheap[0]) if cheap else len(self.family)
        between = self.family[first:last]
        return nearest(between, self._share([*dear, *cheap])) if between else None

    def _share(self, known: Sequence[Rival]) -> float:
        """Where the target must lie: between the two that enclose it, or as far from the one as its step is."""
        measured = [(one.share, self.tried[one.label]) for one in known if self.tried[one.label] < math.inf]
        if len(measured) == 2:
            (above, longer), (below, shorter) = measured
            place = math.log(self.target / shorter) / math.log(longer / shorter)
            return below * (above / below) ** place
        return measured[0][0] * self.target / measured[0][1] if measured else known[0].share

    def best(self) -> Rival | None:
        """The dearest of those that take no longer."""
        fit = [one for one in self.family if self.tried.get(one.label, math.inf) <= self.target * EQUAL]
        return max(fit, key=lambda one: self.tried[one.label], default=None)


class _Hasty:
    """Steps beside softmax's, timed with few repeats; what the folder holds is not timed again."""

    def __init__(self, question: Question, terms: Terms, store: Store, progress: Progress) -> None:
        self.question = question
        self.terms = terms
        self.store = store
        self.progress = progress

    def steps(self, entries: Sequence[Entry]) -> dict[str, float]:
        """The step of each over softmax's, by key; without those that could not be timed."""
        missing = [entry for entry in entries if self._step(entry) is None]
        if missing:
            names = ", ".join(one.rival or one.attention for one in missing)
            self.progress.say(f"choosing rivals: a hasty timing of {names}")
            softmax = self.question.entry(BASELINE)
            self.store.add_calibration(time_entries(self.question, self.terms, [softmax, *missing], ["step"]))
        return {entry.key: step for entry in entries if (step := self._step(entry)) is not None}

    def _step(self, entry: Entry) -> float | None:
        """In the latest round in which it and softmax were timed."""
        for records in self.store.calibrated():
            own, softmax = self._of(records, entry), self._of(records, self.question.entry(BASELINE))
            if own and softmax:
                return cost_ratio(own.values["step_seconds"], softmax.values["step_seconds"]).value
        return None

    def _of(self, records: Sequence[Record], entry: Entry) -> Record | None:
        found = (one for one in records if one.error is None and measured_alike(one, self.terms, [entry]))
        return next(found, None)
