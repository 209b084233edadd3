"""The pool: cells trained in processes of their own, a few at a time, each result kept the moment it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.comparison.cells import read_cell
from saccade.errors import Failed
from saccade.record import Record

POLL_SECONDS = 0.1


@dataclass
class _Running:
    task: Mapping[str, Any]
    process: subprocess.Popen[str]


def run_tasks(
    tasks: Sequence[Mapping[str, Any]],
    jobs: int,
    finished: Callable[[Record], None],
    progress: Callable[[int], None] = lambda epochs: None,
) -> list[str]:
    """Trains every task, `jobs` at a time; returns what went wrong, a sentence each, and goes on with the rest.

    Args:
        tasks: see `Cell.task`.
        jobs: processes at a time.
        finished: called with each record as it comes.
        progress: called now and then with the number of epochs done in the tasks that are running.
    """
    waiting, running, failures = list(tasks), list[_Running](), list[str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0)))
            time.sleep(POLL_SECONDS)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                _collect(one, finished, failures)
            progress(sum(_epochs_done(Path(one.task["folder"])) for one in running))
    finally:
        for one in running:
            one.process.kill()
        for one in running:
            one.process.wait()
    return failures


def _start(task: Mapping[str, Any]) -> _Running:
    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "worker.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "saccade.comparison.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(task["threads"])},
            # Ctrl-C reaches the comparison, which then ends its workers.
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    except BrokenPipeError as error:
        raise Failed(f"a worker did not start; see {folder / 'worker.log'}") from error
    return _Running(task, process)


def _collect(one: _Running, finished: Callable[[Record], None], failures: list[str]) -> None:
    folder = Path(one.task["folder"])
    assert one.process.stdin is not None
    one.process.stdin.close()
    record = read_cell(folder)
    if record is not None:
        finished(record)
        return
    code = one.process.returncode
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    last = _last_line(folder / "worker.log")
    failures.append(f"{one.task['attention']}: training {how}: {last} (see {folder / 'worker.log'})")


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _epochs_done(folder: Path) -> int:
    metrics = folder / "run" / "metrics.jsonl"
    return metrics.read_text(encoding="utf-8").count("\n") if metrics.is_file() else 0
