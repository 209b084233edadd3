"""Who goes where: parts of the data set aside by a hash of each picture's name, the same for every run."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Int64
from torch import Tensor

from saccade.data.draws import bits


def name_keys(names: list[str]) -> Int64[Tensor, " n"]:
    """64 bits of each name's SHA-256."""
    digests = (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names)
    return torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in digests], dtype=torch.int64)


def set_aside(
    labels: Int64[Tensor, " n"], keys: Int64[Tensor, " n"], count: int, purpose: str
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " taken"]]:
    """Takes `count` pictures away, each class in proportion, those whose names hash lowest under seed 0.

    Every class keeps one picture at least.

    Args:
        labels: class of each picture.
        keys: `name_keys` of their names.
        count: how many are taken.
        purpose: what for; other purposes take others.

    Returns:
        Numbers of the pictures that stay, and of those taken, both ascending.

    Raises:
        ValueError: so many cannot be taken.
    """
    order = bits(0, 0, keys, purpose, 1)[:, 0].argsort(stable=True)
    taken = [
        order[labels[order] == label][:share] for label, share in enumerate(_shares(labels.bincount().tolist(), count))
    ]
    rows = torch.cat([*taken, torch.empty(0, dtype=torch.int64)]).sort().values
    if len(rows) < count:
        raise ValueError(f"{count} of {len(labels)} pictures cannot be set aside: every class keeps one")
    stays = torch.ones(len(labels), dtype=torch.bool)
    stays[rows] = False
    return stays.nonzero()[:, 0], rows


def _shares(sizes: list[int], count: int) -> list[int]:
    """How many of each class are taken: in proportion, rounded so that the sum is `count`, and never a whole class."""
    exact = [size * count / max(1, sum(sizes)) for size in sizes]
    most = [max(0, size - 1) for size in sizes]
    shares = [min(int(share), room) for share, room in zip(exact, most, strict=True)]
    while sum(shares) < min(count, sum(most)):
        # The class that is furthest below its proportion is next.
        behind = [(exact[c] - shares[c], -c) for c in range(len(sizes)) if shares[c] < most[c]]
        shares[-max(behind)[1]] += 1
    return shares
