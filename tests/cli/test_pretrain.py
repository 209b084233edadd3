"""`pretrain`, and `--resume`, as they are typed."""

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

SMALL = ["--set", "data.limit=48", "--batch-size", "16"]
ON_CPU = ["--device", "cpu", "--threads", "1"]


@pytest.fixture
def recipes_seen(monkeypatch):
    """The recipes that commands come to; nothing is trained."""
    seen = []

    def stop(recipe, **options):
        seen.append(recipe)
        raise ValueError("seen")

    monkeypatch.setattr(loop, "train", stop)
    return seen


@pytest.fixture
def pretrained(tmp_path, capsys):
    """A run's folder, and what it printed."""
    folder = tmp_path / "run"
    assert run(["pretrain", *SMALL, "--epochs", "2", *ON_CPU, "-o", str(folder), "--json"]) == 0
    said = capsys.readouterr()
    return folder, json.loads(said.out), said.err


def test_pretrain_prints_its_result_and_leaves_its_files(pretrained):
    folder, result, said = pretrained
    assert {**json.loads((folder / "result.json").read_text()), "output": str(folder)} == result
    assert {"curves.png", "args.toml", "env.json", "train.log", "metrics.jsonl", "model.safetensors"} < {
        path.name for path in folder.iterdir()
    }
    assert result["test_loss"] > 0
    assert "baseline_loss: " in said
    assert isinstance(saccade.load_model(folder)[0], saccade.MaskedAutoencoder)


def test_its_own_flags_reach_the_model(recipes_seen):
    words = "--attention linear --decoder-attention softmax --mask-ratio 0.5 --norm-pix-loss --img-size 16"
    run(["pretrain", "--model", "mae_micro_patch4_32", *words.split()])
    (recipe,) = recipes_seen
    assert recipe.model.attention == "linear"
    assert recipe.model.options == {
        "img_size": 16,
        "decoder_attention": "softmax",
        "mask_ratio": 0.5,
        "norm_pix_loss": True,
    }


def test_what_is_not_said_stays_the_recipes(recipes_seen):
    run(["pretrain", "--recipe", "mae"])
    run(["pretrain", "--recipe", "mae", "--no-norm-pix-loss"])
    assert [recipe.model.options["norm_pix_loss"] for recipe in recipes_seen] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        ([], "mae_nano_patch1_8"),
        (["--data", "some/cifar10"], "mae_micro_patch4_32"),
        (["--data", "photos"], "mae_base_patch16_224"),
    ],
)
def test_the_recipe_fits_the_data(recipes_seen, arguments, model):
    run(["pretrain", *arguments])
    assert recipes_seen[0].model.name == model


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrain", "--mask-ratio", "1"], "mask_ratio=1.0 of 64 patches"),
        (["pretrain", "--mask-ratio", "0"], "mask_ratio=0.0 of 64 patches"),
        (["pretrain", "--norm-pix-loss"], "norm_pix_loss with patches of one value: a single value has no deviation"),
        (["pretrain", "--decoder-attention", "nystrm"], "did you mean 'nystrom'"),
        (["pretrain", "--model", "vit_nano_patch1_8"], "`saccade train --model vit_nano_patch1_8` trains it"),
        (["train", "--model", "mae_nano_patch1_8"], "`saccade pretrain --model mae_nano_patch1_8` trains it"),
        (["train", "--recipe", "mae-digits"], "`saccade pretrain --model mae_nano_patch1_8` trains it"),
        (["pretrain", "--set", "augment.mixup=0.8"], "augment.mixup = 0.8: mae_nano_patch1_8 learns without labels"),
        (["pretrain", "--resume"], "--resume: name the folder of the run to go on with as --output"),
        (["pretrain", "--resume", "-o", "nothing"], "--resume: there is no run in nothing"),
        (["train", "--resume", "-o", "nothing"], "--resume: there is no run in nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("saccade: ")
    assert error.count("\n") == 1
    assert not any(tmp_path.rglob("args.toml"))


@pytest.fixture
def heap(tmp_path):
    """A folder with pictures right in it."""
    (tmp_path / "heap").mkdir()
    for number in range(40):
        Image.new("L", (8, 8), 37 * number % 256).save(tmp_path / "heap" / f"{number}.png")
    return str(tmp_path / "heap")


def test_a_folder_of_pictures_is_pretrained_on_and_looked_at_and_no_classifier_is_made_of_it(tmp_path, capsys, heap):
    words = ["--model", "mae_nano_patch1_8", "--batch-size", "16", "--epochs", "1", *ON_CPU]
    assert run(["pretrain", "--data", heap, *words, "-o", str(tmp_path / "run")]) == 0
    assert "the pictures are taken without classes" in capsys.readouterr().err
    made = str(tmp_path / "made.png")
    assert run(["reconstruct", str(tmp_path / "run"), "--count", "2", *ON_CPU, "-o", made, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["picture"].startswith("validation (")
    for verb in (
        ["train", "--data", heap, "--model", "vit_nano_patch1_8"],
        ["probe", str(tmp_path / "run")],
        ["finetune", str(tmp_path / "run")],
        ["data", heap],
    ):
        assert run(verb) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith(f"saccade: {heap}: '0.png' lies in no class folder; put every picture into one")
        assert said[-1].endswith("learn without classes with `saccade pretrain`")


def test_a_finished_run_says_so_and_prints_its_result(pretrained, capsys):
    folder, result, _ = pretrained
    assert run(["pretrain", "--resume", "-o", str(folder), *ON_CPU, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == result
    assert f"the run in {folder} is finished; nothing was left to do" in said.err


def test_to_resume_by_another_recipe_is_refused(pretrained, capsys):
    folder, _, _ = pretrained
    assert run(["pretrain", "--resume", "-o", str(folder), *ON_CPU, "--epochs", "9"]) == 2
    assert "this differs: train.epochs is 2 there and 9 here" in capsys.readouterr().err


def test_each_verb_resumes_its_own_runs(pretrained, capsys):
    folder, _, _ = pretrained
    assert run(["train", "--resume", "-o", str(folder), *ON_CPU]) == 2
    assert "`saccade pretrain --model mae_nano_patch1_8` trains it" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_by_which_command_it_goes_on(tmp_path, capsys, number, code):
    folder = tmp_path / "my run"
    process = subprocess.Popen(
        [sys.executable, "-m", "saccade", "pretrain", *SMALL, "--epochs", "100000", *ON_CPU, "-o", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = folder / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 1) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    told = f"saccade pretrain --resume --output '{folder}' --device cpu --threads 1"
    assert f"to go on from the last finished epoch: {told}" in said
