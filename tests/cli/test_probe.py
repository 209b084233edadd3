"""`probe` as it is typed."""

import json
import pickle
import subprocess
import sys

import pytest
import torch
from PIL import Image

import saccade
from saccade.cli import run
from saccade.models.mae_weights import transformers_state
from saccade.training import probed as probed_module

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


def saved(folder, name="mae_nano_patch1_8", facts=FACTS, **options):
    """A model that no training touched."""
    model = saccade.create_model(name, depth=1, seed=5, **options)
    saccade.save_model(model, folder, facts)
    return model


def probed(capsys, *arguments):
    """The lines of JSON, and what was noted."""
    assert run(["probe", *map(str, arguments), *ON_CPU, "--json"]) == 0
    said = capsys.readouterr()
    return [json.loads(line) for line in said.out.splitlines()], said.err


def refused(capsys, *arguments):
    """The one sentence."""
    assert run(["probe", *map(str, arguments), *ON_CPU]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()[-1]


def test_all_methods_and_the_random_start_stand_in_one_table(tmp_path, capsys):
    saved(tmp_path / "mae")
    assert run(["probe", str(tmp_path / "mae"), *ON_CPU]) == 0
    said = capsys.readouterr()
    about, header, *rows = said.out.splitlines()
    assert about.startswith(
        "mae_nano_patch1_8 with softmax, frozen: its class token, on digits; learned from 100 images"
    )
    assert " ".join(header.split()) == "probe chosen validation % test % random weights % gained, points"
    assert [row.split()[0] for row in rows] == ["linear", "linear-bn", "knn"]
    # Nothing was trained, and the random start is that of the run's own seed.
    assert all(row.split()[-1] == "+0.00" for row in rows)
    assert "features of 820 images by the random encoder" in said.err


def test_json_is_a_line_a_probe(tmp_path, capsys):
    model = saved(tmp_path / "mae")
    rows, _ = probed(capsys, tmp_path / "mae", "--method", "linear-bn", "--pool", "avg")
    assert [row["encoder"] for row in rows] == ["trained", "random"]
    dataset = saccade.load_data("digits", img_size=8, limit=100)
    expected = saccade.probe(model, with_facts(dataset), method="linear_bn", pool="avg")
    assert expected.items() <= rows[0].items()
    assert {"model": "mae_nano_patch1_8", "attention": "softmax", "data": "digits"}.items() <= rows[0].items()


def with_facts(dataset):
    from dataclasses import replace

    return replace(dataset, mean=(0.3,), std=(0.4,))


def test_the_random_start_can_be_left_out(tmp_path, capsys):
    saved(tmp_path / "mae")
    rows, said = probed(capsys, tmp_path / "mae", "--method", "knn", "--k", "3", "--no-random")
    assert [(row["encoder"], row["method"], row["settings"]["k"]) for row in rows] == [("trained", "knn", 3)]
    assert "random" not in said


def test_a_classifier_is_probed_too(tmp_path, capsys):
    saved(tmp_path / "vit", "vit_nano_patch1_8")
    rows, _ = probed(capsys, tmp_path / "vit", "--method", "knn")
    assert rows[0]["model"] == "vit_nano_patch1_8"


def test_what_a_classifier_s_head_reads_is_probed(tmp_path, capsys):
    """As `saccade finetune` makes them: the last norm is behind the mean of the patches."""
    saved(tmp_path / "vit", "vit_nano_patch1_8", global_pool="avg")
    (own,), _ = probed(capsys, tmp_path / "vit", "--method", "knn", "--no-random")
    assert own["settings"]["pool"] == "avg"
    (token,), _ = probed(capsys, tmp_path / "vit", "--method", "knn", "--no-random", "--pool", "token")
    assert token["settings"]["pool"] == "token"
    assert run(["probe", str(tmp_path / "vit"), "--method", "knn", *ON_CPU]) == 0
    assert "frozen: its mean of the patches, on digits" in capsys.readouterr().out


def square(**options):
    """A masked autoencoder of the width that files of others' are read with: heads of 64."""
    sizes = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 64, "depth": 1, "num_heads": 1}
    decoder = {"decoder_embed_dim": 32, "decoder_depth": 1}
    return saccade.create_model("mae_tiny_patch16_224", **sizes, **decoder, **options)


@pytest.mark.parametrize("layout", ["facebookresearch", "transformers", "encoder alone"])
def test_files_of_others_are_probed(tmp_path, capsys, layout):
    model = square()
    state = transformers_state(model) if layout == "transformers" else model.state_dict()
    if layout == "encoder alone":
        state = {key: value for key, value in state.items() if not key.startswith(("decoder", "mask_token"))}
    torch.save({"model": state}, tmp_path / "mae.pth")
    rows, said = probed(capsys, tmp_path / "mae.pth", "--data", "digits", "--method", "knn", "--no-random")
    assert "does not say how it was trained: taken as 1 heads of softmax" in said
    # Its own crop of 224 / 256.
    dataset = saccade.load_data("digits", img_size=8, crop_pct=224 / 256)
    assert saccade.probe(model, dataset, method="knn").items() <= rows[0].items()


def test_a_file_of_others_does_not_name_its_data(tmp_path, capsys):
    torch.save(square().state_dict(), tmp_path / "mae.pth")
    assert "does not say what it was trained on: give --data" in refused(capsys, tmp_path / "mae.pth")


def test_a_pickle_of_anything_else_is_refused_and_does_not_run(tmp_path, capsys):
    (tmp_path / "mae.pth").write_bytes(pickle.dumps(print, protocol=2))
    assert "cannot be read as tensors and plain values" in refused(capsys, tmp_path / "mae.pth", "--data", "digits")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(print, protocol=2), "UnpicklingError: Unsupported global: GLOBAL print was not an allowed"),
        (b"", "EOFError"),
        (b"a text file", "IndexError"),
        (b"PK\x03\x04", "RuntimeError: PytorchStreamReader failed"),
    ],
    ids=["pickle", "empty", "text", "cut zip"],
)
def test_the_reason_is_named_and_no_unsafe_way_around_it(tmp_path, capsys, content, reason):
    (tmp_path / "mae.pth").write_bytes(content)
    said = refused(capsys, tmp_path / "mae.pth", "--data", "digits")
    assert f"which is all that is read: {reason}" in said
    assert "weights_only" not in said


def test_of_a_pickle_that_torch_warns_of_our_sentence_is_all_that_is_said(tmp_path):
    """In a process of its own, as pytest keeps warnings from stderr."""
    (tmp_path / "mae.pth").write_bytes(pickle.dumps(print, protocol=4))
    command = [sys.executable, "-m", "saccade", "probe", str(tmp_path / "mae.pth"), "--data", "digits", *ON_CPU]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"saccade: {tmp_path}/mae.pth cannot be read as tensors and plain values, which")
    assert found.stderr.count("\n") == 1


def test_a_state_dict_of_another_kind_is_refused(tmp_path, capsys):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "net.pth")
    assert "holds no masked autoencoder" in refused(capsys, tmp_path / "net.pth", "--data", "digits")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "svm"], "--method svm: must be linear, linear-bn, knn or all"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--k", "101"], "k=101 neighbours of 100 training images: must be 1..100"),
        (["--data", "nowhere"], "nowhere: there is no such data"),
        (["--pool", "max"], "--pool"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(tmp_path, capsys, arguments, words):
    saved(tmp_path / "mae")
    assert words in refused(capsys, tmp_path / "mae", *arguments)


@pytest.mark.parametrize(("mode", "noted"), [("RGB", 1), ("L", 0)])
def test_colours_that_a_grey_model_does_not_see_are_noted(tmp_path, capsys, mode, noted):
    saved(tmp_path / "mae")
    for number in range(20):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (8, 8), (7 * number, 90, 30) if mode == "RGB" else 7 * number).save(folder / f"{number}.png")
    data = str(tmp_path / "pictures")
    _, said = probed(capsys, tmp_path / "mae", "--data", data, "--method", "knn", "--k", "1", "--no-random")
    assert said.count(f"{data} has pictures in colour, and {tmp_path}/mae takes one channel: they are turned") == noted


@pytest.mark.parametrize("k", ["0", "101"])
def test_neighbours_that_are_not_there_are_refused_before_any_feature(tmp_path, capsys, monkeypatch, k):
    def extract(*arguments, **options):
        raise AssertionError("features were computed")

    monkeypatch.setattr(probed_module, "extract", extract)
    saved(tmp_path / "mae")
    assert f"k={k} neighbours of 100 training images: must be 1..100" in refused(capsys, tmp_path / "mae", "--k", k)


@pytest.mark.parametrize("method", ["linear", "linear-bn"])
def test_neighbours_of_a_probe_that_asks_none_are_refused(tmp_path, capsys, method):
    saved(tmp_path / "mae")
    said = refused(capsys, tmp_path / "mae", "--method", method, "--k", "5")
    assert "--k 5: only nearest neighbours vote: leave it out, or take --method knn or all" in said


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert "is no saved model" in refused(capsys, tmp_path)


def test_a_missing_file_is_refused(tmp_path, capsys):
    assert "there is no such file" in refused(capsys, tmp_path / "mae.pth", "--data", "digits")


def test_a_folder_that_does_not_say_how_pictures_were_prepared_is_refused(tmp_path, capsys):
    saved(tmp_path / "mae", facts={})
    assert "does not say amp_dtype, convert_to_chans" in refused(capsys, tmp_path / "mae")


def test_images_of_many_channels_are_refused(tmp_path, capsys):
    saved(tmp_path / "mae", in_chans=5)
    assert "pictures have 1 channel or 3" in refused(capsys, tmp_path / "mae", "--data", "digits")


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_pretraining_shows_in_the_probe(tmp_path, capsys, seed):
    """Softmax on the digits, by nearest neighbours: 4.4, 8.1 and 8.6 points were seen.

    A linear probe cannot show it: 64 pixels are nearly separable as they are, and it reads 93.9 % from the random start
    and 90.8 % after pre-training (seed 0).
    """
    folder = str(tmp_path / "run")
    assert run(["pretrain", "--recipe", "mae-digits", "--seed", seed, *ON_CPU, "--output", folder]) == 0
    capsys.readouterr()
    rows, _ = probed(capsys, folder, "--method", "knn")
    trained, random = (row["test_top1_percent"] for row in rows)
    assert trained > random + 3
