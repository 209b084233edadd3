"""Decoded: a whole data set as uint8 pixels behind one another, each picture read once."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save
from torch import Tensor

from saccade.data.decode import MOST_PIXELS, Header, Unreadable, covering_size, decode, read_header
from saccade.data.found import Found, Part, Picture
from saccade.data.pictures import Pictures
from saccade.data.splits import name_keys

PICTURES_AT_A_TIME = 512
# Handing over one small picture costs as much as decoding it.
PICTURES_A_JOB = 32

# A picture's header and the size that it will have, or why it has none.
_Seen = tuple[Header, tuple[int, int]] | str
# Makes room for so many bytes: in memory, or in a file.
Room = Callable[[int], np.ndarray]
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pictures of all parts behind one another.

    Attributes:
        pixels: every picture's (c, h, w), one after the other, and their SHA-256.
        channels: of every picture.
        parts: for "train", "validation" and "test", as far as they were found, one row a picture: "labels", "keys"
            (`name_keys` of their names), "offsets" into pixels, "heights", "widths", and per channel the "sums" of its
            pixels and of their "squares".
        broken: part, name and reason of every picture that could not be read.
        formats: how many pictures came in which format.
    """

    pixels: UInt8[Tensor, " bytes"]
    pixels_sha256: str
    channels: int
    parts: dict[str, dict[str, Tensor]]
    broken: list[tuple[str, str, str]]
    formats: dict[str, int]

    def pictures(self, part: str) -> Pictures:
        """The pictures of a part."""
        table = self.parts[part]
        return Pictures(self.pixels, table["offsets"], table["heights"], table["widths"], self.channels)

    def tables(self) -> bytes:
        """All tables in one safetensors text, columns named as in "train.labels"."""
        return save({f"{part}.{name}": column for part, table in self.parts.items() for name, column in table.items()})

    def fingerprint(self) -> str:
        """SHA-256 of every pixel, shape, label and name."""
        return hashlib.sha256(f"{self.pixels_sha256}:{self.channels}:".encode() + self.tables()).hexdigest()


def decode_all(found: Found, img_size: tuple[int, int], crop_pct: float, in_chans: int | None, room: Room) -> Decoded:
    """Decodes every picture once, to the smallest size that covers img_size / crop_pct; broken ones are listed.

    Args:
        found: the data set.
        img_size: height and width that the model will see.
        crop_pct: share of the shorter side that the model's crop covers.
        in_chans: channels wanted; None: 1 where every picture is grey, else 3.
        room: makes the place where the pixels go.
    """
    # Pillow warns about what is judged here, or harmless.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        look = partial(_look, img_size, crop_pct)
        said = {name: list(_each(pool, look, part.read())) for name, part in found.parts.items()}
        headers = [one[0] for part in said.values() for one in part if not isinstance(one, str)]
        channels = in_chans or (1 if headers and all(head.grey for head in headers) else 3)
        plans, size = [], 0
        for name, part in found.parts.items():
            plans.append(_planned(name, part, said[name], channels, size))
            size = plans[-1].end
        pixels = room(size)
        filled = [(plan, *_fill(pool, plan, channels, pixels)) for plan in plans]
    return Decoded(
        pixels=torch.from_numpy(pixels),
        pixels_sha256=hashlib.sha256(pixels.data).hexdigest(),
        channels=channels,
        parts={plan.name: table for plan, table, _ in filled},
        broken=[(plan.name, plan.part.names[row], why) for plan, _, broken in filled for row, why in broken.items()],
        formats=dict(Counter(head.format for head in headers)),
    )


@dataclass(frozen=True)
class _Plan:
    """Where the pictures of one part will lie, and how large; `said` is what a look at each one's header told."""

    name: str
    part: Part
    said: list[_Seen]
    sizes: np.ndarray
    offsets: np.ndarray
    end: int


def _look(img_size: tuple[int, int], crop_pct: float, picture: Picture) -> _Seen:
    try:
        head = read_header(picture)
    except Unreadable as error:
        return str(error)
    height, width = covering_size(head.height, head.width, img_size, crop_pct)
    if height * width > MOST_PIXELS:
        return f"{head.width} x {head.height} is so long and thin that it would become {width} x {height}"
    return head, (height, width)


def _planned(name: str, part: Part, said: list[_Seen], channels: int, start: int) -> _Plan:
    sizes = np.array([(0, 0) if isinstance(one, str) else one[1] for one in said], dtype=np.int64).reshape(-1, 2)
    bounds = np.cumsum([start, *(channels * sizes.prod(axis=1))])
    return _Plan(name, part, said, sizes, bounds[:-1], int(bounds[-1]))


def _fill(
    pool: ThreadPoolExecutor, plan: _Plan, channels: int, pixels: np.ndarray
) -> tuple[dict[str, Tensor], dict[int, str]]:
    """Decodes one part into `pixels`: its table, and why rows are broken."""
    moments = np.zeros((2, len(plan.said), channels), dtype=np.int64)

    def put(job: tuple[int, Picture]) -> str | None:
        row, picture = job
        if isinstance(why := plan.said[row], str):
            return why
        height, width = map(int, plan.sizes[row])
        place = pixels[plan.offsets[row] :][: channels * height * width]
        try:
            image = decode(picture, (height, width), channels)
        except Unreadable as error:
            place[:] = 0
            return str(error)
        place[:] = image.reshape(-1)
        wide = image.reshape(channels, -1).astype(np.int64)
        moments[0, row], moments[1, row] = wide.sum(axis=1), (wide * wide).sum(axis=1)
        return None

    reasons = enumerate(_each(pool, put, enumerate(plan.part.read())))
    broken = {row: why for row, why in reasons if why is not None}
    return _table(plan, moments, [row for row in range(len(plan.said)) if row not in broken]), broken


def _table(plan: _Plan, moments: np.ndarray, whole: list[int]) -> dict[str, Tensor]:
    columns = {
        "labels": torch.tensor(plan.part.labels, dtype=torch.int64),
        "keys": name_keys(list(plan.part.names)),
        "offsets": torch.from_numpy(plan.offsets),
        "heights": torch.from_numpy(plan.sizes[:, 0]),
        "widths": torch.from_numpy(plan.sizes[:, 1]),
        "sums": torch.from_numpy(moments[0]),
        "squares": torch.from_numpy(moments[1]),
    }
    return {name: column[torch.tensor(whole, dtype=torch.int64)] for name, column in columns.items()}


def _each(pool: ThreadPoolExecutor, make: Callable[[_Given], _Made], given: Iterable[_Given]) -> Iterator[_Made]:
    """`make` of each, in order, in threads, with few at a time in memory."""
    source = iter(given)
    while some := list(islice(source, PICTURES_AT_A_TIME)):
        jobs = [some[start : start + PICTURES_A_JOB] for start in range(0, len(some), PICTURES_A_JOB)]
        for made in pool.map(lambda job: [make(one) for one in job], jobs):
            yield from made
