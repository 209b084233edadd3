"""`reconstruct` as it is typed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade.cli import run

ON_CPU = ["--device", "cpu", "--threads", "1"]
FACTS = {
    "data": "digits",
    "on_bad_image": "error",
    "limit": 100,
    "convert_to_chans": None,
    "classes": [str(digit) for digit in range(10)],
    "crop_pct": 1.0,
    "mean": [0.3],
    "std": [0.4],
    "amp_dtype": None,
    "seed": 5,
}


def saved(folder, attention="softmax", name="mae_nano_patch1_8", facts=FACTS, **options):
    saccade.save_model(saccade.create_model(name, attention, depth=1, **options), folder, facts)
    return str(folder)


def reconstructed(capsys, tmp_path, *arguments):
    """The lines of JSON, and what was noted."""
    file = str(tmp_path / "made.png")
    assert run(["reconstruct", *map(str, arguments), *ON_CPU, "--output", file, "--json"]) == 0
    said = capsys.readouterr()
    assert f"written: {file}" in said.err
    return [json.loads(line) for line in said.out.splitlines()]


def refused(capsys, tmp_path, *arguments):
    """The one sentence; nothing is written."""
    assert run(["reconstruct", *map(str, arguments), *ON_CPU, "--output", str(tmp_path / "made.png")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert not (tmp_path / "made.png").exists()
    return said.err.splitlines()[-1]


def photo(path, size=(20, 16)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_pictures_of_the_data_it_was_trained_on_are_the_default(tmp_path, capsys):
    rows = reconstructed(capsys, tmp_path, saved(tmp_path / "mae"), "--count", "3")
    assert len(rows) == 3
    assert {"model": "softmax", "mask_ratio": 0.75, "norm_pix_loss": False}.items() <= rows[0].items()
    again = reconstructed(capsys, tmp_path, saved(tmp_path / "mae"), "--count", "2")
    assert again == rows[:2]
    others = reconstructed(capsys, tmp_path, saved(tmp_path / "mae"), "--count", "2", "--seed", "1")
    assert {row["picture"] for row in others} != {row["picture"] for row in again}


def test_files_and_several_models_stand_side_by_side(tmp_path, capsys):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", "linear")
    pictures = [photo(tmp_path / "one.png"), photo(tmp_path / "two.jpg", (8, 8))]
    rows = reconstructed(capsys, tmp_path, first, *pictures, "--also", second)
    assert [(row["model"], row["picture"]) for row in rows] == [
        ("softmax", "one.png"),
        ("softmax", "two.jpg"),
        ("linear", "one.png"),
        ("linear", "two.jpg"),
    ]
    # The same patches of the same pictures: predicting the mean loses the same.
    assert [row["mean_loss"] for row in rows[:2]] == [row["mean_loss"] for row in rows[2:]]
    with Image.open(tmp_path / "made.png") as made:
        assert made.width > 4 * 160


def test_models_of_one_attention_are_told_apart_by_their_folders(tmp_path, capsys):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", seed=1)
    rows = reconstructed(capsys, tmp_path, first, "--also", second, "--count", "1")
    assert [row["model"] for row in rows] == [f"softmax ({first})", f"softmax ({second})"]


def test_losses_are_printed_as_a_table(tmp_path, capsys):
    assert run(["reconstruct", saved(tmp_path / "mae"), *ON_CPU, "-o", str(tmp_path / "a.png"), "--count", "1"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["picture", "model", "loss", "on", "hidden", "patches", "of", "predicting", "the", "mean"]
    assert "softmax" in row


def test_an_absolute_error_is_called_so(tmp_path, capsys):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", "linear", objective="simmim")
    arguments = [first, "--also", second, "--count", "1"]
    assert [row["absolute"] for row in reconstructed(capsys, tmp_path, *arguments)] == [False, True]
    assert run(["reconstruct", *arguments, *ON_CPU, "-o", str(tmp_path / "a.png")]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[-1] for row in rows] == ["error", "squared", "absolute"]


@pytest.mark.parametrize("again", ["mae", "./mae"])
def test_a_model_given_twice_is_refused(tmp_path, capsys, again):
    first = saved(tmp_path / "mae")
    said = refused(capsys, tmp_path, first, "--also", f"{tmp_path}/{again}", "--count", "1")
    assert f"{first}: given more than once" in said


def test_a_count_of_picture_files_is_refused(tmp_path, capsys):
    said = refused(capsys, tmp_path, saved(tmp_path / "mae"), photo(tmp_path / "one.png"), "--count", "3")
    assert "--count 3 beside picture files, which are all shown: leave --count out" in said


def test_what_files_of_others_do_not_say_is_not_said_of_a_run(tmp_path, capsys):
    said = refused(capsys, tmp_path, saved(tmp_path / "mae"), "--norm-pix-loss", "--count", "1")
    assert "--norm-pix-loss: is said of checkpoint files of others" in said


def test_another_share_is_hidden_where_asked(tmp_path, capsys):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", "linear", mask_ratio=0.5)
    assert "give --mask-ratio" in refused(capsys, tmp_path, first, "--also", second)
    rows = reconstructed(capsys, tmp_path, first, "--also", second, "--mask-ratio", "0.6", "--count", "1")
    assert [row["mask_ratio"] for row in rows] == [0.6, 0.6]


def test_a_checkpoint_of_others_reconstructs_colour_pictures(tmp_path, capsys):
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": 64, "depth": 1, "decoder_embed_dim": 32, "decoder_depth": 1}
    model = saccade.create_model("mae_tiny_patch16_224", num_heads=1, **sizes)
    torch.save({"model": model.state_dict()}, tmp_path / "mae.pth")
    rows = reconstructed(capsys, tmp_path, tmp_path / "mae.pth", photo(tmp_path / "one.png"), "--norm-pix-loss")
    assert rows[0]["norm_pix_loss"] is True
    # Of normalised patches, the mean is as far off as the variance of a sample says.
    assert rows[0]["mean_loss"] == pytest.approx(11 / 12, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mask-ratio", "1"], "at least one must be hidden and two visible"),
        (["--mask-ratio", "0"], "at least one must be hidden and two visible"),
        (["--count", "0"], "--count 0: must be at least 1"),
        (["missing.png"], "missing.png: there is no such picture"),
        (["missing.png", "--data", "digits"], "give one or the other"),
        (["--visible", "none"], "--visible"),
        (["--data", "nowhere"], "nowhere: there is no such data"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(tmp_path, capsys, arguments, words):
    assert words in refused(capsys, tmp_path, saved(tmp_path / "mae"), *arguments)


@pytest.mark.parametrize("output", ["made.jpg", "missing/made.png"])
def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path, capsys, output):
    assert run(["reconstruct", saved(tmp_path / "mae"), "-o", str(tmp_path / output)]) == 2
    assert "give the name of a .png file in a folder that is there" in capsys.readouterr().err


def test_a_classifier_reconstructs_nothing(tmp_path, capsys):
    folder = saved(tmp_path / "vit", name="vit_nano_patch1_8")
    assert "holds no masked autoencoder with its decoder" in refused(capsys, tmp_path, folder)


def test_images_of_many_channels_are_refused(tmp_path, capsys):
    folder = saved(tmp_path / "mae", in_chans=5)
    assert "takes images of 5 channels, and a picture shows 1 or 3" in refused(capsys, tmp_path, folder)


def test_other_patches_are_refused(tmp_path, capsys):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", patch_size=2)
    assert "so they cannot see the same patches" in refused(capsys, tmp_path, first, "--also", second)
