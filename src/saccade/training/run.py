"""The folder of one training run: what is written into it, and that no other run's is touched."""

from __future__ import annotations

import json
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from saccade.record import write_whole
from saccade.training.progress import Progress

SUMMARY = ("epoch", "train_loss", "eval_loss", "eval_top1", "lr")
"""Columns of summary.csv, as timm's users know them."""


class Run:
    """Writes a run's files: args.toml, env.json, train.log, metrics.jsonl, summary.csv, result.json.

    Args:
        folder: new or empty; None keeps nothing.
        progress: is told what the run says.

    Raises:
        ValueError: the folder holds something, or cannot be written.
    """

    def __init__(self, folder: Path | None, progress: Progress) -> None:
        self.folder = folder
        self.advance = progress.advance
        self.progress = progress
        self.unwritten: list[str] = []
        self.started = False
        if folder is None:
            return
        try:
            self.made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(
                f"--output {folder}: cannot be written ({reason}); give a folder that you may write to"
            ) from error
        if any(folder.iterdir()):
            raise _taken(folder)

    def start(self, recipe_toml: str, environment: Mapping[str, Any]) -> None:
        """Claims the folder, now that there is something to train.

        Raises:
            ValueError: another run has claimed it in the meantime.
        """
        if self.folder is not None:
            try:
                with open(self.folder / "args.toml", "x", encoding="utf-8") as file:
                    file.write(recipe_toml)
            except FileExistsError:
                raise _taken(self.folder) from None
        self.started = True
        self._json("env.json", environment)
        self._append("summary.csv", ",".join(SUMMARY))
        for line in self.unwritten:
            self._append("train.log", line)

    def abandon(self) -> None:
        """Leaves no empty folder behind where nothing came of it."""
        if self.folder is not None and self.made and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def say(self, line: str) -> None:
        """Shows a line, and writes it to train.log: at once, or when the folder is claimed."""
        self.progress.say(line)
        if self.started:
            self._append("train.log", line)
        else:
            self.unwritten.append(line)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """A finished epoch: a line of metrics.jsonl and one of summary.csv."""
        self._append("metrics.jsonl", json.dumps(row, allow_nan=False))
        self._append("summary.csv", ",".join(str(row[name]) for name in SUMMARY))

    def nonfinite(self, facts: Mapping[str, Any]) -> None:
        """What is known of a step that went wrong."""
        self._json("nonfinite.json", facts)

    def finish(self, result: Mapping[str, Any]) -> None:
        """The end of the run."""
        self._json("result.json", result)

    def _append(self, name: str, line: str) -> None:
        if self.folder is not None:
            with open(self.folder / name, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _json(self, name: str, values: Mapping[str, Any]) -> None:
        if self.folder is not None:
            write_whole(self.folder / name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def default_folder(model: str, attention: str, data: str, seed: int) -> Path:
    """runs/<model>-<attention>-<data>-seed<seed>-<time>, with a number behind it where two start in one second."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = "-".join([_plain(model), _plain(attention), _plain(Path(data).name or data), f"seed{seed}", now])
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def environment(device: str, threads: int) -> dict[str, Any]:
    """What a run ran on."""
    packages = ("saccade", "torch", "numpy", "pillow", "safetensors")
    return {
        "command": sys.argv,
        "device": device,
        "threads": threads,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _taken(folder: Path) -> ValueError:
    return ValueError(
        f"--output {folder}: it holds another run's files, which stay; give a new folder, or empty this one yourself"
    )


def _plain(text: str) -> str:
    """As much of a name as every file system takes."""
    return re.sub(r"[^\w=.]+", "-", text).strip("-.")[:60]
