"""The report of a comparison, as report.md: what confounds it first, then what was found, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from saccade.record import write_whole
from saccade.reports.basis import Basis
from saccade.reports.course import Course
from saccade.reports.fairness.finding import Finding, by_severity
from saccade.reports.fairness.finding_markup import findings_markdown
from saccade.reports.markup import block, prose
from saccade.reports.ratios import EQUAL
from saccade.reports.scales import Scale
from saccade.reports.statistics import LEAST_SEEDS
from saccade.reports.tables import markdown


def write_report(
    folder: Path,
    scales: Sequence[Scale],
    findings: Iterable[Finding],
    sentence: str,
    *,
    command: str = "",
    picture: Path | None = None,
) -> Path:
    """Writes report.md, whole or not at all.

    Args:
        folder: of the comparison; records.jsonl lies beside.
        scales: what was found, at the size asked for first.
        findings: of the doctor, before and after.
        sentence: the answer.
        command: the line that made it.
        picture: a file in the folder.
    """
    asked, *larger = scales
    basis = asked.basis
    parts = [
        f"# {prose(basis.model)} on {prose(str(basis.data.get('name', 'its data')))}: which attention?",
        *findings_markdown(by_severity(findings)),
        "## What was found",
        markdown(asked.rows, basis.margin_points).strip(),
        f"![accuracy against cost]({picture.name})" if picture else "",
        *(part for scale in larger for part in _repeated(scale)),
        f"**{prose(sentence)}**",
        "## How it was found",
        block(command) if command else "",
        _course(basis.course),
        _decided(basis),
        _rivals(scales),
        _scales(larger),
        _terms(basis),
        "Every number is computed from [records.jsonl](records.jsonl), a line each measurement.",
    ]
    path = folder / "report.md"
    write_whole(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _repeated(scale: Scale) -> list[str]:
    """The table of a further scale."""
    return [f"### At {prose(scale.name)}", markdown(scale.rows, scale.basis.margin_points).strip()]


def _rivals(scales: Sequence[Scale]) -> str:
    """How rivals were chosen and judged, where there are any."""
    if not any(row.rival for scale in scales for row in scale.rows):
        return ""
    return (
        "Rivals are softmax in models that cost less by other means: larger patches, fewer layers, fewer heads of the "
        f"same width, or patches merged on the way (Bolya et al. 2023). Of each kind it is the dearest whose training "
        f"step took at most {EQUAL:g} times that of the mechanism whose cost it meets, in a hasty timing before "
        "anything was trained; they are then tuned, trained, weighed and timed as the others. The best of them is the "
        "best on the validation part. Mechanisms of that cost are held against it by the same paired procedure, "
        "adjusted over these mechanisms alone."
    )


def _scales(larger: Sequence[Scale]) -> str:
    """What two scales are for."""
    if not larger:
        return ""
    return (
        f"Everything was done again at {prose(larger[0].name)}, with its own timings and, where rates are tuned, its "
        "own rates. Only what holds at both scales is recommended."
    )


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
