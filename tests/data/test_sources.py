"""What `load_data` makes of names, paths, broken pictures and odd sizes."""

import numpy as np
import pytest
import torch

from saccade.data import sources
from saccade.data.batches import eval_batches
from saccade.data.sources import load_data, own_size

from .conftest import encoded, pixels


@pytest.fixture
def pets(folder_of):
    return folder_of({"cat": 30, "dog": 20})


def test_a_missing_test_part_is_made_of_names_and_said(pets):
    said = []
    data = load_data(str(pets), img_size=8, note=said.append)
    assert data.facts()["images"] == {"train": 36, "validation": 4, "test": 10}
    assert data.facts()["images_per_class"]["test"] == [6, 4]
    made = "there is no test part: 10 of 50 training pictures were made one by a hash of their names"
    assert made in data.notes
    assert made in said
    assert "test: 10 of 50 training pictures, by a hash of their names, stratified, seed 0" in data.split_rule


def test_no_picture_is_in_two_parts(pets):
    data = load_data(str(pets), img_size=8)
    seen = [part.images[i].numpy().tobytes() for part in data.splits.values() for i in range(len(part))]
    assert len(set(seen)) == len(seen) == 50


def test_parts_that_are_there_stay_as_they_are(folder_of):
    data = load_data(str(folder_of({"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 1, "test/b": 3})), img_size=8)
    assert data.facts()["images"] == {"train": 10, "validation": 3, "test": 3}
    assert data.split_rule == "folders test, train, val"
    assert "the test part has no pictures of 'a'" in data.notes


def test_train_and_val_alone_have_their_test_part_made_of_train(folder_of):
    data = load_data(str(folder_of({"train/a": 10, "train/b": 10, "val/a": 2, "val/b": 1})), img_size=8)
    assert data.facts()["images"] == {"train": 16, "validation": 3, "test": 4}


def test_mean_and_deviation_are_those_of_the_training_pictures(pets):
    data = load_data(str(pets), img_size=8)
    whole = torch.stack([data.train.images[i] for i in range(36)]).double() / 255
    assert torch.allclose(torch.tensor(data.mean).double(), whole.mean(dim=(0, 2, 3)))
    assert torch.allclose(torch.tensor(data.std).double(), whole.std(dim=(0, 2, 3), correction=0))


def test_pictures_without_contrast_can_be_normalised(folder_of):
    root = folder_of({"a": 10, "b": 10})
    for file in root.rglob("*.png"):
        file.write_bytes(encoded(np.full((8, 8, 3), 7, dtype=np.uint8)))
    data = load_data(str(root), img_size=8)
    assert all(batch.images.isfinite().all() for batch in eval_batches(data.test, data, 4))


def test_channels_are_those_of_the_pictures_unless_they_are_asked_for(folder_of, tmp_path):
    grey = str(folder_of({"a": 10, "b": 10}, tmp_path / "grey", channels=1))
    assert load_data(grey, img_size=8).channels == 1
    assert load_data(grey, img_size=8, in_chans=3).channels == 3
    (tmp_path / "grey" / "a" / "colour.png").write_bytes(encoded(pixels(1)))
    assert load_data(grey, img_size=8).channels == 3
    assert load_data(grey, img_size=8, in_chans=1).channels == 1


def test_pictures_of_many_shapes_are_kept_whole_and_cropped_in_the_middle(folder_of):
    root = folder_of({"a": 10, "b": 10}, height=20, width=30)
    for number in range(5):
        (root / "a" / f"tall{number}.png").write_bytes(encoded(pixels(number, 40, 20)))
    data = load_data(str(root), img_size=(10, 10), crop_pct=0.5)
    shapes = {tuple(part.images[i].shape) for part in data.splits.values() for i in range(len(part))}
    assert shapes == {(3, 20, 30), (3, 40, 20)}
    for batch in eval_batches(data.test, data, 3):
        for image, i in zip(batch.images, batch.index.tolist(), strict=True):
            whole = data.test.images[i]
            top, left = (whole.shape[1] - 10) // 2, (whole.shape[2] - 10) // 2
            mean, std = (torch.tensor(side)[:, None, None] for side in (data.mean, data.std))
            assert torch.allclose(image * std + mean, whole[:, top : top + 10, left : left + 10] / 255, atol=1e-5)


def test_fewer_training_pictures_are_the_first_by_a_hash(pets):
    whole, some, fewer = (load_data(str(pets), img_size=8, limit=limit) for limit in (None, 20, 10))
    sets = [{one.train.images[i].numpy().tobytes() for i in range(len(one.train))} for one in (whole, some, fewer)]
    assert [len(one) for one in sets] == [36, 20, 10]
    assert sets[2] < sets[1] < sets[0]
    assert some.facts()["images"]["test"] == 10
    assert (whole.copied, some.copied) == (False, True)
    assert "20 of 36 training pictures are used" in some.notes
    assert len({one.fingerprint for one in (whole, some, fewer)}) == 3


@pytest.mark.parametrize("limit", [0, -1, 37])
def test_a_limit_that_cannot_be_is_refused(pets, limit):
    with pytest.raises(ValueError, match=rf"limit={limit}: there are 1\.\.36 training pictures"):
        load_data(str(pets), img_size=8, limit=limit)


BROKEN = {"cat/text.jpg": b"a text file", "dog/empty.png": b"", "dog/cut.png": encoded(pixels(1, 64, 64))[:-500]}


@pytest.fixture
def broken(pets):
    for name, content in BROKEN.items():
        (pets / name).write_bytes(content)
    return str(pets)


def test_broken_pictures_are_named_and_refused(broken):
    with pytest.raises(ValueError, match=r"3 of 53 pictures cannot be read: .*--on-bad-image skip") as caught:
        load_data(broken, img_size=8)
    assert all(repr(name) in str(caught.value) for name in BROKEN)
    assert "\n" not in str(caught.value)


def test_broken_pictures_are_left_out_and_counted(broken):
    said = []
    data = load_data(broken, img_size=8, on_bad_image="skip", note=said.append)
    assert data.facts()["skipped"] == {"train": 3}
    assert sum(data.facts()["images"].values()) == 50
    assert any("3 pictures cannot be read and were left out" in one and "cat/text.jpg" in one for one in said)


def test_a_cache_of_skipped_pictures_does_not_hide_them_later(broken):
    load_data(broken, img_size=8, on_bad_image="skip")
    with pytest.raises(ValueError, match="3 of 53 pictures cannot be read"):
        load_data(broken, img_size=8)


def test_pictures_left_out_do_not_move_the_others(pets, broken):
    left = load_data(broken, img_size=8, on_bad_image="skip")
    for name in BROKEN:
        (pets / name).unlink()
    whole = load_data(str(pets), img_size=8)
    assert [one.tolist() for one in (left.test.labels, left.train.labels)] == [
        one.tolist() for one in (whole.test.labels, whole.train.labels)
    ]


def test_many_broken_pictures_are_counted_and_some_named(pets):
    for number in range(30):
        (pets / "cat" / f"bad{number:02}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"30 of 80 pictures .*bad09.png.* and 20 more"):
        load_data(str(pets), img_size=8)


def test_a_class_whose_pictures_are_all_broken_is_no_class(folder_of):
    root = folder_of({"a": 5, "b": 5})
    for file in (root / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="fewer than two classes have training pictures"):
        load_data(str(root), img_size=8, on_bad_image="skip")


def test_a_picture_that_would_become_enormous_is_broken(pets):
    (pets / "cat" / "line.png").write_bytes(encoded(np.zeros((28, 60_000, 3), dtype=np.uint8)))
    with pytest.raises(ValueError, match="so long and thin that it would become 480000 x 224"):
        load_data(str(pets), img_size=224)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "there is no such data: give digits, cifar10, cifar100, mnist, fashion_mnist"),
        ("./no/where", "there is no such data"),
        ("", "there is no such data"),
    ],
)
def test_what_is_not_there_is_said(name, said):
    with pytest.raises(ValueError, match=said):
        load_data(name, img_size=8)


def test_a_slip_in_a_path_is_not_asked_of_the_hub(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    monkeypatch.setattr(sources, "find_on_hub", None)
    with pytest.raises(ValueError, match="pets/cats: there is no such data"):
        load_data("pets/cats", img_size=8)


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "train.pt", "data.npz", "train.pkl", "data.csv"])
def test_files_that_are_not_parquet_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04\x95.")
    with pytest.raises(ValueError, match="archives are to be unpacked, and pickles are never read"):
        load_data(str(tmp_path / name), img_size=8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"img_size": 0}, r"img_size=\(0, 0\)"),
        ({"img_size": (8, -1)}, r"img_size=\(8, -1\)"),
        ({"crop_pct": 0.0}, "crop_pct=0.0: must be above 0"),
        ({"crop_pct": 1.5}, "crop_pct=1.5"),
        ({"in_chans": 2}, "in_chans=2: pictures have 1 channel or 3"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        load_data("digits", **({"img_size": 8} | options))


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"a": 1, "b": 1}, "2 training pictures are too few for a test part"),
        ({"a": 2, "b": 1}, "too few for a validation"),
    ],
    ids=str,
)
def test_too_few_pictures_to_split_are_refused(folder_of, layout, said):
    with pytest.raises(ValueError, match=said):
        load_data(str(folder_of(layout)), img_size=8)


def test_the_least_that_works_works(folder_of):
    data = load_data(str(folder_of({"a": 2, "b": 2})), img_size=8)
    assert data.facts()["images"] == {"train": 2, "validation": 1, "test": 1}


def test_names_of_any_alphabet_work_from_end_to_end(folder_of, tmp_path):
    root = folder_of({"Kätzchen groß": 10, "犬": 10}, tmp_path / "Bilder von Tieren")
    data = load_data(str(root), img_size=8)
    assert data.classes == ("Kätzchen groß", "犬")


def test_the_own_size_of_pictures(folder_of, tmp_path):
    assert own_size("digits") == (8, 8)
    assert own_size(str(folder_of({"a": 3, "b": 3}, tmp_path / "alike", height=20, width=30))) == (20, 30)
    mixed = folder_of({"a": 3, "b": 3}, tmp_path / "mixed")
    (mixed / "a" / "other.png").write_bytes(encoded(pixels(0, 9, 9)))
    assert own_size(str(mixed)) == (224, 224)
    (mixed / "a" / "other.png").write_bytes(b"broken")
    assert own_size(str(mixed)) == (8, 8)
    assert own_size(str(folder_of({"a": 1, "b": 1}, tmp_path / "photo", height=300, width=300))) == (224, 224)


def test_facts_are_plain_values(pets):
    import json

    data = load_data(str(pets), img_size=(8, 6), crop_pct=0.9)
    facts = json.loads(json.dumps(data.facts()))
    assert facts["img_size"] == [8, 6]
    assert facts["crop_pct"] == 0.9
    assert facts["classes"] == 2
    assert facts == data.facts()


def test_pictures_without_classes_are_split_by_a_hash_of_their_names(folder_of):
    root = folder_of({".": 30, "a/b": 20})
    said = []
    data = load_data(root, img_size=8, labelled=False, note=said.append)
    assert data.facts()["images"] == {"train": 36, "validation": 4, "test": 10}
    assert (data.classes, data.facts()["classes"]) == ((), 0)
    assert data.facts()["images_per_class"] == {"train": [], "validation": [], "test": []}
    assert not any(part.labels.any() for part in data.splits.values())
    assert said[0].endswith(f"{root}: decoding 50 pictures, this once")
    assert f"{root}: '0.png' lies in no class folder: the pictures are taken without classes" in data.notes
    assert "test: 10 of 50 training pictures, by a hash of their names, seed 0" in data.split_rule
    seen = [part.images[i].numpy().tobytes() for part in data.splits.values() for i in range(len(part))]
    assert len(set(seen)) == 50


def test_another_picture_moves_few_of_the_others(folder_of):
    root = folder_of({".": 50})
    before, after = [], []
    for seen in (before, after):
        data = load_data(root, img_size=8, labelled=False)
        seen.extend(data.test.images[i].numpy().tobytes() for i in range(10))
        (root / "more.png").write_bytes(encoded(pixels(999)))
    assert len(set(before) & set(after)) >= 9


def test_pictures_with_classes_are_the_same_whether_these_are_needed_or_not(pets):
    """Who probes what was pre-trained on them finds the same parts."""
    with_labels, without = (load_data(str(pets), img_size=8, labelled=labelled) for labelled in (True, False))
    assert with_labels.facts() == without.facts()
    assert with_labels.classes == without.classes == ("cat", "dog")


def test_classes_too_small_to_split_are_no_hindrance_where_none_are_needed(folder_of):
    root = str(folder_of({f"{number}": 1 for number in range(20)}))
    with pytest.raises(ValueError, match=r"20 training pictures are too few for a test part: .* `saccade pretrain`"):
        load_data(root, img_size=8)
    data = load_data(root, img_size=8, labelled=False)
    assert data.facts()["images"] == {"train": 14, "validation": 2, "test": 4}


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pictures_without_classes_are_refused(folder_of, count):
    with pytest.raises(ValueError, match=r"1 training pictures are too few for a (test|validation) part; give more$"):
        load_data(folder_of({".": count}), img_size=8, labelled=False)


def test_broken_pictures_without_classes_are_treated_as_others_are(folder_of):
    root = folder_of({".": 20})
    (root / "text.jpg").write_bytes(b"a text file")
    with pytest.raises(ValueError, match=r"1 of 21 pictures cannot be read: train 'text.jpg' .*--on-bad-image skip"):
        load_data(root, img_size=8, labelled=False)
    data = load_data(root, img_size=8, labelled=False, on_bad_image="skip")
    assert data.facts()["skipped"] == {"train": 1}


def test_classes_that_broken_pictures_empty_are_no_hindrance_where_none_are_needed(folder_of):
    root = folder_of({"cat": 20, "dog": 2})
    for file in (root / "dog").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"fewer than two classes have training pictures .* `saccade pretrain`"):
        load_data(root, img_size=8, on_bad_image="skip")
    assert load_data(root, img_size=8, on_bad_image="skip", labelled=False).classes == ()
