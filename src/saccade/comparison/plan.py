"""The plan of a comparison in the doctor's terms: what is known before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.comparison.costs import Terms, kernel_of
from saccade.comparison.question import Entry, Question
from saccade.record import Record
from saccade.reports.fairness.plan import Contender, PlanFacts


def plan_facts(
    question: Question,
    entries: Sequence[Entry],
    operations: Sequence[Record],
    terms: Terms,
    *,
    seeds: int,
    tune: int,
    rates: Path | None,
    scales: int,
) -> PlanFacts:
    """What the doctor's rules need; softmax is the first of `entries` and of their `operations`."""
    model = {"model": question.recipe.model.name, **question.recipe.model.options}
    softmax, *rivals = (
        Contender(
            attention=entry.attention,
            operations=record.values,
            model=model,
            kernel=kernel_of(question, terms, entry),
        )
        for entry, record in zip(entries, operations, strict=True)
    )
    return PlanFacts(
        softmax=softmax,
        rivals=tuple(rivals),
        seeds=seeds,
        tuning="here" if tune else "none" if rates is None else "beforehand",
        tuned_where="" if rates is None else str(rates),
        data=question.data,
        device=terms.device,
        batch_size=terms.batch_size,
        scales=scales,
        init="scratch" if question.then is None else "mae",
        fixed=() if question.decoder_attention is None else ("decoder",),
    )
