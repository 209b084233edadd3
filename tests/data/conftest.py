"""Pictures made on the fly."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.dataset import Dataset, Split
from saccade.data.pictures import Pictures


def pixels(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values if channels == 3 else values[:, :, 0]


def encoded(array: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def folder_of(tmp_path):
    """Writes a folder of class folders: {"cat": 5} makes five 8 x 8 pictures of cats."""

    def write(counts: dict[str, int], root: Path = tmp_path / "pets", **shape) -> Path:
        for place, count in counts.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                seed = sum(map(ord, place)) * 1000 + number
                (root / place / f"{number}.png").write_bytes(encoded(pixels(seed, **shape)))
        return root

    return write


@pytest.fixture
def dataset_of():
    """A data set in memory: n training images of these sizes, labels 0, 1, 2, 0, ..."""

    def make(n=40, sizes=((8, 8),), img_size=(8, 8), channels=3, classes=3):
        arrays = [pixels(number, *sizes[number % len(sizes)]) for number in range(n)]
        flat = [torch.from_numpy(array).permute(2, 0, 1)[:channels].reshape(-1) for array in arrays]
        ends = torch.tensor([0, *(len(one) for one in flat)]).cumsum(0)
        heights, widths = (torch.tensor([array.shape[side] for array in arrays]) for side in (0, 1))
        images = Pictures(torch.cat(flat), ends[:-1], heights, widths, channels)
        split = Split(images, torch.arange(n) % classes)
        return Dataset(
            name="made",
            classes=tuple("abcdefghij"[:classes]),
            train=split,
            validation=split.select(torch.arange(0, n, 4)),
            test=split.select(torch.arange(1, n, 4)),
            img_size=img_size,
            crop_pct=1.0,
            mean=(0.5, 0.4, 0.3)[:channels],
            std=(0.3, 0.2, 0.1)[:channels],
            fingerprint="made",
            split_rule="made",
        )

    return make
