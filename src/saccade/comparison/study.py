"""The study: the runs and measurements of a comparison that are still missing, done one after the other and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from saccade.comparison.cells import Cell
from saccade.comparison.costs import Terms, baselines, measure_memory, measure_seconds, measured_alike
from saccade.comparison.pool import run_tasks
from saccade.comparison.question import Entry, Question
from saccade.comparison.store import Store
from saccade.comparison.tuning import MOST_EXTENSIONS, TUNING_SEED, best_rate, rate_grid, widened
from saccade.record import Record
from saccade.reports.contenders import name_of
from saccade.reports.numbers import duration
from saccade.reports.trained import trained_seconds
from saccade.training.progress import Progress

Rates = Mapping[str, float]
"""The learning rate of each mechanism and rival, by its key."""


class Study:
    """Does what is missing of a comparison.

    Attributes:
        failures: what went wrong outside of a record, a sentence each; the rest went on.
    """

    def __init__(
        self, question: Question, entries: Sequence[Entry], terms: Terms, store: Store, *, jobs: int, progress: Progress
    ) -> None:
        self.question = question
        self.entries = entries
        self.terms = terms
        self.store = store
        self.jobs = jobs
        self.progress = progress
        self.failures: list[str] = []

    def tune(self, count: int) -> list[Record]:
        """Trains every mechanism at every rate of the grid, wider while somebody's best is at its edge."""
        grid = rate_grid(self.question.recipe.train.lr, count)
        for _ in range(1 + MOST_EXTENSIONS):
            self._train(self._tuning_cells(grid), "tuning")
            tuned = [record for cell in self._tuning_cells(grid) if (record := self.store.of(cell)) is not None]
            wider = widened(grid, self.rates(tuned).values())
            # One rate has no inside.
            if count == 1 or wider == tuple(grid):
                break
            grid = wider
        return tuned

    def rates(self, tuned: Sequence[Record]) -> Rates:
        """Each mechanism's best rate among its tuning records; the recipe's where it has none."""
        best = {
            entry.key: best_rate([record for record in tuned if name_of(record) == entry.name])
            for entry in self.entries
        }
        return {key: self.question.recipe.train.lr if rate is None else rate for key, rate in best.items()}

    def train(self, rates: Rates, seeds: Iterable[int]) -> list[Record]:
        """Trains every mechanism at its rate with every seed; returns the records of those that have finished."""
        cells = [Cell("accuracy", entry, rates[entry.key], seed) for seed in seeds for entry in self.entries]
        self._train(cells, "training")
        return [record for cell in cells if (record := self.store.of(cell)) is not None]

    def measure(self) -> list[Record]:
        """Measures memory and seconds, alone on the machine; returns those of the asked mechanisms and of softmax.

        What an earlier command measured on other terms or of others stays in the folder and out of the answer.
        """
        measure_memory(self.question, self.terms, self.entries, self.store, self.jobs, self.progress)
        measure_seconds(self.question, self.terms, self.entries, self.store, self.progress)
        shown = [*baselines(self.question, self.terms), *self.entries]
        return [record for record in self.store.records() if measured_alike(record, self.terms, shown)]

    def _tuning_cells(self, grid: Sequence[float]) -> list[Cell]:
        return [Cell("tuning", entry, rate, TUNING_SEED) for rate in grid for entry in self.entries]

    def _train(self, cells: Sequence[Cell], what: Literal["training", "tuning"]) -> None:
        missing = [cell for cell in cells if self.store.of(cell) is None]
        if not missing:
            return
        where = f" at {self.question.scale}" if self.question.scale else ""
        kept = f"; {len(cells) - len(missing)} are there already" if len(missing) < len(cells) else ""
        self.progress.say(f"{what}{where}: {len(missing)} runs, {self.jobs} at a time{kept}")
        epochs = self.question.epochs(what)
        done = 0

        def finished(record: Record) -> None:
            nonlocal done
            done += 1
            self.store.write_all()
            self.progress.say(f"{done}/{len(missing)} {_outcome(record)}")

        tasks = [
            cell.task(
                self.question.recipe,
                self.store.cells,
                self.terms.device,
                self.terms.threads,
                self.jobs,
                self.question.then,
            )
            for cell in missing
        ]
        total = epochs * len(missing)
        self.failures += run_tasks(
            tasks, self.jobs, finished, lambda running: self.progress.advance(done * epochs + running, total)
        )


def _outcome(record: Record) -> str:
    """What a finished run came to, in a line."""
    assert record.recipe is not None
    name, scale = record.conditions.get("rival") or record.attention, record.conditions.get("scale")
    where = f" at {scale}" if scale else ""
    who = f"{name}{where}, rate {record.recipe['train']['lr']:.3g}, seed {record.seed}"
    if record.error is not None:
        return f"{who}: {record.error}"
    part = "test" if record.kind == "accuracy" else "validation"
    top1, seconds = record.values[f"{part}_top1_percent"], trained_seconds(record)
    return f"{who}: {top1:.2f} % on the {part} part, {duration(seconds)}"
