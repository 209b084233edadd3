"""Folders of class folders, in every layout that people have."""

import pytest

from saccade.data.folder import find_folder
from saccade.data.found import NoLabels


def find(root):
    return find_folder(root, str(root))


def counts(root):
    return {part: len(pictures.names) for part, pictures in find(root).parts.items()}


def test_class_folders_are_one_training_part(folder_of):
    found = find(folder_of({"dog": 3, "cat": 2}))
    assert found.classes == ("cat", "dog")
    assert found.parts["train"].names == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    assert found.parts["train"].labels == [0, 0, 1, 1, 1]
    assert list(found.parts) == ["train"]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "dev"])
def test_part_folders_are_understood(folder_of, name):
    root = folder_of({"train/cat": 3, "train/dog": 2, f"{name}/cat": 1, f"{name}/dog": 1, "test/dog": 1})
    assert counts(root) == {"train": 5, "validation": 2, "test": 1}
    assert find(root).parts["test"].labels == [1]


def test_classes_may_be_called_like_parts(folder_of):
    root = folder_of({"train": 2, "bus": 3})
    assert find(root).classes == ("bus", "train")


def test_pictures_lie_at_any_depth(folder_of):
    root = folder_of({"cat/young/white": 2, "cat": 1, "dog/old": 1})
    assert find(root).classes == ("cat", "dog")
    assert counts(root) == {"train": 4}


def test_names_of_any_alphabet_and_with_spaces_are_fine(folder_of):
    found = find(folder_of({"Kätzchen groß": 1, "犬": 2}))
    assert found.classes == ("Kätzchen groß", "犬")
    assert [picture.exists() for picture in found.parts["train"].read()] == [True] * 3


def test_links_to_folders_are_followed_once(folder_of, tmp_path):
    root = folder_of({"cat": 2, "dog": 2})
    (root / "fox").symlink_to(folder_of({"foxes": 3}, tmp_path / "elsewhere") / "foxes")
    (root / "cat" / "round").symlink_to(root / "cat")
    (root / "dog" / "more").symlink_to(folder_of({"dogs": 4}, tmp_path / "elsewhere") / "dogs")
    assert counts(root) == {"train": 11}


def test_hidden_files_are_passed_over_and_others_are_counted(folder_of):
    root = folder_of({"cat": 2, "dog": 2})
    (root / ".git").mkdir()
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / ".thumbnail.png").write_bytes(b"")
    (root / "cat" / "notes.txt").write_text("three")
    (root / "list.csv").write_text("two")
    assert counts(root) == {"train": 4}
    assert "2 files without a picture's ending" in find(root).notes[0]


def test_changing_a_file_changes_the_state(folder_of):
    root = folder_of({"cat": 2, "dog": 2})
    before = find(root).state
    assert find(root).state == before
    (root / "cat" / "0.png").write_bytes((root / "cat" / "1.png").read_bytes() + b" ")
    assert find(root).state != before


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({}, "no pictures in it: put them into one folder a class"),
        ({"cat": 0, "dog": 0}, "no pictures in it"),
        ({"cat": 5}, "one class only"),
        ({"cat": 5, "dog": 0}, "no pictures in the class folder 'dog'"),
        ({"cat": 2, "dog": 2, ".": 1}, "'0.png' lies in no class folder"),
        ({"train/cat": 2, "train/dog": 2, "test": 2}, "'0.png' lies in no class folder"),
        ({"train": 2, "val": 2, "test": 2}, "'0.png' lies in no class folder"),
        ({".": 2}, "'0.png' lies in no class folder"),
        ({"train/cat": 2, "train/dog": 2, "test/fox": 2}, "'fox', which the training part has not"),
        ({"train/cat": 2, "train/dog": 2, "extra/dog": 2}, "beside train lies extra"),
        ({"train/cat": 2, "train/dog": 2, "val/dog": 2, "valid/dog": 2}, "val and valid are both the validation part"),
        ({"test/cat": 2, "test/dog": 2}, "there is no train folder beside test"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_on_is_refused_in_a_sentence(folder_of, layout, said):
    root = folder_of(layout)
    root.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=said):
        find(root)


WITHOUT_CLASSES = [
    ({".": 5}, {"train": 5}),
    ({"a/b/c": 3, "a": 2}, {"train": 5}),
    ({".": 1, "a": 2, "b/c": 3, "d": 0}, {"train": 6}),
    ({"cat": 5}, {"train": 5}),
    ({"cat": 5, "dog": 0}, {"train": 5}),
    ({"train": 4}, {"train": 4}),
    ({"train": 4, "val": 2, "test": 1}, {"train": 4, "validation": 2, "test": 1}),
    ({"train/a": 3, "train/b": 1, "test": 2}, {"train": 4, "test": 2}),
    ({"train/a/b": 3, "train": 1, "val/c": 2}, {"train": 4, "validation": 2}),
]


@pytest.mark.parametrize(("layout", "parts"), WITHOUT_CLASSES, ids=str)
def test_pictures_without_classes_are_taken_where_none_are_needed(folder_of, layout, parts):
    root = folder_of(layout)
    (root / ".hidden.png").write_bytes(b"")
    (root / "notes.txt").write_text("no picture")
    found = find_folder(root, "pets", labelled=False)
    assert found.classes == ()
    assert {part: len(pictures.names) for part, pictures in found.parts.items()} == parts
    assert {label for pictures in found.parts.values() for label in pictures.labels} == {0}
    assert [picture.exists() for picture in found.parts["train"].read()] == [True] * parts["train"]


@pytest.mark.parametrize("layout", [layout for layout, _ in WITHOUT_CLASSES], ids=str)
def test_a_classifier_is_refused_them_in_a_sentence_that_names_pretraining(folder_of, layout):
    with pytest.raises(NoLabels, match=r"or learn without classes with `saccade pretrain`$") as caught:
        find(folder_of(layout))
    assert "\n" not in str(caught.value)


def test_pictures_without_classes_are_named_by_their_place_in_their_part(folder_of):
    found = find_folder(folder_of({"train": 1, "train/deep/er": 1, "val": 1}), "pets", labelled=False)
    assert found.parts["train"].names == ["0.png", "deep/er/0.png"]
    assert found.parts["validation"].names == ["0.png"]
    assert found.split_rule == "folders train, val"


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({}, "no pictures in it"),
        ({"val": 2, "test/a": 2, "test/b": 1}, "there is no train folder beside test, val"),
        ({"train": 2, "val": 2, "valid": 2}, "val and valid are both the validation part"),
        ({"train/a": 2, "extra": 2}, "beside train lies extra"),
        ({"train": 2, "test": 2, ".": 1}, "beside test, train lies '0.png', which belongs to no part: put it into one"),
    ],
    ids=str,
)
def test_parts_must_be_plain_without_classes_too(folder_of, layout, said):
    root = folder_of(layout)
    root.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=said):
        find_folder(root, "pets", labelled=False)
