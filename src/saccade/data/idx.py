"""IDX files, the format of MNIST and Fashion-MNIST, gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from saccade.data.found import Found, Part, arrays, file_state

FILES = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}
LARGEST_BYTES = 4 * 2**30


def idx_folder(path: Path) -> Path | None:
    """The folder with the training images: the given one, or its `raw`, where torchvision puts them."""
    return next((folder for folder in (path, path / "raw") if _file(folder, "train-images")), None)


def find_idx(folder: Path, name: str, classes: tuple[str, ...] | None = None) -> Found:
    """Images and labels of train and, where they lie there, of test.

    Args:
        folder: holds train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz), and t10k-... likewise.
        name: as the user wrote it.
        classes: names of the classes; None: the labels' numbers.

    Raises:
        ValueError: a file that is missing, is no IDX file, or does not hold what its header says.
    """
    present = {part: names for part, names in FILES.items() if _file(folder, names[0])}
    tables = {
        part: (_array(folder, images, 3), _array(folder, labels, 1)) for part, (images, labels) in present.items()
    }
    highest = max(int(labels.max(initial=0)) for _, labels in tables.values())
    classes = classes or tuple(map(str, range(highest + 1)))
    if highest >= len(classes):
        raise ValueError(f"{name}: label {highest} is none of {len(classes)} classes")
    paths = [file for names in present.values() for one in names if (file := _file(folder, one))]
    return Found(
        name=name,
        classes=classes,
        parts={part: _part(*table, name) for part, table in tables.items()},
        state=["idx", file_state(paths)],
        split_rule="files train-... and t10k-..." if "test" in tables else "",
    )


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads one file of unsigned bytes: 0 0 8 and the number of dimensions, each dimension's length, then the values.

    Raises:
        ValueError: another format, or fewer or more values than the header says.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            head = file.read(4 + 4 * dimensions)
            if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
                raise ValueError(f"{path} is no IDX file of bytes in {dimensions} dimensions")
            shape = np.frombuffer(head, ">u4", offset=4).astype(int).tolist()
            count = int(np.prod(shape, dtype=object))
            if count > LARGEST_BYTES:
                raise ValueError(f"{path}: its header promises {count:,} bytes, above the limit of {LARGEST_BYTES:,}")
            values = file.read(count + 1)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if len(values) != count:
        raise ValueError(f"{path} is damaged: its header promises {count:,} bytes, and there are fewer or more")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _array(folder: Path, start: str, dimensions: int) -> np.ndarray:
    file = _file(folder, start)
    if file is None:
        raise ValueError(f"{folder}: {start}-idx{dimensions}-ubyte (or .gz) is missing")
    return read_idx(file, dimensions)


def _file(folder: Path, start: str) -> Path | None:
    dimensions = 3 if start.endswith("images") else 1
    names = [f"{start}{mark}idx{dimensions}-ubyte{ending}" for mark in "-." for ending in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _part(images: np.ndarray, labels: np.ndarray, name: str) -> Part:
    if len(images) != len(labels):
        raise ValueError(f"{name}: {len(images)} images have {len(labels)} labels")
    return arrays(images, labels)
