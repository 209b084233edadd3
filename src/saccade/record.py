"""Record: one measurement is one line of JSON, raw values only, with all that it depends on."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = 1

KINDS = ("tuning", "accuracy", "operations", "seconds", "memory", "batch")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement of one model with one attention.

    Attributes:
        kind: what was measured: one of `KINDS`.
        attention: as its user wrote it.
        attention_resolved: every option of every layer written out: what tells two attentions apart.
        model: name of the model.
        model_options: overrides of the model, as given to create_model.
        values: what was measured, raw, units in the names.
        conditions: what it was measured under: device, dtype, threads, batch size, kernel asked and run, ...
        machine: facts of the machine (saccade.measurement.machine).
        data: name, fingerprint, sizes and notes of the images, where images were used.
        recipe: the resolved recipe, where something was trained.
        seed: of the run, where there is one.
        round: ratios are formed within one timing round only.
        error: why there are no values: "diverged: ...", "out of memory: ..."; None where all went well.
        created: UTC, ISO 8601.
        schema: version of this layout.
    """

    kind: str
    attention: str
    attention_resolved: str
    model: str
    model_options: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None
    seed: int | None = None
    round: str | None = None
    error: str | None = None
    created: str = field(default_factory=_now)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a record of kind {self.kind!r}: the kinds are {', '.join(KINDS)}")

    def line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


def read_record(line: str) -> Record:
    """Reads one line.

    Raises:
        ValueError: no JSON object, a newer layout, or fields that are missing or unknown.
    """
    read = json.loads(line)
    known = {one.name for one in fields(Record)}
    if not isinstance(read, dict) or not {"schema", "kind", "attention"} <= set(read):
        raise ValueError(f"no record: {line[:80]!r}")
    if read["schema"] != SCHEMA:
        raise ValueError(f"a record of layout {read['schema']}: this saccade reads layout {SCHEMA}")
    if unknown := set(read) - known:
        raise ValueError(f"a record with unknown fields {', '.join(sorted(unknown))}")
    for name in ("model_options", "values", "conditions", "machine", "data", "recipe"):
        if not isinstance(read.get(name) or {}, dict):
            raise ValueError(f"a record whose {name} are no table: {str(read[name])[:80]!r}")
    return Record(**read)


def read_records(path: Path) -> Iterator[Record]:
    """Reads a records.jsonl.

    Raises:
        ValueError: a line that is no record, named by its number.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield read_record(line)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Writes a records.jsonl, whole or not at all."""
    write_whole(path, "".join(record.line() + "\n" for record in records))


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that a kill leaves the old one or the new one, never a half."""
    temporary = _written_beside(path, text)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_new(path: Path, text: str) -> None:
    """Writes a text file that is not there yet, so that a kill leaves all of it or nothing; of two who try, one does.

    Raises:
        FileExistsError: it is there.
    """
    temporary = _written_beside(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links, as on FAT: the name is taken, then filled at once; only a kill in between leaves it empty.
        path.open("x").close()
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _written_beside(path: Path, text: str) -> str:
    """The name of a file in the same folder that holds the text, on the disk and not only in the system's memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def require_writable(folder: Path) -> None:
    """Says before any work that a folder of results cannot be written.

    Raises:
        ValueError: it, or what it would be made in, is a file or cannot be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"--output {folder}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"--output {folder}: {there} cannot be written; give a folder that can")
