"""Rule: one question that the doctor asks of a case, the facts that it needs, and what it makes of the answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import Finding, Severity


@dataclass(frozen=True)
class Need:
    """A fact without which a question cannot be asked.

    Attributes:
        words: what it is, for a sentence.
        there: whether a case has it.
    """

    words: str
    there: Callable[[Case], bool]


@dataclass(frozen=True)
class Seen:
    """What a question has brought to light.

    Attributes:
        sentence: what was seen, and why it matters.
        severity: where it is not the rule's first.
        remedy: where it is not the rule's.
    """

    sentence: str
    severity: Severity | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Rule:
    """One question.

    Attributes:
        name: what its findings are called.
        look: asks. Its docstring says in the first line what it looks for, and then who has gone wrong there.
        severities: of its findings; the first where `Seen` says nothing else.
        needs: facts without which it is not asked.
        remedy: what to do; empty where nothing can be done.
    """

    name: str
    look: Callable[[Case], Iterator[Seen]]
    severities: tuple[Severity, ...]
    needs: tuple[Need, ...]
    remedy: str = ""

    @property
    def what(self) -> str:
        """What it looks for."""
        return self._documented()[0]

    @property
    def fault(self) -> str:
        """Who has gone wrong there."""
        return " ".join(self._documented()[2].split())

    def lacking(self, case: Case) -> str:
        """The facts that it needs and the case has not, in words; empty where it can be asked."""
        return " and ".join(need.words for need in self.needs if not need.there(case))

    def findings(self, case: Case) -> Iterator[Finding]:
        """What it finds; nothing where it cannot be asked."""
        if self.lacking(case):
            return
        for seen in self.look(case):
            severity = seen.severity or self.severities[0]
            assert severity in self.severities, f"{self.name} calls itself {severity}"
            yield Finding(self.name, severity, seen.sentence, self.remedy if seen.remedy is None else seen.remedy)

    def _documented(self) -> tuple[str, str, str]:
        return (inspect.getdoc(self.look) or "").partition("\n\n")
