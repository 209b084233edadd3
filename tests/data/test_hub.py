"""Data sets of the Hugging Face hub, with the library's network calls replaced by tables made here."""

import builtins
import io

import numpy as np
import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")

from saccade.data import hub  # noqa: E402
from saccade.data.sources import load_data  # noqa: E402

from .conftest import pixels  # noqa: E402


def table(count, start=0):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    pictures = [Image.fromarray(pixels(start + number)) for number in range(count)]
    return datasets.Dataset.from_dict(
        {"image": pictures, "label": [number % 2 for number in range(count)]}, features=features
    )


def serve(monkeypatch, answer):
    def load_dataset(name):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_the_splits_of_a_data_set_are_its_parts(monkeypatch):
    serve(monkeypatch, datasets.DatasetDict(train=table(30), validation=table(4, 50), test=table(6, 100)))
    data = load_data("somebody/pets", img_size=8)
    assert data.classes == ("cat", "dog")
    assert data.facts()["images"] == {"train": 30, "validation": 4, "test": 6}
    assert np.array_equal(data.test.images[5].permute(1, 2, 0).numpy(), pixels(105))


def test_pictures_come_as_the_bytes_of_their_files(monkeypatch):
    serve(monkeypatch, datasets.DatasetDict(train=table(3)))
    pictures = list(hub.find_on_hub("somebody/pets").parts["train"].read())
    assert [Image.open(io.BytesIO(one)).format for one in pictures] == ["PNG"] * 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ConnectionError("no network"), "the Hugging Face hub gave none: no network"),
        (datasets.DatasetDict(test=table(2)), "its splits are test; there must be one named train"),
    ],
    ids=["no network", "no train"],
)
def test_what_the_hub_does_not_have_is_said_in_a_sentence(monkeypatch, answer, said):
    serve(monkeypatch, answer)
    with pytest.raises(ValueError, match=said):
        load_data("somebody/pets", img_size=8)


def test_a_data_set_without_classes_is_read_where_none_are_needed(monkeypatch):
    serve(monkeypatch, datasets.DatasetDict(train=table(50).remove_columns("label")))
    with pytest.raises(ValueError, match=r"somebody/pets: the columns are image; .* with `saccade pretrain`$"):
        load_data("somebody/pets", img_size=8)
    data = load_data("somebody/pets", img_size=8, labelled=False)
    assert (data.classes, data.facts()["images"]) == ((), {"train": 36, "validation": 4, "test": 10})


def test_without_the_library_the_pip_line_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"there is no such file or folder, .* pip install 'saccade\[hub\]'"):
        load_data("somebody/pets", img_size=8)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a/b", True),
        ("a-b_c.d/e", True),
        ("a", False),
        ("a/b/c", False),
        ("./a", False),
        ("../a", False),
        ("a b/c", False),
    ],
)
def test_names_of_the_hub_have_one_slash(name, is_one):
    assert hub.is_hub_name(name) == is_one
