"""Reproduction: an original measured again, its claims put before the doctor and its formulas before the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from saccade.attention.contract import CLAUSES, Verdict, check
from saccade.originals.original import Beside, Fault, Original, Part
from saccade.record import Record
from saccade.reports.fairness import examine
from saccade.reports.fairness.finding import Finding
from saccade.training.device import choose_device
from saccade.training.progress import Progress, Silent


@dataclass(frozen=True)
class Found:
    """A fault of an original, and what finds it.

    Attributes:
        fault: the fault.
        by: "doctor: <rule>" or "contract: <clauses>"; empty where nothing has found it.
        seen: in the words of whoever found it.
    """

    fault: Fault
    by: str = ""
    seen: str = ""

    def plain(self) -> dict[str, str]:
        """For JSON."""
        return {"fault": self.fault.what, "found_by": self.by, "seen": self.seen}


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What a reproduction came to, or has come to so far.

    Attributes:
        original: what is reproduced.
        claims: what it published, as records.
        findings: all that the doctor says of these claims, errors first.
        found: the faults that are known of it, each with what finds it.
        parts: what was measured here.
    """

    original: Original
    claims: Sequence[Record]
    findings: Sequence[Finding]
    found: Sequence[Found]
    parts: Sequence[Part] = ()

    @property
    def records(self) -> list[Record]:
        """Everything that was measured here."""
        return [record for part in self.parts for record in part.records]

    @property
    def beside(self) -> list[Beside]:
        """The rows of the table."""
        return [row for part in self.parts for row in part.beside]

    @property
    def scaled(self) -> list[str]:
        """What is smaller or otherwise here."""
        return list(dict.fromkeys(sentence for part in self.parts for sentence in part.scaled))

    @property
    def own(self) -> list[Finding]:
        """What the doctor says of the records that were made here."""
        return examine(self.records) if self.records else []

    def plain(self) -> Iterator[dict[str, Any]]:
        """For JSON, a line each: rows, what is scaled, faults, findings on its claims and on what was measured here."""
        for row in self.beside:
            yield {"kind": "row", **row.plain()}
        for sentence in self.scaled:
            yield {"kind": "scaled", "sentence": sentence}
        for found in self.found:
            yield {"kind": "fault", **found.plain()}
        for about, findings in (("original", self.findings), ("ours", self.own)):
            for finding in findings:
                yield {"kind": "finding", "about": about, **vars(finding)}


def reproduce(
    original: Original,
    given: Mapping[str, Any],
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    finished: Callable[[Reproduction], None] = lambda reproduction: None,
) -> Reproduction:
    """Puts an original's claims before the doctor and its formulas before the contract, then measures it again.

    Example:
        reproduce(find_original("003"), {}).beside

    Args:
        original: which.
        given: fields of `Asked`; what is None or missing is what suits a small machine.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: of each process; None for as many as torch takes.
        progress: is told what is done.
        finished: is given what there is after each step, to show and to keep it.

    Raises:
        ValueError: an option that means nothing for this original, a number below 1, or data or a device that is not
            there.
    """
    progress = progress or Silent()
    asked = original.asked(given, device=str(choose_device(device)), threads=threads)
    claims = original.claims()
    findings = examine(claims)
    done = Reproduction(
        original=original,
        claims=claims,
        findings=findings,
        found=faults_found(original, findings, progress=progress),
    )
    finished(done)
    for part in chain([original.counted()], original.measured(asked, progress)):
        done = replace(done, parts=[*done.parts, part])
        finished(done)
    return done


def faults_found(
    original: Original,
    findings: Iterable[Finding],
    clauses: Iterable[str] = tuple(CLAUSES),
    progress: Progress | None = None,
) -> list[Found]:
    """The faults of an original, each with the finding or the broken clauses that show it.

    Args:
        original: whose faults.
        findings: of the doctor, on its claims.
        clauses: of the contract that its formulas are held against.
        progress: is told which formula is being checked.
    """
    by_rule: dict[str, Finding] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, finding)
    found = []
    for fault in original.faults:
        if fault.attention is not None:
            (progress or Silent()).say(f"checking {fault.attention}")
            found.append(_broken(fault, check(fault.attention, clauses)))
        elif fault.rule in by_rule:
            found.append(Found(fault, f"doctor: {fault.rule}", by_rule[fault.rule].sentence))
        else:
            found.append(Found(fault))
    return found


def _broken(fault: Fault, verdicts: Sequence[Verdict]) -> Found:
    broken = {verdict.clause: verdict.sentence for verdict in verdicts if not verdict.ok}
    right = [clause for clause in fault.clauses if clause in broken]
    if not right:
        return Found(fault)
    return Found(fault, f"contract: {', '.join(right)}", f"{fault.attention} breaks {right[0]}: {broken[right[0]]}")
