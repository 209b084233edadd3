"""`data` lists what there is, describes what is named, and checks every picture."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from saccade.cli import run


def said(capsys, *arguments, code=0):
    assert run(["data", *arguments]) == code
    return capsys.readouterr()


@pytest.fixture
def pets(tmp_path):
    for kind in ("[red]cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / kind / f"{number}.png")
    return tmp_path / "pets"


def test_without_a_name_the_kinds_of_data_are_listed(capsys):
    text = said(capsys).out
    for words in ("digits", "cifar10", "owner/name", "saccade[parquet]", "CIFAR's binary files"):
        assert words in text


def test_the_kinds_are_lines_of_json(capsys):
    kinds = [json.loads(line) for line in said(capsys, "--json").out.splitlines()]
    assert kinds[0] == {"data": "digits", "what": "1,797 handwritten digits, 8 x 8, embedded: no network needed"}


def test_listing_needs_no_torch():
    code = "import sys; from saccade.cli import run; assert run(['data']) == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_data_set_is_counted_and_attributed(capsys):
    text = said(capsys, "digits").out
    for words in ("1,077", "360", "1 x 8 x 8 pixels", "mean 0.3056, deviation 0.3762", "Alpaydin", "seed 0"):
        assert words in text


def test_a_data_set_is_one_line_of_json(capsys):
    facts = json.loads(said(capsys, "digits", "--json").out)
    assert facts["images"] == {"train": 1077, "validation": 360, "test": 360}
    assert facts["class_names"] == list("0123456789")


def test_sizes_channels_and_limits_are_taken(capsys):
    flags = ["--img-size", "8", "4", "--crop-pct", "0.5", "--in-chans", "3", "--limit", "50", "--json"]
    facts = json.loads(said(capsys, "digits", *flags).out)
    assert (facts["img_size"], facts["crop_pct"], facts["channels"]) == ([8, 4], 0.5, 3)
    assert facts["images"]["train"] == 50


def test_notes_go_to_stderr_and_names_are_no_markup(capsys, pets):
    told = said(capsys, str(pets))
    assert "there is no test part" in told.err
    assert "[red]cat" in told.out
    assert "3 x 6 x 6 pixels" in told.out


def test_broken_pictures_are_refused_or_left_out(capsys, pets):
    (pets / "dog" / "broken.jpg").write_text("no picture")
    told = said(capsys, str(pets), code=2)
    assert told.out == ""
    assert "1 of 21 pictures cannot be read: train 'dog/broken.jpg'" in told.err
    told = said(capsys, str(pets), "--on-bad-image", "skip")
    assert "left out of train: 1 unreadable" in told.out
    assert "dog/broken.jpg" in told.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nowhere"], "there is no such data"),
        (["digits", "--img-size", "1", "2", "3"], "give a height and a width"),
        (["digits", "--img-size", "0"], "at least 1 pixel"),
        (["digits", "--limit", "0"], "there are 1..1077 training pictures"),
        (["digits", "--crop-pct", "2"], "at most 1"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(capsys, flags, words):
    told = said(capsys, *flags, code=2)
    assert told.out == ""
    assert words in told.err
    assert told.err.count("\n") == 1
