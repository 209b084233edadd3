"""The folder of one training run: what is written into it, how it is continued, and that no other run's is touched."""

from __future__ import annotations

import fcntl
import json
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from saccade.errors import Busy
from saccade.record import write_new, write_whole
from saccade.training.progress import Progress
from saccade.training.recipe import Recipe, differences, recipe_from_toml, recipe_to_toml

RECIPE = "args.toml"


class Run:
    """Writes a run's files: args.toml, env.json, train.log, metrics.jsonl, summary.csv, result.json.

    Used as a context, at whose end the folder is free for others, and gone again if nothing was begun.

    Args:
        folder: new or empty, or that of the run to go on with; None keeps nothing.
        progress: is told what the run says.
        resume: goes on with the run in the folder.

    Raises:
        ValueError: the folder holds something, or (with `resume`) no run, or cannot be written.
    """

    def __init__(self, folder: Path | None, progress: Progress, *, resume: bool = False) -> None:
        self.folder = folder
        self.advance = progress.advance
        self.progress = progress
        self.resumed = resume
        self.unwritten: list[str] = []
        self.started = False
        self.made = False
        self._held = ExitStack()
        if resume:
            require_run(folder)
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
        if not resume and any(child not in _left_by_kills(folder) for child in folder.iterdir()):
            raise _taken(folder)

    def __enter__(self) -> Run:
        """Keeps other processes from a run that is gone on with.

        Raises:
            Busy: one is at work on it.
        """
        if self.folder is not None and self.resumed:
            self._lock(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        if self.folder is not None and not self.started and self.made and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def start(self, recipe: Recipe, environment: Mapping[str, Any], columns: Sequence[str]) -> None:
        """Claims the folder, now that there is something to train.

        Args:
            recipe: with everything that the data decide written out.
            environment: what the run runs on.
            columns: of summary.csv.

        Raises:
            ValueError: another run has claimed it in the meantime; to go on, another recipe.
        """
        self.columns = tuple(columns)
        if self.folder is not None:
            if self.resumed:
                _require_same(recipe_from_toml((self.folder / RECIPE).read_text(encoding="utf-8")), recipe)
            else:
                self._claim(self.folder, recipe_to_toml(recipe))
        self.started = True
        self._environment(environment)
        if not self.resumed:
            self._append("summary.csv", ",".join(self.columns))
        for line in self.unwritten:
            self._append("train.log", line)

    def say(self, line: str) -> None:
        """Shows a line, and writes it to train.log: at once, or when the folder is claimed."""
        self.progress.say(line)
        if self.started:
            self._append("train.log", line)
        else:
            self.unwritten.append(line)

    def rewind(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Forgets what was written of epochs behind these, which are done again."""
        if self.folder is not None:
            write_whole(self.folder / "metrics.jsonl", "".join(_line(row) + "\n" for row in history))
            rows = [",".join(self.columns), *(self._summary(row) for row in history)]
            write_whole(self.folder / "summary.csv", "".join(row + "\n" for row in rows))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """A finished epoch: a line of metrics.jsonl and one of summary.csv."""
        self._append("metrics.jsonl", _line(row))
        self._append("summary.csv", self._summary(row))

    def nonfinite(self, facts: Mapping[str, Any]) -> None:
        """What is known of a step that went wrong."""
        self._json("nonfinite.json", facts)

    def finish(self, result: Mapping[str, Any]) -> None:
        """The end of the run."""
        self._json("result.json", result)

    def finished(self) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
        """The epochs and the result of a run that had come to its end; None for one that has something left to do."""
        if self.folder is None or not (self.folder / "result.json").is_file():
            return None
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines], json.loads((self.folder / "result.json").read_bytes())

    def _claim(self, folder: Path, recipe_toml: str) -> None:
        try:
            write_new(folder / RECIPE, recipe_toml)
        except FileExistsError:
            raise _taken(folder) from None
        self._lock(folder)
        for left in _left_by_kills(folder):
            left.unlink(missing_ok=True)

    def _lock(self, folder: Path) -> None:
        """Keeps other processes from going on with this run; the system lets go when the process ends, however."""
        # NFS locks against others only what is open for writing.
        file = self._held.enter_context((folder / RECIPE).open("r+", encoding="utf-8"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise Busy(f"--resume: another process is at work on the run in {folder}; wait for its end") from None

    def _environment(self, now: Mapping[str, Any]) -> None:
        """env.json tells what the run began on and, in `resumed`, what it went on with."""
        began = dict(now)
        if self.folder is not None and self.resumed and (self.folder / "env.json").is_file():
            began = json.loads((self.folder / "env.json").read_bytes())
            began["resumed"] = [*began.get("resumed", []), now]
        self._json("env.json", began)
        for what in ("device", "threads", "python", "system", "packages"):
            if began[what] != now[what]:
                self.say(f"note: {what} was {began[what]} and is {now[what]}: the last bits may differ")

    def _summary(self, row: Mapping[str, Any]) -> str:
        return ",".join(str(row[name]) for name in self.columns)

    def _append(self, name: str, line: str) -> None:
        if self.folder is not None:
            with open(self.folder / name, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _json(self, name: str, values: Mapping[str, Any]) -> None:
        if self.folder is not None:
            write_whole(self.folder / name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def require_run(folder: Path | None) -> Path:
    """The recipe that lies in a run's folder.

    Raises:
        ValueError: no folder is named, or no run lies there.
    """
    if folder is None:
        raise ValueError("--resume: name the folder of the run to go on with as --output")
    if not (folder / RECIPE).is_file():
        raise ValueError(f"--resume: there is no run in {folder}; name the --output folder of the run to go on with")
    return folder / RECIPE


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


def _left_by_kills(folder: Path) -> list[Path]:
    """What remains of runs that were killed while they claimed the folder."""
    return list(folder.glob(f".{RECIPE}.*"))


def _taken(folder: Path) -> ValueError:
    return ValueError(
        f"--output {folder}: it holds another run's files, which stay; give a new folder, "
        "or go on with that run by --resume"
    )


def _require_same(began: Recipe, now: Recipe) -> None:
    if found := differences(began, now):
        raise ValueError(
            f"--resume goes on with the same recipe, and this differs: {'; '.join(found)}; "
            "leave out what the run in the folder has already, or begin anew in another folder"
        )


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False)


def _plain(text: str) -> str:
    """As much of a name as every file system takes."""
    return re.sub(r"[^\w=.]+", "-", text).strip("-.")[:60]
