"""A process that trains cells: `python -m saccade.comparison.worker` reads tasks from stdin, a line of JSON each."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from saccade.comparison.cells import write_cell
from saccade.errors import Diverged
from saccade.record import Record


def main() -> NoReturn:
    """Trains cell after cell, each with a worker.log in its folder; ends when the other side closes stdin."""
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        task = json.loads(tasks.get())
        _write_to(Path(task["folder"]) / "worker.log")
        train_cell(task)


def train_cell(task: Mapping[str, Any]) -> Record:
    """Trains one cell in its folder and leaves its record there; a run that diverged is a finished cell too."""
    from saccade.comparison.stages import Stages
    from saccade.comparison.then import then_from
    from saccade.training.recipe import recipe_from_dict

    folder, recipe = Path(task["folder"]), recipe_from_dict(task["recipe"])
    stages = Stages(recipe, folder, task["device"], task["threads"], test=task["kind"] == "accuracy")
    values: dict[str, Any] = {}
    error, facts = None, None
    try:
        values, facts = stages.result(None if task["then"] is None else then_from(task["then"]))
    except Diverged as diverged:
        error = f"diverged: {diverged}"
    record = _record(task, values, facts, error)
    write_cell(folder, record)
    return record


def _record(
    task: Mapping[str, Any], values: Mapping[str, Any], facts: Mapping[str, Any] | None, error: str | None
) -> Record:
    from saccade.measurement.machine import machine_facts

    recipe = task["recipe"]
    return Record(
        kind=task["kind"],
        attention=task["attention"],
        attention_resolved=task["attention_resolved"],
        model=recipe["model"]["name"],
        model_options=recipe["model"]["options"],
        values=values,
        conditions={
            "device": task["device"],
            "threads": task["threads"],
            "jobs": task["jobs"],
            "source": task["source"],
            "dtype": recipe["train"]["dtype"],
            "amp_dtype": recipe["train"]["amp_dtype"],
            "batch_size": recipe["train"]["batch_size"],
            **task["marks"],
            **({} if task["then"] is None else {"then": task["then"]}),
        },
        machine=machine_facts(),
        data=facts,
        recipe=recipe,
        seed=recipe["train"]["seed"],
        error=error,
    )


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    # A worker whose comparison is gone, however it went, has nobody to work for.
    os._exit(1)


def _write_to(log: Path) -> None:
    """From now on this process, and what it calls, writes there."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


if __name__ == "__main__":
    main()
