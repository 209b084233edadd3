"""`train`, `evaluate` and `recipes` as they are typed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import saccade
from saccade.cli import run
from saccade.training import loop
from saccade.training.recipes import list_recipes

TINY = ["--set", "data.limit=48", "--set", "model.options.depth=1", "--batch-size", "16"]
SMALL = [*TINY, "--epochs", "1"]
ON_CPU = ["--device", "cpu", "--threads", "1"]


@pytest.fixture
def trained(tmp_path, capsys):
    """A run's folder, and what it printed."""
    folder = tmp_path / "run"
    assert run(["train", *SMALL, *ON_CPU, "--output", str(folder), "--json"]) == 0
    said = capsys.readouterr()
    return folder, json.loads(said.out), said.err


@pytest.fixture
def recipes_seen(monkeypatch):
    """The recipes that commands come to; nothing is trained."""
    seen = []

    def stop(recipe, **options):
        seen.append(recipe)
        raise ValueError("seen")

    monkeypatch.setattr(loop, "train", stop)
    return seen


def folder_of_pictures(path, classes=("cat", "dog"), count=12, side=32):
    for number, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (side, side), (40 * number, 7 * index, 100)).save(path / name / f"{index}.png")
    return path


def test_train_prints_its_result_and_leaves_its_files(trained):
    folder, result, said = trained
    assert {**json.loads((folder / "result.json").read_text()), "output": str(folder)} == result
    assert result["images_seen"] == 48
    assert {"curves.png", "args.toml", "env.json", "train.log", "metrics.jsonl"} < {
        path.name for path in folder.iterdir()
    }
    assert "max mem: " in said
    assert f"written: {folder}" in said
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "train_loss", "eval_loss", "eval_top1", "lr"]
    assert len(rows) == 1


def test_evaluate_finds_what_train_found(trained, capsys):
    folder, result, _ = trained
    assert run(["evaluate", str(folder), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["top1_percent"], found["images"]) == (result["test_top1_percent"], 360)
    assert found["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert run(["evaluate", str(folder), "--split", "validation", "--batch_size", "100", "--device", "cpu"]) == 0
    assert f"{result['validation_top1_percent']:.4g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "tests"], "--split tests: must be test or validation or train"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--device", "tpu"], "--device tpu: this machine has "),
    ],
)
def test_evaluate_refuses_what_is_not_there(trained, capsys, arguments, said):
    assert run(["evaluate", str(trained[0]), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_evaluate_refuses_data_with_other_classes(trained, tmp_path, capsys):
    pictures = folder_of_pictures(tmp_path / "pictures", side=8)
    assert run(["evaluate", str(trained[0]), "--data", str(pictures), "--device", "cpu"]) == 2
    assert "has the classes cat, dog, and the model was trained on 0, 1, 2" in capsys.readouterr().err


def test_evaluate_refuses_a_model_that_does_not_say_what_it_was_trained_on(tmp_path, capsys):
    saccade.save_model(saccade.create_model("vit_nano_patch1_8"), tmp_path / "model")
    assert run(["evaluate", str(tmp_path / "model"), "--device", "cpu"]) == 2
    assert (
        "does not say amp_dtype, classes, convert_to_chans, crop_pct, data, limit, mean, on_bad_image, std"
        in capsys.readouterr().err
    )


def test_a_model_with_a_class_of_ones_own_is_evaluated_where_that_is_trusted(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text("from saccade.attention.softmax import Softmax\nclass Mine(Softmax): pass\n")
    arguments = ["--attention", f"{mine}:Mine", *SMALL, *ON_CPU, "--output", str(tmp_path / "run")]
    assert run(["train", *arguments]) == 0
    assert run(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "--trust-class" in capsys.readouterr().err
    assert run(["evaluate", str(tmp_path / "run"), "--device", "cpu", "--trust-class", f"{mine}:Mine"]) == 0


@pytest.mark.parametrize("model", ["vit", "vitl", "vitx"])
def test_the_originals_line_is_understood_as_typed(recipes_seen, model):
    line = f"--model {model} --epochs 40 --lr 1e-3 --device cpu --batch_size 128 --logging_step 50 --img_size 32"
    assert run(["train", *line.split()]) == 2
    (recipe,) = recipes_seen
    assert (recipe.model.name, recipe.data.name) == (model, "cifar10")
    assert recipe.model.attention == ("softmax" if model == "vit" else "linear(bias=False)")
    assert recipe.model.options == {"img_size": 32}
    told = recipe.train
    assert (told.epochs, told.lr, told.batch_size, told.logging_step) == (40, 1e-3, 128, 50)


def test_the_originals_line_runs(tmp_path, capsys):
    pictures = folder_of_pictures(tmp_path / "pictures")
    line = "--model vit --epochs 1 --lr 1e-3 --device cpu --batch_size 8 --logging_step 1 --img_size 32"
    assert run(["train", *line.split(), "--data", str(pictures), "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "parameters               828290" in said.out
    assert "time: " in said.err


@pytest.mark.parametrize(
    ("arguments", "model", "data", "recipe_data"),
    [
        ([], "vit_nano_patch1_8", "digits", {}),
        (["--data", "some/cifar10"], "vit_micro_patch4_32", "some/cifar10", {"flip": 0.5}),
        (["--data", "photos"], "vit_small_patch16_224", "photos", {"mixup": 0.8}),
        (["--model", "vit_base_patch16_224", "--data", "photos"], "vit_base_patch16_224", "photos", {"mixup": 0.8}),
        (["--model", "vit_micro_conv_32", "--data", "photos"], "vit_micro_conv_32", "photos", {"flip": 0.5}),
        (["--recipe", "digits", "--set", "augment.flip=0.25"], "vit_nano_patch1_8", "digits", {"flip": 0.25}),
    ],
)
def test_the_recipe_fits_model_and_data(recipes_seen, arguments, model, data, recipe_data):
    run(["train", *arguments])
    (recipe,) = recipes_seen
    assert (recipe.model.name, recipe.data.name) == (model, data)
    for name, value in recipe_data.items():
        assert getattr(recipe.augment, name) == value


def test_flags_beat_the_recipe_and_settings_beat_flags(recipes_seen, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("[train]\nlr = 0.25\nepochs = 3\nbatch_size = 4\n")
    run(["train", "--recipe", str(mine), "--epochs", "5", "--batch_size", "6", "--set", "train.batch_size=7"])
    told = recipes_seen[0].train
    assert (told.lr, told.epochs, told.batch_size, told.weight_decay) == (0.25, 5, 7, 0.05)


def test_two_sides_may_differ(recipes_seen):
    run(["train", "--img-size", "16", "8", "--attention", "linear"])
    assert recipes_seen[0].model.options == {"img_size": (16, 8)}
    assert recipes_seen[0].model.attention == "linear"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "0"], "train.epochs = 0: must be at least 1"),
        (["--attention", "nystrm"], "did you mean 'nystrom'"),
        (["--attention", "nystrom(landmarks=64)"], "landmarks"),
        (["--model", "vit_nano"], "there is no model 'vit_nano'"),
        (["--set", "train.ls=1"], "did you mean train.lr?"),
        (["--recipe", "digit"], "did you mean digits?"),
        (["--recipe", "no.toml"], "--recipe no.toml: cannot be read"),
        (["--img-size", "30", "--model", "vit_micro_patch4_32"], "the patch must divide the image"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has "),
        (["--threads", "0"], "--threads 0: must be at least 1"),
        (["--dtype", "fp16"], "train.dtype = 'fp16': must be 'fp32' or 'bf16'"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("saccade: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["train", "--data", "no/such/folder", "--output", str(tmp_path / "file" / "run")]) == 2
    assert "cannot be written (Not a directory); give a folder that you may write to" in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_is_refused_and_changes_nothing(trained, capsys):
    folder, _, _ = trained
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(["train", *SMALL, *ON_CPU, "--output", str(folder)]) == 2
    assert "holds another run's files, which stay" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_interrupted_run_keeps_its_finished_epochs(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "saccade", "train", *TINY, "--epochs", "100000", *ON_CPU, "--output", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = folder / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 1) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; finished runs and epochs are kept" in said
    epochs = metrics.read_text().count("\n")
    # The last one may have been interrupted while it was saved; the one before is whole.
    assert run(["evaluate", str(folder / "checkpoints" / f"epoch-{epochs - 2}"), "--device", "cpu"]) == 0


def test_recipes_lists_all_and_prints_one_as_a_file_that_train_takes(capsys, tmp_path, recipes_seen):
    assert run(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in list_recipes())
    assert run(["recipes", "digits"]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    run(["train", "--recipe", str(tmp_path / "mine.toml")])
    run(["train", "--recipe", "digits"])
    assert recipes_seen[0] == recipes_seen[1]


def test_recipes_as_json_is_a_line_each(capsys):
    assert run(["recipes", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list_recipes()
    verbs = tuple(f"saccade {verb} " for verb in ("train", "pretrain", "finetune"))
    assert all(row["command"].startswith(verbs) and row["minutes"] and row["machine"] for row in rows)
