"""A part of a comparison, which is all of it at one scale: planned before anything runs, then done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.comparison.costs import Terms
from saccade.comparison.fit import require_fit
from saccade.comparison.plan import plan_facts
from saccade.comparison.question import Entry, Question
from saccade.comparison.rivals import Found, aims, find_rivals
from saccade.comparison.store import Store
from saccade.comparison.study import Study
from saccade.comparison.tuning import read_rates
from saccade.measurement.operations import operations_record
from saccade.record import Record
from saccade.reports.fairness import before, stop
from saccade.reports.fairness.finding import Finding, at_scale
from saccade.reports.fairness.plan import PlanFacts
from saccade.training.progress import Progress
from saccade.training.recipe import with_values


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is wanted of every part.

    Attributes:
        terms: of the measurements.
        seeds: runs of each.
        tune: learning rates tried for each; 0 for none.
        rates: folder of a tuned comparison; None for none.
        scales: how many parts there are.
        rivals: whether rivals are compared, too.
        rivals_of: whose cost they must meet; None for the cheapest mechanism.
        jobs: training runs at a time.
    """

    terms: Terms
    seeds: int
    tune: int
    rates: Path | None
    scales: int
    rivals: bool
    rivals_of: str | None
    jobs: int


@dataclass(frozen=True)
class Done:
    """What a part came to.

    Attributes:
        records: of what was asked for.
        findings: about its rivals.
        failures: runs that could not be finished, a sentence each.
    """

    records: list[Record]
    findings: list[Finding]
    failures: list[str]


@dataclass(frozen=True)
class Part:
    """One scale.

    Attributes:
        question: model, recipe and images.
        entries: the mechanisms, softmax first.
        operations: their declared counts.
        tuned: records of rates tuned beforehand.
        plan: for the doctor.
        aims: the mechanisms of which one gives the rivals' cost; empty where no rivals are wanted.
        asked: what is wanted of it.
    """

    question: Question
    entries: list[Entry]
    operations: list[Record]
    tuned: list[Record]
    plan: PlanFacts
    aims: list[Entry]
    asked: Asked

    def stop(self) -> Finding | None:
        """Why it should not start."""
        nothing = stop(self.plan)
        return None if nothing is None else at_scale(nothing, self.question.scale)

    def run(self, store: Store, progress: Progress) -> Done:
        """Does what is missing: rivals are chosen, all are tuned and trained, then measured."""
        question, asked = self.question, self.asked
        found = find_rivals(question, self.aims, asked.terms, store, progress) if self.aims else Found((), "")
        findings = [at_scale(Finding("rivals", "note", found.told), question.scale)] if found.told else []
        for finding in findings:
            progress.say(str(finding))
        rivals = list(found.entries)
        known = [*self.tuned, *_rates(question, rivals, asked)]
        entries = [*self.entries, *rivals]
        operations = [*self.operations, *(count(question, entry, asked.terms) for entry in rivals)]
        for entry, record in zip(entries, operations, strict=True):
            store.add_operations(entry.key, record)
        study = Study(question, entries, asked.terms, store, jobs=asked.jobs, progress=progress)
        tuned = study.tune(asked.tune) if asked.tune else known
        trained = study.train(study.rates(tuned), range(asked.seeds))
        return Done([*operations, *tuned, *trained, *study.measure()], findings, study.failures)


def plan_part(question: Question, attentions: Sequence[str], asked: Asked, say: Callable[[str], None]) -> Part:
    """Plans everything at the question's scale.

    Raises:
        ValueError: a mechanism that makes no sense there, rates that do not hold there, or rivals of nothing.
    """
    # Notes on what was written are the same at every scale.
    entries = question.entries(attentions, (lambda line: None) if question.scale else say)
    if question.scale:
        _require_fits(question, entries)
    operations = [count(question, entry, asked.terms) for entry in entries]
    plan = plan_facts(
        question,
        entries,
        operations,
        asked.terms,
        seeds=asked.seeds,
        tune=asked.tune,
        rates=asked.rates,
        scales=asked.scales,
    )
    wanted = aims(question, entries, asked.rivals_of) if asked.rivals else []
    return Part(question, entries, operations, _rates(question, entries, asked), plan, wanted, asked)


def findings_of(parts: Sequence[Part]) -> list[Finding]:
    """What the doctor says before anything runs; what holds at every scale is said once."""
    found: dict[Finding, None] = {}
    for part in parts:
        for finding in before(part.plan):
            if finding not in found:
                found[at_scale(finding, part.question.scale)] = None
    return list(found)


def count(question: Question, entry: Entry, terms: Terms) -> Record:
    """The declared counts of an entry's model; a rival's also say whose cost it meets, which may change."""
    of = {"rival_of": entry.rival_of} if entry.rival else {}
    return replace(operations_record(terms.subject(question, entry)), conditions={**entry.marks, **of})


def _require_fits(question: Question, entries: Sequence[Entry]) -> None:
    for entry in entries:
        try:
            require_fit(with_values(question.recipe, {"model.attention": entry.attention}))
        except ValueError as error:
            raise ValueError(f"at {question.scale}, {error}; leave it out, or --scales") from error


def _rates(question: Question, entries: Sequence[Entry], asked: Asked) -> list[Record]:
    """The tuning records of another comparison's folder, where one is named."""
    if asked.rates is None or not entries:
        return []
    return read_rates(asked.rates, like=question.example(), wanted=[entry.name for entry in entries])
