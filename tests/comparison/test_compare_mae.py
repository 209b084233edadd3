"""Comparing what pre-training is worth: judged by a probe or by fine-tuning, never by the loss."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import saccade
from saccade.attention import list_attentions, parse
from saccade.cli import run
from saccade.comparison.cells import Cell
from saccade.comparison.fit import all_that_fit, ask
from saccade.comparison.question import Entry
from saccade.comparison.stages import Stages
from saccade.comparison.then import Then, chosen_then, then_from
from saccade.comparison.worker import train_cell
from saccade.errors import Busy
from saccade.models.weights import load_model
from saccade.reports.numbers import duration
from saccade.training.probe import probe
from saccade.training.progress import Progress, Silent
from saccade.training.recipe import with_values
from saccade.training.recipes import named_recipe
from saccade.training.run import Run

RECIPE = named_recipe("mae-digits")
SMALL = {"task": "mae", "recipe": "mae-digits", "settings": {"data.limit": 64}, "epochs": 12, "probe": "knn"}
TERMS = {"anyway": True, "threads": 1, "repeats": 1, "seeds": 1}
COMMAND = ["compare", "softmax", "--task", "mae", "--recipe", "mae-digits", "--set", "data.limit=64", "--epochs", "12"]
COMMAND += ["--probe", "knn", "--anyway", "--threads", "1", "--repeats", "1", "--seeds", "1"]


class Said(Progress):
    """A progress that remembers what it was told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def advance(self, done, total):
        assert done <= total


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison") / "runs"


@pytest.fixture(scope="module")
def interrupted(folder):
    """The same as `first`, ended by Ctrl-C in the middle of its one run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "saccade", *COMMAND, "--output", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not list(folder.glob("cells/accuracy-*/run/checkpoints/epoch-3")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, list(folder.glob("cells/accuracy-*/record.json"))


@pytest.fixture(scope="module")
def first(interrupted, folder):
    return saccade.compare(["softmax"], output=folder, **SMALL, **TERMS)


@pytest.fixture(scope="module")
def second(first, folder):
    said = Said()
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*/record.json")}
    return saccade.compare(["softmax", "linear"], output=folder, progress=said, **SMALL, **TERMS), said, before


def of_kind(comparison, kind):
    return [record for record in comparison.records if record.kind == kind]


def test_interrupted_it_says_so_in_one_sentence(interrupted):
    code, said, finished = interrupted
    assert code == 130, said
    assert "Traceback" not in said
    assert not finished


def test_it_goes_on_in_the_middle_of_a_pre_training(first, folder):
    (begun,) = folder.glob("cells/accuracy-softmax-*/run")
    assert len(json.loads((begun / "env.json").read_text())["resumed"]) == 1
    assert len((begun / "metrics.jsonl").read_text().splitlines()) == 12
    assert first.exit_code == 0


def test_a_run_is_judged_by_its_probe_and_the_random_encoder_beside_it(second):
    runs = of_kind(second[0], "accuracy")
    assert [record.attention for record in runs] == ["softmax", "linear"]
    for record in runs:
        assert record.model == "mae_nano_patch1_8"
        assert record.conditions["then"] == {"how": "probe", "method": "knn"}
        told = record.values
        assert len(told["test_correct"]) == told["test_images"] / 4 == 90
        for name in ("test_top1_percent", "random_test_top1_percent", "validation_top1_percent"):
            assert 10 < told[name] < 100, name
        assert 0 < told["test_mean_picture_loss"] < told["test_baseline_loss"]
        assert told["test_loss"] > 0
        assert told["train_seconds"] > 0


def test_what_was_pre_trained_and_what_judged_it_lie_in_the_cells_folder(second, folder):
    """A probe by hand of what lies there, and of a model that is as it started, give the record's numbers."""
    dataset = saccade.load_data("digits", img_size=8, limit=64)
    for record in of_kind(second[0], "accuracy"):
        (cell,) = (folder / "cells").glob(f"accuracy-{record.attention}-*")
        assert {"run", "probe.json", "record.json"} <= set(os.listdir(cell))
        model, _ = load_model(cell / "run")
        assert probe(model, dataset, method="knn")["test_correct"] == record.values["test_correct"]
        random = saccade.create_model("mae_nano_patch1_8", record.attention, seed=0)
        assert probe(random, dataset, method="knn")["test_top1_percent"] == record.values["random_test_top1_percent"]


def test_every_kind_of_measurement_is_that_of_the_autoencoder(second):
    for kind in ("operations", "memory", "seconds"):
        records = of_kind(second[0], kind)
        assert {"softmax", "linear"} <= {record.attention for record in records}
        for record in records:
            assert record.error is None
            assert record.model == "mae_nano_patch1_8"


def test_what_confounds_is_said_beforehand_and_what_does_not_apply_is_not(first):
    rules = {finding.rule for finding in first.earlier}
    assert {"what is swapped", "few visible tokens", "untuned", "seeds"} <= rules
    assert "from scratch only" not in rules


def test_a_finished_run_is_said_to_have_taken_what_the_table_says(second):
    comparison, said, _ = second
    (line,) = (line for line in said.lines if line.startswith("1/1 linear, rate "))
    (row,) = (row for row in comparison.rows if row.attention == "linear")
    assert line.endswith(f" % on the test part, {duration(row.train_seconds)}")
    (record,) = (one for one in of_kind(comparison, "accuracy") if one.attention == "linear")
    assert row.train_seconds == record.values["train_seconds"] + record.values["then_seconds"]


def test_the_answer_names_what_it_rests_on(second, folder):
    comparison, *_ = second
    assert comparison.sentence.startswith("No recommendation")
    assert "Probe top-1: softmax" in comparison.sentence
    assert (
        "pre-trained for 12 epochs as a masked autoencoder, then vote of the nearest neighbours" in comparison.sentence
    )
    text = (folder / "report.md").read_text()
    assert "| probe top-1 %<br>" in text
    assert "random %<br>" in text
    assert (folder / "accuracy-cost.png").stat().st_size > 1000


def test_the_rows_as_json_hold_the_loss_beside_the_accuracy(second):
    line = json.loads(next(second[0].json_lines()))
    assert line["judged_by"] == "probe"
    for name in ("random_test_top1_percent", "reconstruction_loss", "reconstruction_mean_picture_loss"):
        assert line[name] > 0


def test_a_further_mechanism_adds_only_itself(second):
    comparison, said, before = second
    assert any("training: 1 runs" in line and "1 are there already" in line for line in said.lines)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items() if "accuracy" in path.parent.name)
    assert {row.attention for row in comparison.rows if not row.baseline} == {"linear"}


def test_another_judgement_is_another_question(second, folder):
    with pytest.raises(ValueError, match="give another folder"):
        saccade.compare(["softmax"], output=folder, **SMALL | {"probe": "linear"}, **TERMS)


def fine_tuned(kind, folder):
    """The record of one cell with fine-tuning, and its folder."""
    base = with_values(RECIPE, {"data.limit": 64, "train.epochs": 1, "model.options.decoder_attention": "softmax"})
    cell = Cell(kind, Entry("linear", "linear()"), 1e-3, 5)
    task = cell.task(base, folder, "cpu", 1, 1, chosen_then("finetune", None, 1, base))
    return train_cell(json.loads(json.dumps(task))), folder / cell.name


def test_fine_tuning_starts_from_the_cells_own_encoder_and_stands_beside_the_same_from_scratch(tmp_path):
    record, cell = fine_tuned("accuracy", tmp_path)
    told = {name: (cell / name / "args.toml").read_text() for name in ("finetune", "scratch")}
    assert f'checkpoint = "{cell / "run"}"' in told["finetune"]
    for name, text in told.items():
        assert ("checkpoint = " in text) == (name == "finetune")
        for same in ('attention = "linear"', "seed = 5", "epochs = 1", "limit = 64", 'name = "vit_nano_patch1_8"'):
            assert same in text, same
    results = {name: json.loads((cell / name / "result.json").read_text()) for name in told}
    values = record.values
    assert values["test_top1_percent"] == results["finetune"]["test_top1_percent"]
    assert values["test_correct"] == results["finetune"]["test_correct"]
    assert values["scratch_test_top1_percent"] == results["scratch"]["test_top1_percent"]
    for what, same in (("seconds", "train_seconds"), ("images_seen", "images_seen")):
        assert values[f"then_{what}"] == results["finetune"][same]
    assert values["test_loss"] == json.loads((cell / "run" / "result.json").read_text())["test_loss"]
    assert record.conditions["then"]["recipe"]["train"]["epochs"] == 1


def test_a_rate_is_judged_on_the_validation_part_and_nothing_of_the_test_part_is_seen(tmp_path):
    record, cell = fine_tuned("tuning", tmp_path)
    result = json.loads((cell / "finetune" / "result.json").read_text())
    assert record.values["validation_top1_percent"] == result["validation_top1_percent"]
    assert not [name for name in [*record.values, *result] if name.startswith(("test_", "scratch_", "random_"))]
    assert not (cell / "scratch").exists()


def test_a_probe_for_tuning_does_not_see_the_test_part(tmp_path, monkeypatch):
    stages = Stages(with_values(RECIPE, {"data.limit": 64, "train.epochs": 1}), tmp_path, "cpu", 1, test=False)
    seen = []

    def noted(model, dataset, **told):
        seen.append(dataset)
        return probe(model, dataset, **told)

    monkeypatch.setattr("saccade.comparison.stages.probe", noted)
    values, _ = stages.result(Then())
    assert "validation_top1_percent" in values
    assert not [name for name in values if name.startswith(("test_", "random_"))]
    # Nobody asks what a random encoder would have been worth.
    assert [dataset.test is stages.dataset.validation for dataset in seen] == [True]
    assert list(json.loads((tmp_path / "probe.json").read_text())) == ["pre-trained"]


def test_a_run_that_cannot_be_gone_on_with_is_begun_anew(tmp_path):
    stages = Stages(with_values(RECIPE, {"data.limit": 64, "train.epochs": 1}), tmp_path, "cpu", 1, test=True)
    other = with_values(stages.recipe, {"train.lr": 1e-4})
    before = stages.run("run", other).result
    assert stages.run("run", other).result == before
    after = stages.run("run", stages.recipe).result
    assert (before["lr"], after["lr"]) == (1e-4, stages.recipe.train.lr)


def test_a_run_that_another_process_is_at_work_on_is_left_alone(tmp_path):
    stages = Stages(with_values(RECIPE, {"data.limit": 64, "train.epochs": 1}), tmp_path, "cpu", 1, test=True)
    stages.run("run", stages.recipe)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for recipe in (stages.recipe, with_values(stages.recipe, {"train.lr": 1e-4})):
        with Run(tmp_path / "run", Silent(), resume=True), pytest.raises(Busy, match="another process is at work"):
            stages.run("run", recipe)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"model": "vit_nano_patch1_8"}, "--task mae with --model vit_nano_patch1_8"),
        ({"recipe": "digits"}, "is a classifier"),
        ({"task": "classify", "recipe": None, "model": "mae_nano_patch1_8"}, "add --task mae"),
        ({"task": "classify", "recipe": None, "then": "probe"}, "--then probe belongs to masked autoencoders"),
        (
            {"task": "classify", "recipe": None, "probe": None, "decoder_attention": "linear"},
            "--decoder-attention linear",
        ),
        ({"finetune_epochs": 3}, "without --then finetune"),
        ({"then": "finetune", "probe": None, "finetune_epochs": 0}, "--finetune-epochs 0"),
        ({"then": "finetune", "probe": "knn"}, "--probe knn with --then finetune"),
        ({"attentions": ["linear*1,softmax*1"]}, "--decoder-attention"),
        ({"decoder_attention": "sofmax"}, "did you mean 'softmax'"),
        ({"attentions": ["nystrom(landmarks=17)"]}, "landmarks must be"),
        ({"settings": {"model.options.mask_ratio": 0.99}}, "mask_ratio"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(wrong, word, tmp_path):
    asked = {"attentions": ["linear"], **SMALL, **TERMS, "output": tmp_path / "out", **wrong}
    with pytest.raises(ValueError, match=word.replace("(", r"\(")):
        saccade.compare(**asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--task", "mae", "--model", "vit_nano_patch1_8"],
        ["--then", "finetune"],
        ["--task", "mae", "--probe", "nearest"],
        ["--task", "cluster"],
    ],
    ids=" ".join,
)
def test_wrong_words_are_exit_2_and_one_sentence(wrong, capsys):
    assert run(["compare", "linear", *wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_all_mechanisms_are_those_that_fit_the_visible_tokens():
    said = []
    names = all_that_fit(RECIPE, said.append)
    assert [parse(name).name for name in names] == list_attentions()
    few = with_values(RECIPE, {"model.options.img_size": 2, "model.options.mask_ratio": 0.5})
    assert "softmax" in all_that_fit(few, said.append)
    assert any(line.startswith("left out: ") for line in said)


def test_a_question_is_told_apart_by_task_and_judgement():
    ways = [
        Then(),
        Then(method="knn"),
        chosen_then("finetune", None, None, RECIPE),
        chosen_then("finetune", None, 3, RECIPE),
    ]
    keys = {ask(RECIPE, [], "cpu", print, then).key for then in ways}
    assert len(keys) == 4
    assert [then_from(json.loads(json.dumps(then.plain()))) for then in ways] == ways
