"""CIFAR's own binary files: records of one or two label bytes and 3,072 pixels; its python batches are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.data.found import Found, Part, arrays, file_state

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """Which files make up a CIFAR data set, and how its records begin.

    Attributes:
        folder: what the archive calls its folder.
        train: files of the training part; test: file of the test part.
        names: file with the names of the classes, a line each.
        label_bytes: bytes in front of the pixels; the last of them is the class.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read."""
        return (*self.train, self.test, self.names)


CIFAR10 = Layout(
    "cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt", 1
)
CIFAR100 = Layout("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 2)


def cifar_folder(path: Path) -> tuple[Layout, Path] | None:
    """The folder with the binary files and their layout: the given one, or the archive's own folder in it.

    Raises:
        ValueError: only the python version lies there.
    """
    for layout in (CIFAR10, CIFAR100):
        for folder in (path, path / layout.folder):
            if all((folder / file).is_file() for file in layout.train):
                return layout, folder
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-100-python"):
        if (folder / "data_batch_1").is_file() or ((folder / "meta").is_file() and (folder / "train").is_file()):
            raise ValueError(
                f"{folder}: these are CIFAR's python files, which are pickles and can run code when they are read; "
                "take the binary version (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz) from the same page"
            )
    return None


def find_cifar(layout: Layout, folder: Path, name: str) -> Found:
    """The training files and the test file.

    Raises:
        ValueError: a file that is missing or holds no whole records, or a label without a name.
    """
    for file in layout.files:
        if not (folder / file).is_file():
            raise ValueError(f"{folder}: {file} is missing")
    classes = tuple((folder / layout.names).read_text(encoding="ascii").split())
    train = [_records(folder / file, layout.label_bytes, len(classes)) for file in layout.train]
    test = [_records(folder / layout.test, layout.label_bytes, len(classes))]
    return Found(
        name=name,
        classes=classes,
        parts={"train": _part(train, layout.label_bytes), "test": _part(test, layout.label_bytes)},
        state=["cifar", file_state(folder / file for file in layout.files)],
        split_rule="CIFAR's own training and test files",
    )


def _records(path: Path, label_bytes: int, classes: int) -> np.ndarray:
    size, record = path.stat().st_size, label_bytes + PIXELS
    if size % record:
        raise ValueError(f"{path} is damaged: its {size:,} bytes are no whole records of {record:,}")
    records = np.fromfile(path, np.uint8).reshape(-1, record)
    if (highest := int(records[:, label_bytes - 1].max(initial=0))) >= classes:
        raise ValueError(f"{path}: label {highest} is none of {classes} classes")
    return records


def _part(tables: list[np.ndarray], label_bytes: int) -> Part:
    records = np.concatenate(tables)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return arrays(images, records[:, label_bytes - 1].astype(np.int64))
