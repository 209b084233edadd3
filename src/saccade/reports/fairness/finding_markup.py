"""Findings as Markdown: what a reader of a report must know before its numbers, the gravest first."""

from __future__ import annotations

from collections.abc import Iterable

from saccade.reports.fairness.finding import ORDER, Finding
from saccade.reports.markup import prose

_HEADINGS = {
    "error": "Nothing can be concluded before this is cured",
    "warning": "Read with care",
    "note": "Good to know",
}


def findings_markdown(findings: Iterable[Finding]) -> list[str]:
    """A heading and a list for each severity that is there, as paragraphs; none where nothing was found."""
    found = list(findings)
    parts = ["## Before reading on"] if found else []
    for severity in ORDER:
        own = [finding for finding in found if finding.severity == severity]
        if own:
            parts += [f"{_HEADINGS[severity]}:", "\n".join(_item(finding) for finding in own)]
    return parts


def _item(finding: Finding) -> str:
    remedy = f" *Remedy: {prose(finding.remedy)}.*" if finding.remedy else ""
    return f"* **{prose(finding.rule)}**: {prose(finding.sentence)}.{remedy}"
