"""Found: a data set as it lies there: which pictures of which class, in which parts, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# A file, the bytes of a file, or pixels: (h, w) or (h, w, 3), uint8.
Picture = Path | bytes | np.ndarray

PART_OF = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
"""What users call the parts, and what they are called here."""


class NoLabels(ValueError):  # noqa: N818
    """The pictures lack the classes that a classifier needs; whoever learns without them may take the pictures as such.

    Args:
        lack: what is missing, and where.
        remedy: what to do about it.
    """

    def __init__(self, lack: str, remedy: str) -> None:
        super().__init__(lack, remedy)
        self.lack, self.remedy = lack, remedy

    def __str__(self) -> str:
        return f"{self.lack}; {self.remedy}, or learn without classes with `saccade pretrain`"


@dataclass(frozen=True)
class Part:
    """The pictures of one part.

    Attributes:
        names: one for each picture, stable under changes of the others: relative paths, or row numbers.
        labels: the class of each picture, as a place in `Found.classes`; all 0 where there are none.
        read: begins anew and gives the pictures in this order, with as few in memory as may be.
    """

    names: Sequence[str]
    labels: Sequence[int]
    read: Callable[[], Iterable[Picture]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A data set as it lies there.

    Attributes:
        name: as the user wrote it.
        classes: names of the classes; empty where the pictures were found without.
        parts: by the names "train", "validation" and "test"; the last two only where they lie there.
        state: differs where anything differs that was found (names, sizes, times of files); None: never cached.
        split_rule: where the parts came from.
        notes: sentences for the user.
        attribution: whose pictures they are.
    """

    name: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    state: object
    split_rule: str
    notes: tuple[str, ...] = ()
    attribution: str = ""

    def __post_init__(self) -> None:
        if not any(len(part.names) for part in self.parts.values()):
            raise ValueError(f"{self.name}: there are no pictures in it")
        if not len(self.parts.get("train", Part([], [], tuple)).names):
            raise ValueError(f"{self.name}: there are no training pictures, only {', '.join(self.parts)}")
        if len(self.classes) == 1:
            raise NoLabels(
                f"{self.name}: there is one class only ({self.classes[0]!r}) and nothing to tell apart", "give more"
            )


def arrays(images: np.ndarray, labels: np.ndarray) -> Part:
    """A part of pixels that are at hand; its pictures are named by their numbers."""

    def read() -> Iterator[Picture]:
        return iter(images)

    return Part([str(row) for row in range(len(images))], labels.tolist(), read)


def file_state(paths: Iterable[Path]) -> list[list[object]]:
    """What tells whether files have changed: place, size and time of each."""
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
