"""Scale: what a comparison found at one size of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saccade.reports.basis import Basis
from saccade.reports.fairness.finding import Finding
from saccade.reports.rows import Row


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the model.

    Attributes:
        name: "twice the width", "four times the tokens"; "" for the size that was asked for.
        rows: of the comparison there.
        basis: what they rest on.
        findings: of the doctor.
    """

    name: str = ""
    rows: Sequence[Row]
    basis: Basis
    findings: Sequence[Finding] = ()

    @property
    def where(self) -> str:
        """For a sentence."""
        return f"at {self.name}" if self.name else "at the size asked for"
