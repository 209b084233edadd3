"""The verb `doctor`: is this comparison fair?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.record import Record
    from saccade.reports.fairness import Diagnosis
    from saccade.reports.fairness.finding import Finding


def doctor(
    *folder: Path,
    fail_on: Literal["error", "warning", "never"] = "error",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Examine records for what makes a comparison unfair or pointless: is what they seem to say true?

    Example:
    `saccade doctor runs/compare-digits-vit_nano_patch1_8-1a2b3c4d --fail-on warning`

    Any folder with a records.jsonl can be examined, whoever made it: of compare, bench or max-batch, or from results/.
    Every rule that its facts allow is asked. What could not be asked is said, too: silence on that is no clean bill.
    Several folders are examined one by one, and then it is asked whether they may be set beside each other.
    docs/doctor.md says what each rule looks for, and which comparison it would have saved.

    Exit code 1 if there are errors (a conclusion would be wrong), 2 if something could not be read, else 0.

    Parameters
    ----------
    folder
        Folders with a records.jsonl, or such files.
    fail_on
        The least severity for exit code 1: error, warning (a conclusion rests on less than it seems), or never.
    json
        Print a line of JSON for each finding, then one for each folder with what was asked and what could not be.
    """
    from saccade.cli.console import results
    from saccade.reports.fairness import diagnose, set_beside
    from saccade.reports.folders import read_folder

    if not folder:
        raise ValueError("examine what? Give a folder that holds a records.jsonl, as compare and bench write it")
    read = [read_folder(path) for path in dict.fromkeys(folder)]
    there = {str(one.path): one.records for one in read if one.records}
    found = {name: diagnose(records) for name, records in there.items()}
    beside = set_beside(list(there.values())) if len(there) > 1 else []
    if json:
        for line in _lines(there, found, beside):
            print(line)
    else:
        for name, diagnosis in found.items():
            results().print(f"\n{name}: {_counted(there[name])}", style="bold", markup=False, highlight=False)
            _print_findings(diagnosis.findings)
            _print_asked(diagnosis)
        if len(there) > 1:
            results().print("\nbeside each other", style="bold", markup=False, highlight=False)
            _print_findings(beside)
    if unread := [sentence for one in read for sentence in one.unread]:
        raise ValueError("; ".join(unread))
    severities = {
        one.severity for findings in (*(each.findings for each in found.values()), beside) for one in findings
    }
    failing = {"error": {"error"}, "warning": {"error", "warning"}, "never": set[str]()}[fail_on]
    return 1 if severities & failing else 0


def _counted(records: Sequence[Record]) -> str:
    """How many records of which kind."""
    kinds = [one.kind for one in records]
    counts = ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))
    return f"{len(records):,} records ({counts})"


def _print_findings(findings: Sequence[Finding]) -> None:
    from saccade.cli.console import results

    if findings:
        results().print(_table(findings))
    else:
        results().print("nothing was found", markup=False, highlight=False)


_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def _table(findings: Iterable[Finding]) -> Table:
    """A row a finding, its remedy below what was seen."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "rule", "what was seen, and what to do", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for one in findings:
        seen = Text(f"{one.sentence}.")
        if one.remedy:
            seen.append(f"\nRemedy: {one.remedy}.", "dim")
        table.add_row(Text(one.severity, _STYLES[one.severity]), Text(one.rule), seen)
    return table


def _print_asked(diagnosis: Diagnosis) -> None:
    """How many rules were asked, and which were not, by what they lack."""
    from saccade.cli.console import results

    without: dict[str, list[str]] = {}
    for rule, words in diagnosis.lacking.items():
        without.setdefault(words, []).append(rule)
    total = len(diagnosis.asked) + len(diagnosis.lacking)
    told = f"{len(diagnosis.asked)} of {total} rules were asked"
    lines = [
        f"{told}; no record tells" if without else told,
        *(f"  {words}: {', '.join(rules)}" for words, rules in without.items()),
    ]
    for line in lines:
        results().print(line, style="dim", markup=False, highlight=False)


def _lines(
    records: Mapping[str, Sequence[Record]], found: Mapping[str, Diagnosis], beside: Sequence[Finding]
) -> Iterable[str]:
    """JSON: the findings of each folder and of all beside each other, then what was asked of each folder."""
    from json import dumps

    told = [([name], one) for name, diagnosis in found.items() for one in diagnosis.findings]
    for folders, one in [*told, *((list(found), one) for one in beside)]:
        yield dumps({"folders": folders, **vars(one)}, ensure_ascii=False)
    for name, diagnosis in found.items():
        asked = {"asked": list(diagnosis.asked), "lacking": dict(diagnosis.lacking)}
        yield dumps({"folders": [name], "records": len(records[name]), **asked}, ensure_ascii=False)
