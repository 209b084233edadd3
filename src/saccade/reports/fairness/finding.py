"""Finding: what the doctor saw in a comparison, why it matters, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]

ORDER: tuple[Severity, ...] = ("error", "warning", "note")
"""A conclusion would be wrong; it would rest on less than it seems; a reader should know."""


@dataclass(frozen=True)
class Finding:
    """One thing that confounds a comparison or cannot matter at its size.

    Attributes:
        rule: name of the rule.
        severity: one of `ORDER`.
        sentence: what was seen, and why it matters.
        remedy: what to do; empty where nothing can be done.
    """

    rule: str
    severity: Severity
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" Remedy: {self.remedy}." if self.remedy else ""
        return f"{self.severity}: {self.rule}: {self.sentence}.{remedy}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; within a severity in the order of the rules."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def listed(names: Iterable[str], most: int = 6) -> str:
    """The names with commas, the end of a long list counted."""
    names = list(dict.fromkeys(names))
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def at_scale(finding: Finding, scale: str) -> Finding:
    """The finding, which says at which size of the model it was made; that which was asked for has no name."""
    return replace(finding, sentence=f"at {scale}, {finding.sentence}") if scale else finding
