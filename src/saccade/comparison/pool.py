"""The pool: cells trained by a few workers side by side, each result kept the moment it is there."""

from __future__ import annotations

import contextlib
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
from saccade.record import Record

POLL_SECONDS = 0.1


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    task: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return Path(self.task["folder"])


def run_tasks(
    tasks: Sequence[Mapping[str, Any]],
    jobs: int,
    finished: Callable[[Record], None],
    progress: Callable[[int], None] = lambda epochs: None,
) -> list[str]:
    """Trains every task, `jobs` at a time; returns what went wrong, a sentence each, and goes on with the rest.

    A worker trains one task after the other, for starting Python and torch takes seconds; one that fails ends, and
    the next task gets a fresh one.

    Args:
        tasks: see `Cell.task`.
        jobs: workers at a time.
        finished: called with each record as it comes.
        progress: called now and then with the number of epochs done in the tasks that are running.
    """
    waiting, workers, failures = list(tasks), list[_Worker](), list[str]()
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_start(waiting.pop(0)))
            time.sleep(POLL_SECONDS)
            for worker in list(workers):
                # Asked first: a worker that ends after this look is seen at the next one.
                ended = worker.process.poll() is not None
                record = read_cell(worker.folder)
                if record is not None:
                    finished(record)
                    if waiting and not ended:
                        _give(worker, waiting.pop(0))
                    else:
                        _end(worker)
                        workers.remove(worker)
                elif ended:
                    failures.append(_failure(worker))
                    _end(worker)
                    workers.remove(worker)
            progress(sum(_epochs_done(worker.folder) for worker in workers))
    finally:
        for worker in workers:
            _end(worker)
    return failures


def _start(task: Mapping[str, Any]) -> _Worker:
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
    worker = _Worker(process, task)
    _give(worker, task)
    return worker


def _give(worker: _Worker, task: Mapping[str, Any]) -> None:
    worker.task = task
    worker.folder.mkdir(parents=True, exist_ok=True)
    assert worker.process.stdin is not None
    # A worker that is gone is found by the next look at it.
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.write(json.dumps(task) + "\n")
        worker.process.stdin.flush()


def _end(worker: _Worker) -> None:
    assert worker.process.stdin is not None
    worker.process.kill()
    worker.process.wait()
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.close()


def _failure(worker: _Worker) -> str:
    code = worker.process.returncode
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    log = worker.folder / "worker.log"
    name = worker.task["marks"].get("rival") or worker.task["attention"]
    return f"{name}: training {how}: {_last_line(log)} (see {log})"


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _epochs_done(folder: Path) -> int:
    return sum(metrics.read_text(encoding="utf-8").count("\n") for metrics in folder.glob("*/metrics.jsonl"))
