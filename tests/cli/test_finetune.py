"""`finetune` as it is typed: what starts from what, and what is refused in a sentence."""

import json
import shlex

import pytest
import torch
from PIL import Image

import saccade
from saccade.cli import run
from saccade.models.sizes import create_model
from saccade.models.weights import save_model
from saccade.training.finetuning import finetuning_recipe

TINY = ["--set", "data.limit=48", "--batch-size", "16", "--epochs", "1", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def pretrained(tmp_path):
    """A digits autoencoder, saved as a run of `pretrain` leaves it."""
    model = create_model("mae_nano_patch1_8", "linear", seed=3)
    save_model(model, tmp_path / "pretrained", {"data": "digits"})
    return tmp_path / "pretrained"


def test_it_trains_and_says_what_it_started_from(pretrained, tmp_path, capsys):
    output = tmp_path / "run"
    assert run(["finetune", str(pretrained), *TINY, "--output", str(output), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    sha256 = json.loads((pretrained / "config.json").read_text())["weights_sha256"]
    assert (result["checkpoint"], result["checkpoint_sha256"]) == (str(pretrained), sha256)
    assert (result["model"], result["attention"], result["data"]) == ("vit_nano_patch1_8", "linear", "digits")
    line = (
        f"starts from {pretrained}: 28 tensors as they are, 0 brought to other shapes; fresh: fc_norm, head; unused: "
    )
    assert line in said.err
    assert line in (output / "train.log").read_text()
    recipe = (output / "args.toml").read_text()
    assert f'checkpoint = "{pretrained}"' in recipe
    assert f'checkpoint_sha256 = "{sha256}"' in recipe
    assert run(["evaluate", str(output), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1_percent"] == result["test_top1_percent"]


def test_the_default_folder_is_a_new_one_and_python_gives_the_same_bits(pretrained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["finetune", str(pretrained), *TINY, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["output"].startswith("runs/finetuned-vit_nano_patch1_8-linear-digits-seed0-")
    again = saccade.finetune(
        pretrained, epochs=1, batch_size=16, settings={"data.limit": 48}, device="cpu", threads=1, quiet=True
    )
    assert again.result["test_loss"] == result["test_loss"]
    assert again.recipe.train.layer_decay < 1


def test_a_file_that_was_trained_on_no_square_takes_the_size_that_is_given(tmp_path):
    made = create_model("mae_nano_patch1_8", img_size=(8, 12))
    torch.save(made.state_dict(), tmp_path / "oblong.pth")
    for size in (None, (12, 12)):
        with pytest.raises(ValueError, match="no square grid of patches; give the img_size that it was trained at"):
            finetuning_recipe(tmp_path / "oblong.pth", img_size=size, flags={})
    recipe = finetuning_recipe(tmp_path / "oblong.pth", img_size=(8, 12), flags={})
    assert tuple(recipe.model.options["img_size"]) == (8, 12)
    assert (recipe.model.name, recipe.model.options["num_heads"]) == ("vit_nano_patch1_8", 1)


def test_a_model_that_starts_from_another_is_not_that_from_nothing(pretrained):
    options = {"epochs": 1, "batch_size": 16, "device": "cpu", "threads": 1, "quiet": True}
    few = {"data.limit": 48, "train.lr": 1e-12}
    ours = saccade.finetune(pretrained, settings=few, **options).model
    scratch = saccade.train("vit_nano_patch1_8", "linear", recipe="finetune-digits", settings=few, **options).model
    there = create_model("mae_nano_patch1_8", "linear", seed=3)
    weight = "blocks.1.mlp.fc1.weight"
    torch.testing.assert_close(ours.get_parameter(weight), there.get_parameter(weight), rtol=0, atol=1e-8)
    assert (scratch.get_parameter(weight) - there.get_parameter(weight)).abs().max() > 0.01


def test_an_interrupted_run_goes_on_by_train_and_by_finetune(pretrained, tmp_path, capsys):
    output = str(tmp_path / "run")
    assert run(["finetune", str(pretrained), *TINY, "--output", output, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    on = ["--resume", "--output", output, "--device", "cpu", "--threads", "1", "--json"]
    for words in (["train", *on], ["finetune", *on], ["finetune", str(pretrained), *TINY, *on[:3], "--json"]):
        assert run(words) == 0
        assert json.loads(capsys.readouterr().out)["test_loss"] == result["test_loss"]
    for more, words in (
        (["--epochs", "2"], "train.epochs is 1 there and 2 here"),
        (["--layer-decay", "0.5"], "train.layer_decay is"),
    ):
        assert run(["finetune", *on, *more]) == 2
        assert words in capsys.readouterr().err
    assert run(["finetune", str(tmp_path / "other"), *on]) == 2
    assert f"{tmp_path / 'other'}: there is no such checkpoint" in capsys.readouterr().err


def test_what_did_not_start_from_a_checkpoint_is_not_gone_on_with(tmp_path, capsys):
    output = str(tmp_path / "run")
    assert run(["train", *TINY, "--output", output]) == 0
    assert run(["finetune", "--resume", "--output", output, *TINY[-4:]]) == 2
    assert f"started from no checkpoint; `saccade train --resume --output {output}`" in capsys.readouterr().err


def test_without_a_checkpoint_it_says_what_to_give(tmp_path, capsys):
    assert run(["finetune", "--data", "digits"]) == 2
    assert "name the CHECKPOINT to start from, a run's folder or a .pth" in capsys.readouterr().err
    assert run(["finetune", "--resume"]) == 2
    assert "--resume: name the folder of the run to go on with as --output" in capsys.readouterr().err
    assert run(["finetune", str(tmp_path / "nope")]) == 2
    assert "there is no such file or folder; give the folder of a run, or a file" in capsys.readouterr().err


def test_what_is_pre_trained_goes_on_by_the_commands_that_it_names(tmp_path, capsys):
    folder = str(tmp_path / "my run")
    assert run(["pretrain", *TINY, "--output", folder]) == 0
    (told,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("next: "))
    named = [shlex.split(words)[1:] for words in told.split("`")[1::2]]
    assert [words[0] for words in named] == ["reconstruct", "probe", "finetune"]
    picture, tuned = str(tmp_path / "made.png"), str(tmp_path / "tuned")
    for words, more in zip(
        named, (["--output", picture], ["--method", "knn"], [*TINY[2:6], "--output", tuned]), strict=True
    ):
        assert run([*words, *more, *TINY[-4:]]) == 0


def test_other_weights_under_the_same_path_are_noticed(pretrained, tmp_path, capsys):
    output = tmp_path / "run"
    assert run(["finetune", str(pretrained), *TINY, "--output", str(output)]) == 0
    save_model(create_model("mae_nano_patch1_8", "linear", seed=4), pretrained, {"data": "digits"})
    assert run(["train", "--recipe", str(output / "args.toml"), "--output", str(tmp_path / "again")]) == 2
    assert "its weights are no longer those of model.checkpoint_sha256" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def coloured_pictures(path, side=8):
    for number, name in enumerate(("cat", "dog")):
        (path / name).mkdir(parents=True)
        for index in range(36):
            Image.new("RGB", (side, side), (40 * number, 7 * index, 100)).save(path / name / f"{index}.png")
    return path


def test_pictures_of_another_size_and_of_other_channels(pretrained, tmp_path, capsys):
    data = ["--data", str(coloured_pictures(tmp_path / "pictures", side=12)), "--img-size", "12", *TINY]
    assert run(["finetune", str(pretrained), *data, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "was trained on images of 1 channel, and these have 3: --convert-channels" in said
    assert not (tmp_path / "run").exists()
    assert run(["finetune", str(pretrained), *data, "--convert-channels", "--output", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "weights converted to 3 channels: patch_embed.proj.weight 32 x 1 x 1 x 1 to 32 x 3 x 1 x 1" in said
    assert "sines of the new grid: 8 x 8 patches to 12 x 12" in said
    assert (
        run(["finetune", str(pretrained), *data, "--set", "data.in_chans=1", "--output", str(tmp_path / "grey")]) == 0
    )


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--attention", "softmax"], "was trained with the attention linear, and the model has softmax"),
        (["--set", "model.options.embed_dim=64"], "an encoder of embed_dim=32, and the model is of embed_dim=64"),
        (["--layer-decay", "0"], "layer_decay"),
        (["--recipe", "mae-digits", "--set", "model.name=mae_nano_patch1_8"], "is a masked autoencoder"),
    ],
)
def test_what_does_not_fit_is_refused(pretrained, tmp_path, capsys, options, words):
    arguments = ["finetune", str(pretrained), *TINY, *options, "--output", str(tmp_path / "run")]
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.strip().splitlines()[-1].startswith("saccade: ")
    assert not (tmp_path / "run").exists()


def test_what_is_no_model_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    for name, words in {
        "empty": "is no folder of a saved model",
        "missing.pth": "there is no such file",
        "evil.pth": "cannot be read as tensors and plain values",
        "other.pth": "holds no masked autoencoder",
    }.items():
        assert run(["finetune", str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert words in said.err
        assert "ran" not in said.out.split()


def test_a_class_of_ones_own_runs_where_it_is_trusted(pretrained, tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text("from saccade.attention.linear import Linear\nclass Mine(Linear): pass\n")
    save_model(create_model("mae_nano_patch1_8", f"{mine}:Mine"), tmp_path / "own", {"data": "digits"})
    arguments = ["finetune", str(tmp_path / "own"), *TINY, "--output", str(tmp_path / "run")]
    assert run(arguments) == 2
    assert f"--trust-class {mine}:Mine" in capsys.readouterr().err
    assert run([*arguments, "--trust-class", f"{mine}:Mine"]) == 0


def test_heads_and_attention_of_a_file_are_as_published_or_as_told(tmp_path):
    model = create_model("mae_nano_patch1_8")
    torch.save({"model": model.state_dict()}, tmp_path / "mae.pth")
    usual = finetuning_recipe(tmp_path / "mae.pth", flags={})
    assert (usual.model.name, usual.model.attention) == ("vit_nano_patch1_8", "softmax")
    assert usual.model.options["num_heads"] == 1
    told = {"model.options.num_heads": 4}
    assert finetuning_recipe(tmp_path / "mae.pth", flags={}, settings=told).model.options["num_heads"] == 4


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("mae_nano_patch1_8", 20), ("mae_micro_patch4_32", 10), ("mae_tiny_patch16_224", 100)],
)
def test_the_recipe_fits_the_size_of_the_images(name, recipe, tmp_path):
    with torch.device("meta"):
        model = create_model(name)
    save_model(model.to_empty(device="cpu"), tmp_path / "saved")
    chosen = finetuning_recipe(tmp_path / "saved", flags={})
    assert chosen.train.epochs == recipe
    assert chosen.model.options["global_pool"] == "avg"
    assert 0 < chosen.train.layer_decay < 1
