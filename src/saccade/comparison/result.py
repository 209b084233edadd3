"""The result of a comparison: rows, what the doctor found, and a sentence; as a table, a report, a data frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from saccade.errors import Diverged, Failed
from saccade.record import Record, write_records
from saccade.reports.answer import answer, answer_at_scales
from saccade.reports.basis import basis
from saccade.reports.contenders import apart, by_scale
from saccade.reports.fairness import after
from saccade.reports.fairness.finding import Finding, at_scale, by_severity
from saccade.reports.figures import accuracy_cost
from saccade.reports.report import write_report
from saccade.reports.rivals import with_rivals
from saccade.reports.rows import Row, rows
from saccade.reports.scales import Scale
from saccade.reports.tables import notebook, terminal

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        rows: a row for each mechanism, the kernels of softmax first, rivals last.
        earlier: what confounds it or cannot matter at its size, found before anything ran.
        later: what confounds it, found in its records.
        sentence: which attention to take, and what that rests on.
        records: every raw number that the rows are computed from.
        folder: where it is kept.
        margin_points: how many points of accuracy were too few to matter.
        failures: runs that could not be finished, a sentence each.
        command: how to ask again, where a command asked.
        scales: the same at each size of the model, that which was asked for first.
    """

    rows: Sequence[Row]
    earlier: Sequence[Finding]
    later: Sequence[Finding]
    sentence: str
    records: Sequence[Record]
    folder: Path
    margin_points: float
    failures: Sequence[str] = ()
    command: str = ""
    scales: Sequence[Scale]

    @property
    def findings(self) -> list[Finding]:
        """Everything that the doctor found, errors first."""
        return by_severity([*self.earlier, *self.later])

    @property
    def exit_code(self) -> int:
        """0; 1 where a run could not be finished; 3 where softmax or everything diverged."""
        rows = [row for scale in self.scales for row in scale.rows]
        diverged = [row for row in rows if row.diverged]
        if diverged and (any(row.baseline for row in diverged) or len(diverged) == len(rows)):
            return Diverged.exit_code
        return Failed.exit_code if self.failures else 0

    def table(self) -> RenderableType:
        """The rows for a rich console."""
        if len(self.scales) == 1:
            return terminal(self.rows, self.margin_points)
        tables = [(f"\nAt {scale.name}\n" if scale.name else "", scale) for scale in self.scales]
        return Group(
            *(part for title, scale in tables for part in (Text(title), terminal(scale.rows, self.margin_points)))
        )

    def json_lines(self) -> Iterator[str]:
        """The rows as JSON, one a line; the last line holds the sentence and the findings."""
        for row in self._plain():
            yield json.dumps(row, ensure_ascii=False)
        findings = [vars(finding) for finding in self.findings]
        yield json.dumps({"sentence": self.sentence, "findings": findings}, ensure_ascii=False)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame.

        Raises:
            ValueError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ValueError('to_pandas() needs pandas: pip install "saccade[pandas]"') from error
        return pandas.DataFrame(self._plain())

    def save(self, folder: str | Path | None = None) -> Path:
        """Writes report.md, its picture and records.jsonl; into the comparison's own folder where none is given."""
        place = self.folder if folder is None else Path(folder)
        if place != self.folder:
            write_records(place / "records.jsonl", self.records)
        asked, *_ = self.scales
        pictures = accuracy_cost(asked.rows, asked.basis, place)
        return write_report(
            place,
            self.scales,
            self.findings,
            self.sentence,
            command=self.command,
            picture=next((path for path in pictures if path.suffix == ".png"), None),
        )

    def _plain(self) -> list[dict[str, Any]]:
        """The rows of all scales as plain values."""
        named = [({"scale": scale.name} if scale.name else {}, scale.rows) for scale in self.scales]
        return [{**row.plain(), **told} for told, found in named for row in found]

    def _repr_html_(self) -> str:
        titled = [(f"<p>At {scale.name}</p>" if scale.name else "", scale.rows) for scale in self.scales]
        return "".join(title + notebook(found, self.margin_points) for title, found in titled)


def conclude(
    earlier: Sequence[Finding],
    records: Sequence[Record],
    folder: Path,
    *,
    margin_points: float,
    failures: Sequence[str],
    command: str,
) -> Comparison:
    """Computes rows, findings and the sentence from the records."""
    told = {name: apart(some) for name, some in by_scale(records).items()}
    counted = {name: basis(some).operations for name, some in told.items() if name}
    found = {name: with_rivals(rows(some, margin_points), some, margin_points) for name, some in told.items()}
    unfinished = [Finding("unfinished", "error", failure, "the same command tries again") for failure in failures]
    later = {name: [at_scale(finding, name) for finding in after(some)] for name, some in told.items()}
    scales = [
        Scale(
            name=name,
            rows=found[name],
            basis=basis(some, margin_points, larger=counted),
            findings=[*earlier, *unfinished, *later[name]],
        )
        for name, some in told.items()
    ]
    asked, *larger = scales
    return Comparison(
        rows=asked.rows,
        earlier=earlier,
        later=by_severity([*unfinished, *(finding for some in later.values() for finding in some)]),
        sentence=answer_at_scales(scales) if larger else answer(asked.rows, asked.basis, asked.findings),
        records=records,
        folder=folder,
        margin_points=margin_points,
        failures=failures,
        command=command,
        scales=scales,
    )
