"""The report of a comparison, as report.md: what confounds it first, then what was found, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from saccade.record import write_whole
from saccade.reports.basis import Basis
from saccade.reports.course import Course
from saccade.reports.finding import ORDER, Finding, by_severity
from saccade.reports.markup import block, prose
from saccade.reports.rows import Row
from saccade.reports.statistics import LEAST_SEEDS
from saccade.reports.tables import markdown

_HEADINGS = {
    "error": "Nothing can be concluded before this is cured",
    "warning": "Read with care",
    "note": "Good to know",
}


def write_report(
    folder: Path,
    rows: Sequence[Row],
    findings: Iterable[Finding],
    sentence: str,
    basis: Basis,
    *,
    command: str = "",
    picture: Path | None = None,
) -> Path:
    """Writes report.md, whole or not at all.

    Args:
        folder: of the comparison; records.jsonl lies beside.
        rows: of the comparison.
        findings: of the doctor, before and after.
        sentence: the answer.
        basis: what it rests on.
        command: the line that made it.
        picture: a file in the folder.
    """
    parts = [
        f"# {prose(basis.model)} on {prose(str(basis.data.get('name', 'its data')))}: which attention?",
        *_findings(by_severity(findings)),
        "## What was found",
        markdown(rows, basis.margin_points).strip(),
        f"![accuracy against cost]({picture.name})" if picture else "",
        f"**{prose(sentence)}**",
        "## How it was found",
        block(command) if command else "",
        _course(basis.course),
        _decided(basis),
        _terms(basis),
        "Every number is computed from [records.jsonl](records.jsonl), a line each measurement.",
    ]
    path = folder / "report.md"
    write_whole(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _findings(findings: Sequence[Finding]) -> list[str]:
    """A list for each severity that is there."""
    parts = ["## Before reading on"] if findings else []
    for severity in ORDER:
        own = [finding for finding in findings if finding.severity == severity]
        if own:
            parts += [f"{_HEADINGS[severity]}:", "\n".join(_item(finding) for finding in own)]
    return parts


def _item(finding: Finding) -> str:
    remedy = f" *Remedy: {prose(finding.remedy)}.*" if finding.remedy else ""
    return f"* **{prose(finding.rule)}**: {prose(finding.sentence)}.{remedy}"


def _course(course: Course) -> str:
    """What is not known from a comparison of classifiers."""
    if not course.judged_by:
        return ""
    return (
        f"Each run is {course.told}. The learning rate is that of pre-training; where it was tuned, the validation "
        f"accuracy of the {course.judged_by} chose it. A mechanism is judged by its {course.accuracy} alone: a lower "
        "loss of reconstruction need not be a better encoder, and ranks nothing."
    )


def _decided(basis: Basis) -> str:
    """The procedure in a paragraph, with its numbers."""
    if len(basis.seeds) < LEAST_SEEDS:
        return (
            f"Nothing was decided: an interval needs {LEAST_SEEDS} seeds. Ratios of costs are medians over repeats in "
            "which softmax and the others took turns, with bootstrap intervals."
        )
    return (
        "Each mechanism is trained with the same seeds, images in the same order, and the same initial weights where "
        "it has them. Its difference to softmax is paired by seed and by test image: SE² = 2 MSE / S + (b + c) / n² − "
        "(b − c)² / n³, with S seeds, n test images, the residual MSE of the mechanism x seed table, and b and c the "
        "images on which exactly one is right. The interval is the unadjusted 95 % one of Student's t with "
        "(M − 1)(S − 1) degrees of freedom. A verdict is the first of worse (below "
        f"−{basis.margin_points:g} points), better (above 0) and not worse (above −{basis.margin_points:g}) that a "
        "one-sided test at 2.5 %, adjusted over the mechanisms by Holm's procedure, shows; else it is undecided, which "
        "is not equal. Ratios of costs are medians over repeats in which softmax and the others took turns, with "
        "bootstrap intervals."
    )


def _terms(basis: Basis) -> str:
    """Machine and conditions, a line each."""
    told = {**basis.machine, **basis.conditions}
    lines = [f"{name}: {value}" for name, value in told.items() if value not in (None, "", {}, [])]
    return block("\n".join(lines)) if lines else ""
