"""A whole data set decoded at once."""

import numpy as np
import pytest

from saccade.data.decoded import decode_all
from saccade.data.folder import find_folder

from .conftest import encoded, pixels


@pytest.fixture
def found(folder_of):
    # One has a header, and its pixels end too early.
    root = folder_of({"cat": 40, "dog": 40})
    (root / "cat" / "5.png").write_bytes(encoded(pixels(1, 64, 64), "JPEG")[:-500])
    return find_folder(root, "pets")


def decoded(found, fill=0, **options):
    asked = {"img_size": (8, 8), "crop_pct": 1.0, "in_chans": None} | options
    return decode_all(found, **asked, room=lambda size: np.full(size, fill, np.uint8))


def test_what_broken_pictures_leave_is_always_the_same(found):
    assert decoded(found, fill=7).fingerprint() == decoded(found, fill=0).fingerprint()


def test_rows_belong_together_beside_a_broken_picture(found):
    made = decoded(found)
    (broken,) = made.broken
    assert broken[:2] == ("train", "cat/5.png")
    names = [name for name in found.parts["train"].names if name != "cat/5.png"]
    pictures = made.pictures("train")
    assert made.parts["train"]["labels"].tolist() == [int(name.startswith("dog")) for name in names]
    for row, name in enumerate(names):
        folder, number = name.removesuffix(".png").split("/")
        expected = pixels(sum(map(ord, folder)) * 1000 + int(number))
        assert np.array_equal(pictures[row].permute(1, 2, 0).numpy(), expected)


def test_sums_are_those_of_the_pixels(found):
    made = decoded(found)
    for row in (0, 30, 78):
        picture = made.pictures("train")[row].long().flatten(1)
        assert made.parts["train"]["sums"][row].tolist() == picture.sum(1).tolist()
        assert made.parts["train"]["squares"][row].tolist() == picture.square().sum(1).tolist()


def test_formats_are_counted(found):
    assert decoded(found).formats == {"PNG": 79, "JPEG": 1}
