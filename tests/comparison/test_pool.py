"""The pool: what a worker trained before changes nothing, and a worker that dies takes one task with it."""

import pytest

from saccade.comparison.cells import Cell
from saccade.comparison.pool import run_tasks
from saccade.comparison.question import Entry
from saccade.training.recipe import with_values
from saccade.training.recipes import named_recipe

SMALL = with_values(named_recipe("digits"), {"train.epochs": 1, "data.limit": 64})
WEIGHTS = "run/model.safetensors"


OWN = """
import os
import signal

import torch

from saccade.attention.softmax import Softmax


class Deadly(Softmax):
    def forward(self, *args, **kwargs):
        if self.training:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(*args, **kwargs)


class Raising(Softmax):
    def forward(self, *args, **kwargs):
        if self.training:
            raise RuntimeError("out of beans")
        return super().forward(*args, **kwargs)
"""


def task(attention, folder, seed=0):
    cell = Cell("accuracy", Entry(attention, attention), 1e-3, seed)
    return cell.task(SMALL, folder, device="cpu", threads=1, jobs=1)


def trained(tasks, jobs=1):
    records = []
    failures = run_tasks(tasks, jobs, records.append)
    return records, failures


def test_a_worker_that_has_trained_others_gives_what_a_fresh_one_gives(tmp_path):
    names = ["lambda", "nystrom(landmarks=8)", "softmax", "softmax"]
    shared, _ = trained([task(name, tmp_path / "shared", seed) for seed, name in enumerate(names)])
    alone, _ = trained([task("softmax", tmp_path / "alone", 3)])
    (one,) = alone
    (same,) = [record for record in shared if record.seed == 3]
    for key, value in one.values.items():
        if "seconds" not in key:
            assert same.values[key] == value, key
    weights = [sorted((tmp_path / place).glob(f"*seed3*/{WEIGHTS}")) for place in ("shared", "alone")]
    assert weights[0][0].read_bytes() == weights[1][0].read_bytes()


@pytest.mark.parametrize(
    ("name", "words"),
    [("Deadly", "was ended by signal 9"), ("Raising", "ended with code 1: RuntimeError: out of beans")],
)
def test_a_worker_that_fails_takes_one_task_with_it(name, words, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bad = f"own:{name}"
    records, failures = trained([task("softmax", tmp_path), task(bad, tmp_path), task("linear", tmp_path)])
    assert [record.attention for record in records] == ["softmax", "linear"]
    (failure,) = failures
    assert failure.startswith(f"{bad}: training {words}")


def test_each_cell_has_its_own_log(tmp_path):
    trained([task("softmax", tmp_path, seed) for seed in (0, 1)])
    assert len(list(tmp_path.glob("*/worker.log"))) == 2
