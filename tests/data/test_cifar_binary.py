"""CIFAR's own binary files."""

import pickle

import numpy as np
import pytest

from saccade.data.cifar_binary import CIFAR10, CIFAR100, cifar_folder, find_cifar
from saccade.data.sources import load_data

CLASSES = {CIFAR10: [f"ten{i}" for i in range(10)], CIFAR100: [f"hundred{i}" for i in range(100)]}


def write(folder, layout, count=200):
    """Files of a few records each: their labels run 0, 1, 2, ..., their pixels are random."""
    folder.mkdir(parents=True, exist_ok=True)
    classes, chance = len(CLASSES[layout]), np.random.default_rng(0)
    for number, name in enumerate((*layout.train, layout.test)):
        records = chance.integers(0, 256, (count, layout.label_bytes + 3072), dtype=np.uint8)
        records[:, layout.label_bytes - 1] = (np.arange(count) + number) % classes
        (folder / name).write_bytes(records.tobytes())
    (folder / layout.names).write_text("\n".join(CLASSES[layout]) + "\n\n")
    return folder


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
@pytest.mark.parametrize("inside", [True, False], ids=["in the archive's folder", "the folder itself"])
def test_the_files_are_data(tmp_path, layout, inside):
    write(tmp_path / layout.folder if inside else tmp_path, layout)
    data = load_data(str(tmp_path), img_size=32)
    assert data.classes == tuple(CLASSES[layout])
    assert sum(data.facts()["images"].values()) == 200 * (len(layout.train) + 1)
    assert len(data.test) == 200


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def test_a_record_is_read_plane_by_plane(tmp_path, layout):
    found = find_cifar(layout, write(tmp_path, layout), "mine")
    record = np.fromfile(tmp_path / layout.test, np.uint8).reshape(200, -1)[7]
    picture = list(found.parts["test"].read())[7]
    assert found.parts["test"].labels[7] == record[layout.label_bytes - 1]
    assert picture.shape == (32, 32, 3)
    assert picture[2, 5, 1] == record[layout.label_bytes + 1024 + 2 * 32 + 5]


@pytest.mark.parametrize(
    "files", [("data_batch_1", "batches.meta"), ("train", "meta")], ids=["cifar10's batches", "cifar100's"]
)
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py", "cifar-100-python"])
def test_pickles_are_refused_without_being_read(tmp_path, files, inside, monkeypatch):
    (tmp_path / inside).mkdir(exist_ok=True)
    for name in files:
        (tmp_path / inside / name).write_bytes(pickle.dumps({"labels": [0]}))
    monkeypatch.setattr(pickle, "load", None)
    with pytest.raises(ValueError, match=r"pickles .* take the binary version \(cifar-10-binary.tar.gz"):
        load_data(str(tmp_path), img_size=32)


def test_damaged_and_missing_files_are_refused(tmp_path):
    write(tmp_path, CIFAR10)
    batch = tmp_path / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="614,599 bytes are no whole records of 3,073"):
        find_cifar(CIFAR10, tmp_path, "mine")
    batch.write_bytes(b"\x0b" + whole[1:])
    with pytest.raises(ValueError, match="label 11 is none of 10 classes"):
        find_cifar(CIFAR10, tmp_path, "mine")
    batch.write_bytes(whole)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(ValueError, match=r"test_batch.bin is missing"):
        find_cifar(CIFAR10, tmp_path, "mine")
    assert cifar_folder(tmp_path / "elsewhere") is None
