"""Folders of records: what can be read of them, and in a sentence each what cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saccade.record import Record, read_record

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes:
        path: as its user wrote it.
        records: those that could be read.
        unread: why some could not, or none, a sentence each.
    """

    path: Path
    records: list[Record] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def read_folder(path: Path) -> Folder:
    """Reads the records of a folder, or a file of records, line by line: one that cannot be read hides no other."""
    file = path / RECORDS if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return Folder(path, unread=[_missing(path)])
    except UnicodeDecodeError:
        return Folder(path, unread=[f"{file}: it is no text, so no file of records"])
    records, broken = [], list[str]()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(read_record(line))
        except (ValueError, TypeError) as error:
            broken.append(f"line {number}: {error}")
    if not lines:
        broken = ["it is empty"]
    more = f" (and {len(broken) - 1} more of its {len(lines)} lines cannot be read)" if len(broken) > 1 else ""
    return Folder(path, records, [f"{file}: {broken[0]}{more}"] if broken else [])


def _missing(path: Path) -> str:
    if not path.exists():
        return f"{path}: there is no such folder"
    inside = sorted(file.parent.name for file in path.glob(f"*/{RECORDS}"))
    hint = (
        f"give one of the folders in it that have: {', '.join(inside)}"
        if inside
        else "compare, bench and max-batch write one"
    )
    return f"{path}: there is no {RECORDS} in it; {hint}"
