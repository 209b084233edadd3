"""IDX files, the format of MNIST."""

import gzip
import struct

import numpy as np
import pytest

from saccade.data.idx import find_idx, idx_folder, read_idx
from saccade.data.sources import load_data

IMAGES = np.arange(20 * 6 * 5, dtype=np.uint8).reshape(20, 6, 5)
LABELS = np.arange(20, dtype=np.uint8) % 3


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(params=["", ".gz"], ids=["plain", "gz"])
def folder(tmp_path, request):
    pack = gzip.compress if request.param else bytes
    for start, count in (("train", 20), ("t10k", 6)):
        (tmp_path / f"{start}-images-idx3-ubyte{request.param}").write_bytes(pack(idx(IMAGES[:count])))
        (tmp_path / f"{start}-labels-idx1-ubyte{request.param}").write_bytes(pack(idx(LABELS[:count])))
    return tmp_path


def test_images_and_labels_are_read(folder):
    found = find_idx(folder, "mine")
    assert found.classes == ("0", "1", "2")
    assert np.array_equal(np.stack(list(found.parts["train"].read())), IMAGES)
    assert found.parts["test"].labels == LABELS[:6].tolist()


def test_a_folder_of_idx_files_is_data(folder):
    data = load_data(str(folder), img_size=(6, 5))
    assert data.channels == 1
    assert data.facts()["images"] == {"train": 18, "validation": 2, "test": 6}
    assert np.array_equal(data.test.images[3][0].numpy(), IMAGES[3])


def test_files_lie_where_torchvision_puts_them_too(folder, tmp_path):
    (tmp_path / "raw").mkdir()
    for file in [file for file in tmp_path.iterdir() if file.is_file()]:
        file.rename(tmp_path / "raw" / file.name)
    assert idx_folder(tmp_path) == tmp_path / "raw"


def test_a_missing_test_part_is_made(folder):
    for file in folder.glob("t10k*"):
        file.unlink()
    data = load_data(str(folder), img_size=(6, 5))
    assert data.facts()["images"] == {"train": 14, "validation": 2, "test": 4}
    assert "there is no test part: 4 of 20 training pictures" in data.notes[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no IDX file"),
        (b"\x80\x04\x95", "no IDX file"),
        (idx(IMAGES)[:-1], "promises 600 bytes, and there are fewer or more"),
        (idx(IMAGES) + b"0", "promises 600 bytes, and there are fewer or more"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**31, 2**31), "above the limit"),
        (struct.pack(">BBBB3I", 0, 0, 13, 3, 1, 1, 1) + b"0000", "no IDX file"),
    ],
    ids=["empty", "a pickle", "too short", "too long", "a bomb", "floats"],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_and_hostile_files_are_refused(tmp_path, content, said, ending):
    file = tmp_path / f"images{ending}"
    file.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(ValueError, match=said):
        read_idx(file, 3)


def test_a_damaged_gzip_file_is_refused(tmp_path):
    packed = bytearray(gzip.compress(idx(IMAGES)))
    (tmp_path / "cut.gz").write_bytes(packed[:-20])
    (tmp_path / "no.gz").write_bytes(b"no gzip file")
    for name in ("cut.gz", "no.gz"):
        with pytest.raises(ValueError, match="is damaged"):
            read_idx(tmp_path / name, 3)


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(idx(IMAGES) + bytes(300 * 2**20), compresslevel=1))
    with pytest.raises(ValueError, match="fewer or more"):
        read_idx(tmp_path / "bomb.gz", 3)


def test_labels_must_be_as_many_as_images(folder):
    for file in folder.glob("train-labels*"):
        content = idx(LABELS[:7])
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    with pytest.raises(ValueError, match="20 images have 7 labels"):
        find_idx(folder, "mine")


def test_labels_without_a_class_and_missing_files_are_refused(folder):
    with pytest.raises(ValueError, match="label 2 is none of 2 classes"):
        find_idx(folder, "mine", classes=("a", "b"))
    for file in folder.glob("train-labels*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte \(or .gz\) is missing"):
        find_idx(folder, "mine")
