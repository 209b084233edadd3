"""Dataset: decoded pictures with labels, split once into train, validation and test, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from saccade.data.pictures import Pictures


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: pictures and the number of each one's class, which is 0 where there are no classes."""

    images: Pictures
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Int64[Tensor, " k"]) -> Split:
        """The images of these numbers, in their order; no pixel is copied."""
        return Split(self.images.select(index), self.labels[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Pictures ready for training.

    Attributes:
        name: as the user wrote it.
        classes: names of the classes; a label is a place in this tuple. Empty where the pictures have none.
        train: the training part; validation: what choices are made on; test: read once per finished run.
        img_size: height and width in pixels that a model sees.
        crop_pct: share of a picture's shorter side that the model's middle crop covers.
        mean: of each channel over the training part, where a pixel is 0..1; std: its standard deviation.
        fingerprint: differs where any pixel, label, split or size differs.
        split_rule: how the parts came about.
        skipped: unreadable pictures left out, by part.
        copied: the pictures are fewer than, or compressed anew from, those that published figures stand on.
        notes: sentences that belong above any result.
        attribution: whose pictures they are, where that is known.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    img_size: tuple[int, int]
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    split_rule: str
    skipped: Mapping[str, int] = field(default_factory=dict)
    copied: bool = False
    notes: tuple[str, ...] = ()
    attribution: str = ""

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.train.images.channels

    @property
    def splits(self) -> dict[str, Split]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def require_classes(self) -> None:
        """Refuses pictures without classes, before anything is learned from or judged by their labels.

        Raises:
            ValueError: there are no classes.
        """
        if not self.classes:
            raise ValueError(
                f"{self.name} was loaded without classes, and a classifier or a probe needs them: "
                "load it with labelled=True, which says what is missing"
            )

    def facts(self) -> dict[str, Any]:
        """What a record says about the data; plain values only."""
        counts = {name: part.labels.bincount(minlength=len(self.classes)) for name, part in self.splits.items()}
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "classes": len(self.classes),
            "images": {name: len(part) for name, part in self.splits.items()},
            "images_per_class": {name: count.tolist()[: len(self.classes)] for name, count in counts.items()},
            "channels": self.channels,
            "img_size": list(self.img_size),
            "crop_pct": self.crop_pct,
            "mean": list(self.mean),
            "std": list(self.std),
            "split_rule": self.split_rule,
            "skipped": dict(self.skipped),
            "copied": self.copied,
            "notes": list(self.notes),
        }
