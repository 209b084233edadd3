"""One cell in a process of its own: `python -m saccade.comparison.worker` reads its task from stdin and trains."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.comparison.cells import write_cell
from saccade.errors import Diverged
from saccade.record import Record


def main() -> int:
    """Trains the cell that one line of JSON on stdin describes; ends when the other side closes stdin."""
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    train_cell(task)
    return 0


def train_cell(task: Mapping[str, Any]) -> Record:
    """Trains one cell in its folder and leaves its record there; a run that diverged is a finished cell too."""
    from saccade.training.loop import train
    from saccade.training.recipe import recipe_from_dict

    folder = Path(task["folder"])
    run = folder / "run"
    # What a killed worker left is no run: this cell has no record yet.
    shutil.rmtree(run, ignore_errors=True)
    recipe = recipe_from_dict(task["recipe"])
    values: dict[str, Any] = {}
    error, facts = None, None
    try:
        trained = train(
            recipe, output=run, device=task["device"], threads=task["threads"], test=task["kind"] == "accuracy"
        )
        values, facts = dict(trained.result), trained.data_facts
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
        },
        machine=machine_facts(),
        data=facts,
        recipe=recipe,
        seed=recipe["train"]["seed"],
        error=error,
    )


def _end_with_parent() -> None:
    """A worker whose comparison is gone, however it went, has nobody to work for."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
