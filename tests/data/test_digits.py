"""The embedded digits."""

import gzip
import hashlib
from importlib.resources import files

import pytest
import torch

from saccade.data.digits import find_digits
from saccade.data.sources import load_data


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", img_size=8)


def test_the_file_is_the_one_that_is_attributed():
    content = files("saccade.data").joinpath("digits.csv.gz").read_bytes()
    assert len(content) == 57_523
    assert hashlib.sha256(content).hexdigest() == "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def test_digits_are_split_once_and_stratified(digits):
    facts = digits.facts()
    assert facts["images"] == {"train": 1077, "validation": 360, "test": 360}
    whole = torch.tensor(list(facts["images_per_class"].values()))
    for part, count in zip(whole, (1077, 360, 360), strict=True):
        assert (part - whole.sum(dim=0) * count / 1797).abs().max() <= 1.01


def test_no_digit_is_in_two_parts():
    names = [find_digits().parts[part].names for part in ("train", "validation", "test")]
    assert [len(one) for one in names] == [1077, 360, 360]
    rows = [image.tobytes() for part in find_digits().parts.values() for image in part.read()]
    assert len(rows) == 1797
    assert len(set(rows)) == 1797


def test_counts_of_ink_become_bytes():
    text = gzip.decompress(files("saccade.data").joinpath("digits.csv.gz").read_bytes()).decode()
    counts = {float(value) for line in text.split() for value in line.split(",")[:64]}
    seen = {int(value) for image in find_digits().parts["train"].read() for value in image.flat}
    assert counts == set(range(17))
    assert seen == {round(count * 255 / 16) for count in range(17)}


def test_digits_are_grey_and_read_as_they_lie(digits):
    first = next(iter(find_digits().parts["train"].read()))
    assert digits.channels == 1
    assert torch.equal(digits.train.images[0][0], torch.from_numpy(first))


def test_digits_leave_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "nothing"))
    load_data("digits", img_size=8)
    assert not (tmp_path / "nothing").exists()


def test_digits_say_whose_they_are(digits):
    assert "Alpaydin" in digits.attribution
    assert "10.24432/C50P49" in digits.attribution


def test_digits_in_another_size_and_in_colour():
    data = load_data("digits", img_size=(16, 24), in_chans=3)
    assert data.train.images[0].shape == (3, 24, 24)
    assert data.channels == 3
    assert len(data.mean) == 3


def test_the_data_are_the_same_on_every_machine(digits):
    # Accuracies are stored beside this fingerprint: it changes only when the pixels, the labels or the split do.
    assert digits.fingerprint == "2e4477d5bd5e3d48"
