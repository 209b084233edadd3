"""The doctor: what makes a comparison unfair or pointless, found in its plan and in its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from saccade.record import Record
from saccade.reports.contenders import apart, by_scale
from saccade.reports.fairness.baseline_rules import BASELINE_RULES
from saccade.reports.fairness.batch_rules import BATCH_RULES
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.cost_rules import COST_RULES
from saccade.reports.fairness.finding import Finding, at_scale, by_severity
from saccade.reports.fairness.plan import PlanFacts
from saccade.reports.fairness.plan_rules import PLAN_RULES
from saccade.reports.fairness.rule import Rule
from saccade.reports.fairness.sameness_rules import SAMENESS_RULES
from saccade.reports.fairness.size_rules import SIZE_RULES
from saccade.reports.fairness.token_rules import TOKEN_RULES
from saccade.reports.fairness.training_rules import TRAINING_RULES
from saccade.reports.ratios import EQUAL

BEFORE: tuple[Rule, ...] = (*SIZE_RULES, *PLAN_RULES)
"""What a comparison asks of its plan, before anything runs."""

AFTER: tuple[Rule, ...] = (*SAMENESS_RULES, *TOKEN_RULES, *TRAINING_RULES, *COST_RULES, *BASELINE_RULES, *BATCH_RULES)
"""What it asks of its records."""

RULES: tuple[Rule, ...] = (*BEFORE, *AFTER)
"""Every question, each once: what `examine` asks, reading from records what was planned."""


@dataclass(frozen=True)
class Diagnosis:
    """What an examination came to.

    Attributes:
        findings: errors first.
        asked: names of the rules that could be asked.
        lacking: of each of the others, the facts that it needs and no record has; silence on these is no clean bill.
    """

    findings: list[Finding] = field(default_factory=list)
    asked: tuple[str, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)


def before(plan: PlanFacts) -> list[Finding]:
    """What can be said before anything runs, errors first."""
    return _ask(BEFORE, Case(told=plan))


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


def after(records: Sequence[Record]) -> list[Finding]:
    """What the records of a comparison show, errors first; its plan was asked about before."""
    return _ask(AFTER, Case(records))


def examine(records: Iterable[Record]) -> list[Finding]:
    """Everything that records of whatever kind show, errors first.

    Example:
        examine(read_records(Path("runs/bench/records.jsonl")))

    Args:
        records: of a comparison, a bench, a search for the largest batch, or claims of others, as they are on disk.
    """
    return diagnose(records).findings


def diagnose(records: Iterable[Record]) -> Diagnosis:
    """The findings, and which rules could be asked to come to them."""
    found, lacking = _ask_all(RULES, records)
    return Diagnosis(by_severity(found), tuple(rule.name for rule in RULES if rule.name not in lacking), lacking)


def set_beside(folders: Sequence[Sequence[Record]]) -> list[Finding]:
    """What keeps the records of several folders from being compared with each other, where each alone is in order."""
    alone = {finding for records in folders for finding in _ask_all(SAMENESS_RULES, records)[0]}
    together = _ask_all(SAMENESS_RULES, [record for records in folders for record in records])[0]
    return by_severity(finding for finding in together if finding not in alone)


def _ask_all(rules: Sequence[Rule], records: Iterable[Record]) -> tuple[list[Finding], dict[str, str]]:
    """What the rules find at each scale, each thing once, and what those lack that could be asked at none."""
    scales = {scale: apart(some) for scale, some in by_scale(records).items() if some}
    trained = sum(any(one.kind == "accuracy" for one in some) for some in scales.values())
    cases = {scale: Case(some, scales=max(1, trained)) for scale, some in scales.items()} or {"": Case()}
    found: dict[Finding, None] = {}
    lacking: dict[str, str] = {}
    for rule in rules:
        answers = [_answer(rule, case) for case in cases.values()]
        if all(isinstance(answer, str) for answer in answers):
            lacking[rule.name] = str(answers[0])
        for scale, answer in zip(cases, answers, strict=True):
            for finding in () if isinstance(answer, str) else answer:
                # What holds at every scale is said once.
                if finding not in found:
                    found[at_scale(finding, scale)] = None
    return list(found), lacking


def _ask(rules: Sequence[Rule], case: Case) -> list[Finding]:
    """What the rules find, each thing once."""
    return by_severity(dict.fromkeys(finding for rule in rules for finding in rule.findings(case)))


def _answer(rule: Rule, case: Case) -> list[Finding] | str:
    """What the rule finds, or what it lacks to be asked.

    Records may be anybody's: where a value is of another kind than its name says, the rule cannot be asked, and the
    others still can.
    """
    try:
        return rule.lacking(case) or list(rule.findings(case))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return f"values that can be read (it stumbled: {type(error).__name__}: {error})"
