"""Cells: a training run and its judgement, in a folder of its own with a record that is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saccade.comparison.question import Entry
from saccade.comparison.then import Then
from saccade.record import Record, read_record, write_whole
from saccade.training.recipe import Recipe, recipe_to_dict, with_values


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: a mechanism, or a rival, at a learning rate and a seed.

    Attributes:
        kind: "tuning" runs are judged on the validation part, "accuracy" runs on the test part, once.
        entry: what is trained.
        rate: learning rate.
        seed: of initial weights, order and augmentation.
    """

    kind: Literal["tuning", "accuracy"]
    entry: Entry
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Folder name: readable in front, unique behind."""
        one = self.entry
        key = json.dumps([self.kind, one.attention_resolved, self.rate, self.seed, one.source, *one.marks.values()])
        readable = re.sub(r"[^A-Za-z0-9]+", "-", one.rival or one.attention).strip("-")[:40]
        return (
            f"{self.kind}-{readable}-lr{self.rate:.3g}-seed{self.seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        )

    def recipe(self, base: Recipe) -> Recipe:
        """The comparison's recipe with this cell's attention, rate and seed; only a rival's model differs, too."""
        own = {"model.attention": self.entry.attention, "train.lr": self.rate, "train.seed": self.seed}
        return with_values(base, own | {f"model.options.{name}": value for name, value in self.entry.changes.items()})

    def task(
        self, base: Recipe, folder: Path, device: str, threads: int, jobs: int, then: Then | None = None
    ) -> Mapping[str, Any]:
        """What a worker is told."""
        return {
            "kind": self.kind,
            "attention": self.entry.attention,
            "attention_resolved": self.entry.attention_resolved,
            "marks": self.entry.marks,
            "recipe": recipe_to_dict(self.recipe(base)),
            "folder": str(folder / self.name),
            "device": device,
            "threads": threads,
            "jobs": jobs,
            "source": self.entry.source,
            "then": None if then is None else then.plain(),
        }


def read_cell(folder: Path) -> Record | None:
    """The record of a finished cell; None where it has not finished."""
    path = folder / "record.json"
    return read_record(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_cell(folder: Path, record: Record) -> None:
    """Marks a cell as finished."""
    write_whole(folder / "record.json", record.line() + "\n")
