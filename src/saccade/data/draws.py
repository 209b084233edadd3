"""Random numbers without a generator: each is a function of seed, epoch, image index and purpose.

So an image meets the same crop and flip whatever batch it is in, and a run that resumes draws what it would have.
"""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195): its increment and two multipliers,
# as the signed numbers that torch's int64 holds.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def bits(seed: int, epoch: int, index: Int64[Tensor, " b"], purpose: str, count: int) -> Int64[Tensor, "b count"]:
    """64 random bits each: `count` numbers for every image; number j does not depend on how many are asked for.

    Args:
        seed: of the run.
        epoch: counted from 0.
        index: of the images in the training set.
        purpose: what the numbers decide, as in "flip": purposes do not share numbers.
        count: how many numbers an image needs.
    """
    digest = hashlib.sha256(f"{seed}:{epoch}:{purpose}".encode()).digest()
    key = int.from_bytes(digest[:8], "little", signed=True)
    image = _mixed((index + 1) * _STEP + key)
    return _mixed(image[:, None] + torch.arange(1, count + 1, device=index.device) * _STEP)


def uniform(seed: int, epoch: int, index: Int64[Tensor, " b"], purpose: str, count: int) -> Float[Tensor, "b count"]:
    """Numbers uniform in 0 <= u < 1, as `bits` with its arguments; float32, multiples of 2^-24."""
    return _shifted(bits(seed, epoch, index, purpose, count), 40).float() * 2.0**-24


def permutation(seed: int, epoch: int, n: int) -> Int64[Tensor, " n"]:
    """The order of n images in an epoch: sorted by 64 random bits each, so it is the same in every version of torch."""
    return bits(seed, epoch, torch.arange(n), "order", 1)[:, 0].argsort(stable=True)


def _mixed(x: Int64[Tensor, "*s"]) -> Int64[Tensor, "*s"]:
    """SplitMix64's output function; products wrap around as its unsigned ones do."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Int64[Tensor, "*s"], by: int) -> Int64[Tensor, "*s"]:
    """A shift to the right that fills with zeros: torch's own repeats the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
