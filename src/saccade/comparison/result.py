"""The result of a comparison: rows, what the doctor found, and a sentence; as a table, a report, a data frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType

from saccade.errors import Diverged, Failed
from saccade.record import Record, write_records
from saccade.reports.answer import answer
from saccade.reports.basis import basis
from saccade.reports.fairness import after
from saccade.reports.figures import accuracy_cost
from saccade.reports.finding import Finding, by_severity
from saccade.reports.report import write_report
from saccade.reports.rows import Row, rows
from saccade.reports.tables import notebook, terminal

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        rows: a row for each mechanism, the kernels of softmax first.
        earlier: what confounds it or cannot matter at its size, found before anything ran.
        later: what confounds it, found in its records.
        sentence: which attention to take, and what that rests on.
        records: every raw number that the rows are computed from.
        folder: where it is kept.
        margin_points: how many points of accuracy were too few to matter.
        failures: runs that could not be finished, a sentence each.
        command: how to ask again, where a command asked.
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

    @property
    def findings(self) -> list[Finding]:
        """Everything that the doctor found, errors first."""
        return by_severity([*self.earlier, *self.later])

    @property
    def exit_code(self) -> int:
        """0; 1 where a run could not be finished; 3 where softmax or everything diverged."""
        diverged = [row.attention for row in self.rows if row.diverged]
        if diverged and (self.rows[0].diverged or len(diverged) == len(self.rows)):
            return Diverged.exit_code
        return Failed.exit_code if self.failures else 0

    def table(self) -> RenderableType:
        """The rows for a rich console."""
        return terminal(self.rows, self.margin_points)

    def json_lines(self) -> Iterator[str]:
        """The rows as JSON, one a line; the last line holds the sentence and the findings."""
        for row in self.rows:
            yield json.dumps(row.plain(), ensure_ascii=False)
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
        return pandas.DataFrame([row.plain() for row in self.rows])

    def save(self, folder: str | Path | None = None) -> Path:
        """Writes report.md, its picture and records.jsonl; into the comparison's own folder where none is given."""
        place = self.folder if folder is None else Path(folder)
        if place != self.folder:
            write_records(place / "records.jsonl", self.records)
        ground = basis(self.records, self.margin_points)
        pictures = accuracy_cost(self.rows, ground, place)
        return write_report(
            place,
            self.rows,
            self.findings,
            self.sentence,
            ground,
            command=self.command,
            picture=next((path for path in pictures if path.suffix == ".png"), None),
        )

    def _repr_html_(self) -> str:
        return notebook(self.rows, self.margin_points)


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
    found = rows(records, margin_points)
    unfinished = [Finding("unfinished", "error", failure, "the same command tries again") for failure in failures]
    later = by_severity([*unfinished, *after(records, found)])
    return Comparison(
        rows=found,
        earlier=earlier,
        later=later,
        sentence=answer(found, basis(records, margin_points), [*earlier, *later]),
        records=records,
        folder=folder,
        margin_points=margin_points,
        failures=failures,
        command=command,
    )
