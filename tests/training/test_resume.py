"""A run that was killed and went on ends as one that was not: the same bits, the same metrics."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from saccade.data.sources import load_data
from saccade.training import loop
from saccade.training.progress import Silent
from saccade.training.recipe import Recipe, with_values

TRAIN = {"train.epochs": 3, "train.batch_size": 16, "train.lr": 3e-3, "train.logging_step": 2}
CLASSIFIER = {
    "model.options": {"embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path_rate": 0.3, "proj_drop_rate": 0.1},
    "augment": {"crop_padding": 1, "flip": 0.5, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0},
}
MAE = {"model.name": "mae_nano_patch1_8", "augment": {"crop_padding": 1, "flip": 0.5}}
# Performer keeps what it draws every so many steps, in float32 whatever the weights are.
PERFORMER = {**MAE, "model.attention": "performer"}
RUNS = {
    "classifier": CLASSIFIER,
    "classifier in bf16": CLASSIFIER | {"train.dtype": "bf16"},
    "mae": MAE,
    "mae in bf16": MAE | {"train.dtype": "bf16"},
    "mae of performer in bf16": PERFORMER | {"train.dtype": "bf16"},
}


class Stop(Exception):  # noqa: N818
    """What ends a run in the middle."""


class StopsAt(Silent):
    """Ends the run behind a step."""

    def __init__(self, step):
        self.step = step

    def advance(self, done, total):
        if done == self.step:
            raise Stop


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def digits():
    """64 training images: an epoch has four steps."""
    loaded = load_data("digits", img_size=(8, 8), limit=64)
    few = torch.arange(40)
    return dataclasses.replace(loaded, validation=loaded.validation.select(few), test=loaded.test.select(few))


def train(digits, changed, output, **options):
    recipe = with_values(Recipe(), TRAIN | changed)
    return loop.train(recipe, data=options.pop("data", digits), device="cpu", output=output, **options)


def interrupted(digits, changed, output, step, **options):
    with pytest.raises(Stop):
        train(digits, changed, output, progress=StopsAt(step), **options)


def comparable(row):
    return {key: value for key, value in row.items() if "seconds" not in key and key != "peak_bytes"}


def rows(folder):
    return [comparable(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one, other):
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert rows(one) == rows(other)
    assert (one / "summary.csv").read_text() == (other / "summary.csv").read_text()
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert comparable(results[0]) == comparable(results[1])


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_stopped_twice_ends_with_the_bits_of_one_that_never_was(digits, tmp_path, kind):
    whole = train(digits, RUNS[kind], tmp_path / "whole")
    interrupted(digits, RUNS[kind], tmp_path / "run", 6)
    interrupted(digits, RUNS[kind], tmp_path / "run", 11, resume=True)
    heard = Heard()
    resumed = train(digits, RUNS[kind], tmp_path / "run", resume=True, progress=heard)
    assert any("goes on behind epoch 1, from " in line for line in heard.lines)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_stopped_before_its_first_checkpoint_begins_anew(digits, tmp_path, step):
    train(digits, MAE, tmp_path / "whole")
    interrupted(digits, MAE, tmp_path / "run", step)
    train(digits, MAE, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("where", ["save_checkpoint", "save_model", "_result"])
def test_between_the_last_epoch_and_the_result_nothing_is_lost(digits, tmp_path, monkeypatch, where):
    train(digits, MAE, tmp_path / "whole")

    def stop(*arguments):
        raise Stop

    with monkeypatch.context() as broken:
        broken.setattr(loop, where, stop)
        with pytest.raises(Stop):
            train(digits, MAE, tmp_path / "run")
    train(digits, MAE, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_behind_a_damaged_checkpoint_the_run_goes_on_from_the_one_before(digits, tmp_path):
    train(digits, MAE, tmp_path / "whole")
    interrupted(digits, MAE, tmp_path / "run", 10)
    damaged = tmp_path / "run" / "checkpoints" / "epoch-1" / "optimiser.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    heard = Heard()
    train(digits, MAE, tmp_path / "run", resume=True, progress=heard)
    assert [line for line in heard.lines if "epoch-1 is damaged (optimiser.safetensors was changed)" in line]
    assert [line for line in heard.lines if "goes on behind epoch 0" in line]
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_finished_run_is_only_read(digits, tmp_path, monkeypatch):
    whole = train(digits, MAE, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(loop, "_epochs", pytest.fail)
    heard = Heard()
    again = train(digits, MAE, tmp_path / "run", resume=True, progress=heard)
    assert heard.lines == [f"the run in {tmp_path / 'run'} is finished; nothing was left to do"]
    assert (again.result, again.history) == (whole.result, whole.history)
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_another_recipe_is_refused_by_what_differs_and_changes_nothing(digits, tmp_path):
    interrupted(digits, MAE, tmp_path / "run", 6)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    changed = MAE | {"train.epochs": 5, "model.options.mask_ratio": 0.5}
    said = "differs: train.epochs is 3 there and 5 here; model.options.mask_ratio is None there and 0.5 here;"
    with pytest.raises(ValueError, match=said):
        train(digits, changed, tmp_path / "run", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_other_images_are_refused(digits, tmp_path):
    interrupted(digits, MAE, tmp_path / "run", 6)
    others = dataclasses.replace(digits, fingerprint="other")
    with pytest.raises(ValueError, match=r"the images of digits are not those that the run in .* began with"):
        train(digits, MAE, tmp_path / "run", resume=True, data=others)


def test_the_optimiser_is_what_goes_on(digits, tmp_path, monkeypatch):
    """Without its state the weights would differ: what the tests above compare depends on it."""
    train(digits, MAE, tmp_path / "whole")
    interrupted(digits, MAE, tmp_path / "run", 6)
    monkeypatch.setattr(loop.AdamW, "load_state", lambda optimiser, state: None)
    train(digits, MAE, tmp_path / "run", resume=True)
    assert (tmp_path / "whole/model.safetensors").read_bytes() != (tmp_path / "run/model.safetensors").read_bytes()


def typed(folder, *more):
    words = ["pretrain", "--set", "data.limit=64", "--batch-size", "8", "--epochs", "12", "--device", "cpu"]
    return [sys.executable, "-m", "saccade", *words, "--threads", "1", "--output", str(folder), *more]


def test_a_killed_process_goes_on_to_the_same_bits(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(typed(tmp_path / "whole"), check=True, capture_output=True, env=environment)
    process = subprocess.Popen(
        typed(tmp_path / "run"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 1) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "saccade",
            "pretrain",
            "--resume",
            "--device",
            "cpu",
            "--threads",
            "1",
            "-o",
            str(tmp_path / "run"),
        ],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "goes on behind epoch" in said.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")
