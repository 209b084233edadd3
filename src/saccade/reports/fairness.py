"""The doctor: what makes a comparison unfair or pointless, found in its plan and in its records."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.record import Record
from saccade.reports.cost_rules import COST_RULES
from saccade.reports.finding import Finding, by_severity
from saccade.reports.plan import PlanFacts
from saccade.reports.plan_rules import PLAN_RULES
from saccade.reports.ratios import EQUAL
from saccade.reports.rows import Row
from saccade.reports.training_rules import TRAINING_RULES


def before(plan: PlanFacts) -> list[Finding]:
    """What can be said before anything runs, errors first."""
    return by_severity(finding for rule in PLAN_RULES for finding in rule(plan))


def stop(plan: PlanFacts) -> Finding | None:
    """Why it should not start: no mechanism saves a tenth of the model's arithmetic; None where one does."""
    bounds = [*plan.bounds.items(), *plan.inference_bounds.items()]
    best, most = max(bounds, key=lambda one: one[1], default=("", EQUAL))
    if most >= EQUAL:
        return None
    return Finding(
        "nothing to gain",
        "error",
        f"at this size no mechanism saves a tenth of the model's arithmetic: the most is {most:.2f} x, with {best}",
        "more tokens (larger images, smaller patches), a narrower model, or --anyway",
    )


def after(records: Sequence[Record], rows: Sequence[Row]) -> list[Finding]:
    """What the records show, errors first."""
    return by_severity(finding for rule in (*TRAINING_RULES, *COST_RULES) for finding in rule(records, rows))
