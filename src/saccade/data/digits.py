"""The embedded digits: 1,797 handwritten digits of 8 x 8 pixels, there without a network and without a cache."""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
import torch

from saccade.data.found import Found, Part, arrays
from saccade.data.splits import name_keys, set_aside

ATTRIBUTION = (
    "Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak, 1998, "
    "UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0"
)
HELD_OUT = 360


def find_digits(name: str = "digits") -> Found:
    """The digits, split into 1,077 / 360 / 360, stratified.

    The file counts the inked pixels of 4 x 4 blocks, 0..16; a pixel here is that count times 255 / 16, rounded.
    """
    text = gzip.decompress(files("saccade.data").joinpath("digits.csv.gz").read_bytes()).decode("ascii")
    table = np.array([line.split(",") for line in text.splitlines()], dtype=float)
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    labels = table[:, 64].astype(np.int64)
    return Found(
        name=name,
        classes=tuple("0123456789"),
        parts=_split(images, labels),
        state=None,
        split_rule="1,077 / 360 / 360 by a hash of the row, stratified, seed 0",
        attribution=ATTRIBUTION,
    )


def _split(images: np.ndarray, labels: np.ndarray) -> dict[str, Part]:
    keys, classes = name_keys([str(row) for row in range(len(labels))]), torch.from_numpy(labels)
    rest, test = set_aside(classes, keys, HELD_OUT, "test")
    train, validation = set_aside(classes[rest], keys[rest], HELD_OUT, "validation")
    rows = {"train": rest[train], "validation": rest[validation], "test": test}
    return {part: arrays(images[index.numpy()], labels[index.numpy()]) for part, index in rows.items()}
