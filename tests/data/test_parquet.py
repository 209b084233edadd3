"""Parquet files in the Hugging Face layout."""

import builtins
import json

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from saccade.data.parquet import find_parquet  # noqa: E402
from saccade.data.sources import load_data  # noqa: E402

from .conftest import encoded, pixels  # noqa: E402


def table(count, label="label", image="image", classes=("cat", "dog"), start=0, plain=False, values=None):
    pictures = [encoded(pixels(start + number)) for number in range(count)]
    cells = pictures if plain else [{"bytes": one, "path": f"{place}.png"} for place, one in enumerate(pictures)]
    labels = [number % 2 for number in range(count)] if values is None else values
    made = pa.table({image: cells, label: labels})
    if classes is None:
        return made
    features = {image: {"_type": "Image"}, label: {"names": list(classes), "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.fixture
def write(tmp_path):
    def written(**tables):
        for name, one in tables.items():
            path = tmp_path / (name.replace("__", "/") + ".parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(one, path, row_group_size=7)
        return tmp_path

    return written


@pytest.mark.parametrize(
    "names",
    [
        ("train", "test"),
        ("train-00000-of-00001", "test-00000-of-00001"),
        ("data__train-00000-of-00001", "data__test-00000-of-00001"),
        ("train__0000", "test__0000"),
        ("plain_text__train-00000", "plain_text__test-00000"),
    ],
)
def test_parts_are_told_by_the_names_of_files_and_folders(write, names):
    root = write(**{names[0]: table(20), names[1]: table(6, start=100)})
    data = load_data(str(root), img_size=8)
    assert data.classes == ("cat", "dog")
    assert data.facts()["images"] == {"train": 18, "validation": 2, "test": 6}
    assert np.array_equal(data.test.images[3].permute(1, 2, 0).numpy(), pixels(103))
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_shards_follow_each_other(write):
    root = write(**{f"train-0000{i}-of-00003": table(5, start=5 * i) for i in range(3)}, test=table(2))
    found = find_parquet(root, "mine")
    assert list(found.parts["train"].read()) == [encoded(pixels(number)) for number in range(15)]
    assert found.parts["train"].names == [str(row) for row in range(15)]


def test_a_single_file_has_its_test_part_made(write):
    data = load_data(str(write(train=table(50)) / "train.parquet"), img_size=8)
    assert data.facts()["images"] == {"train": 36, "validation": 4, "test": 10}
    assert "there is no test part: 10 of 50" in data.notes[0]


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("label", ["label", "fine_label", "labels"])
@pytest.mark.parametrize("plain", [True, False], ids=["bytes", "bytes and path"])
def test_the_usual_columns_are_found(write, image, label, plain):
    root = write(train=table(10, image=image, label=label, plain=plain), test=table(2, image=image, label=label))
    assert len(find_parquet(root, "mine").parts["train"].names) == 10


def test_a_column_described_as_pictures_may_have_any_name(write):
    assert len(find_parquet(write(train=table(6, image="photo")), "mine").parts["train"].names) == 6


def test_fine_labels_go_before_coarse_ones(write):
    both = table(10).rename_columns(["img", "fine_label"]).append_column("coarse_label", [[0] * 10])
    assert find_parquet(write(train=both), "mine").parts["train"].labels == [0, 1] * 5


def test_classes_without_names_are_numbers_and_words_are_names(write):
    numbers = write(train=table(10, classes=None))
    assert find_parquet(numbers, "mine").classes == ("0", "1")
    words = write(train=table(4, classes=None, values=["pear", "apple", "pear", "fig"]))
    found = find_parquet(words, "mine")
    assert found.classes == ("apple", "fig", "pear")
    assert found.parts["train"].labels == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (table(4, values=[0, 1, -1, 0]), "row 2 has the label -1, which is none of 2 classes"),
        (table(4, values=[0, 1, 2, 0]), "row 2 has the label 2"),
        (table(4, values=[0, None, 1, 0]), "row 1 has the label None"),
        (table(4, values=[0.5, 0.5, 1.0, 0.0]), "row 0 has the label 0.5"),
        (table(4, label="target"), "the columns are image, target; needed are pictures"),
        (table(4, values=[0, 0, 0, 0], classes=("cat",)), "one class only"),
        (table(0), "there are no pictures"),
    ],
    ids=["no label", "beyond", "missing", "fractions", "other columns", "one class", "no rows"],
)
def test_tables_that_cannot_be_trained_on_are_refused(write, made, said):
    with pytest.raises(ValueError, match=said):
        find_parquet(write(train=made), "mine")


@pytest.mark.parametrize(
    "made",
    [
        table(50).drop_columns(["label"]),
        table(50, label="target"),
        table(50, values=[0, 1, -1, 1, 0] * 10),
        table(50, values=[0] * 50, classes=("cat",)),
    ],
    ids=["no column", "other column", "missing label", "one class"],
)
def test_tables_without_classes_are_read_where_none_are_needed(write, made):
    path = str(write(train=made) / "train.parquet")
    with pytest.raises(ValueError, match=r"or learn without classes with `saccade pretrain`$"):
        load_data(path, img_size=8)
    data = load_data(path, img_size=8, labelled=False)
    assert (data.classes, data.facts()["images"]) == ((), {"train": 36, "validation": 4, "test": 10})


def test_a_path_in_a_table_is_never_opened(write, tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(pixels(0)))
    cells = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4
    root = write(train=pa.table({"image": cells, "label": [0, 1, 0, 1]}))
    with pytest.raises(ValueError, match="4 of 4 pictures cannot be read"):
        load_data(str(root), img_size=8)


def test_file_names_must_tell_the_part(write):
    with pytest.raises(ValueError, match="its name tells no part"):
        find_parquet(write(train=table(4), pictures=table(4)), "mine")


def test_two_configurations_are_not_mixed(write):
    with pytest.raises(ValueError, match="the train files lie in 2 folders"):
        find_parquet(write(one__train=table(4), two__train=table(4)), "mine")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        find_parquet(tmp_path, "mine")


def test_without_pyarrow_the_pip_line_is_named(write, monkeypatch):
    root, real = write(train=table(4)), builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'saccade\[parquet\]'"):
        find_parquet(root, "mine")
