"""Batches: the order of an epoch, and images as normalised floats on the device that wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from saccade.data.augment import Augment, augment
from saccade.data.dataset import Dataset, Split
from saccade.data.draws import permutation


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of a part.

    Attributes:
        images: each channel with mean 0 and deviation 1 over the training part.
        labels: the class of each.
        targets: shares of the classes, where images were mixed.
        index: number of each image in its part, what its random numbers are drawn by.
    """

    images: Float[Tensor, "b c y x"]
    labels: Int64[Tensor, " b"]
    targets: Float[Tensor, "b classes"] | None
    index: Int64[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.labels)


def train_batches(
    dataset: Dataset,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    augment: Augment,
    device: torch.device | str = "cpu",
    drop_last: bool = True,
) -> Iterator[Batch]:
    """The batches of one epoch, in an order that is a function of seed and epoch.

    With `drop_last` every batch is full: the len(train) % batch_size images at the end of the order sit this epoch out,
    others in each epoch. Without, the last batch is what remains.

    Raises:
        ValueError: no full batch.
    """
    n = len(dataset.train)
    if not 1 <= batch_size <= (n if drop_last else max(n, batch_size)):
        raise ValueError(f"batch_size={batch_size} on {n} training images: must be 1..{n}")
    order = permutation(seed, epoch, n)
    used = order[: n - n % batch_size] if drop_last else order
    return (_training(dataset, index, augment, seed, epoch, torch.device(device)) for index in used.split(batch_size))


def eval_batches(
    split: Split, dataset: Dataset, batch_size: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Every image of a part once, in order, as its middle crop; the last batch is what remains.

    Raises:
        ValueError: batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    place = torch.device(device)
    numbers = torch.arange(len(split)).split(batch_size) if len(split) else ()
    return (
        _batch(dataset, split.images.centre(index, dataset.img_size), split.labels[index], None, index, place)
        for index in numbers
    )


def _training(
    dataset: Dataset, index: Int64[Tensor, " b"], options: Augment, seed: int, epoch: int, place: torch.device
) -> Batch:
    images, targets = augment(dataset, index, options, seed=seed, epoch=epoch)
    return _batch(dataset, images, dataset.train.labels[index], targets, index, place)


def _batch(
    dataset: Dataset,
    images: UInt8[Tensor, "b c y x"] | Float[Tensor, "b c y x"],
    labels: Int64[Tensor, " b"],
    targets: Float[Tensor, "b classes"] | None,
    index: Int64[Tensor, " b"],
    place: torch.device,
) -> Batch:
    """Moves first and normalises there: bytes travel at a quarter of the size of floats."""
    mean, std = (_moved(torch.tensor(side)[:, None, None] * 255, place) for side in (dataset.mean, dataset.std))
    floats = _moved(images, place).float().sub_(mean).div_(std)
    return Batch(
        floats, _moved(labels, place), None if targets is None else _moved(targets, place), _moved(index, place)
    )


def _moved(tensor: Tensor, place: torch.device) -> Tensor:
    if place.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(place, non_blocking=True)
