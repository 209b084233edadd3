"""The store: a comparison's folder. Each finished cell and each timing round is written whole; the rest is derived."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from saccade.comparison.cells import Cell, read_cell, write_cell
from saccade.record import Record, read_records, write_records, write_whole


class Store:
    """Records by the cell or round they belong to, under one folder.

    `cells/` holds a folder for each training run and each single measurement, `rounds/` a file for each timing round,
    and `records.jsonl` a line for every record of both, written anew whenever one comes. `calibration/` holds the hasty
    timings that rivals were chosen by: no results, and kept so that the same command chooses the same ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"
        self.rounds = folder / "rounds"
        self.calibration = folder / "calibration"
        self.held: list[Record] = []

    def records(self) -> list[Record]:
        """Every record there is, in the order in which they were made."""
        single = [read_cell(path) for path in sorted(self.cells.glob("*"))]
        rounds = [record for path in sorted(self.rounds.glob("*.jsonl")) for record in read_records(path)]
        found = [record for record in [*single, *rounds, *self.held] if record is not None]
        return sorted(found, key=lambda one: one.created)

    def of(self, cell: Cell) -> Record | None:
        """The record of a training cell, where it has finished."""
        return self.named(cell.name)

    def named(self, name: str) -> Record | None:
        """The record that was kept under this name."""
        return read_cell(self.cells / name)

    def add(self, name: str, record: Record) -> None:
        """Keeps a single measurement under the name of its cell."""
        write_cell(self.cells / name, record)
        self.write_all()

    def add_operations(self, key: str, record: Record) -> None:
        """Keeps the declared counts of the model of an entry, by its key."""
        self.add(f"operations-{hashlib.sha256(key.encode()).hexdigest()[:12]}", record)

    def add_round(self, records: Sequence[Record]) -> None:
        """Keeps a timing round, whole."""
        write_records(self.rounds / f"{_now()}.jsonl", records)
        self.write_all()

    def calibrated(self) -> list[list[Record]]:
        """The rounds of hasty timings, the latest first."""
        return [list(read_records(path)) for path in sorted(self.calibration.glob("*.jsonl"), reverse=True)]

    def add_calibration(self, records: Sequence[Record]) -> None:
        """Keeps a round of hasty timings, whole."""
        write_records(self.calibration / f"{_now()}.jsonl", records)

    def hold(self, record: Record) -> None:
        """Keeps a failure for this command's answer alone: the next command tries again."""
        self.held.append(record)
        self.write_all()

    def write_all(self) -> None:
        """Writes records.jsonl from the cells and rounds."""
        write_records(self.folder / "records.jsonl", self.records())

    @contextmanager
    def locked(self, question: str) -> Iterator[None]:
        """Keeps every other comparison out of the folder while this one works in it, and any of another question.

        Args:
            question: `Question.key` of this one.

        Raises:
            ValueError: another process has the folder, it holds another question's results, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"--output {self.folder}: {error.strerror}; give a folder that can be written") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(
                    f"--output {self.folder}: another comparison is at work in it; wait for it or give another folder"
                ) from None
            self._claim(question)
            yield

    def _claim(self, question: str) -> None:
        """What was trained for one question is no answer to another."""
        path = self.folder / "question"
        if not path.exists():
            write_whole(path, question + "\n")
        elif path.read_text(encoding="utf-8").strip() != question:
            raise ValueError(
                f"--output {self.folder}: it holds a comparison of another model, recipe, data set or device; "
                "give another folder, or ask as it was asked"
            )


def _now() -> str:
    """A file name that sorts by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
