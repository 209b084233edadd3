"""Layers: the attentions that a bench sets beside softmax at each size, alone or between their projections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isqrt

from saccade.attention import parse
from saccade.measurement.benching.layer import LayerSubject

SOFTMAX = ('softmax(kernel="sdpa")', 'softmax(kernel="explicit")')
"""The baseline, by each of its kernels; the faster one at a size is what the others are divided by."""


def square(patches: int) -> tuple[int, int]:
    """The grid of so many patches.

    Raises:
        ValueError: no square has so many; the message names the nearest ones.
    """
    side = isqrt(max(patches, 0))
    if side < 1 or side**2 != patches:
        near = " or ".join(f"{one**2} ({one} x {one})" for one in (side, side + 1) if one)
        raise ValueError(f"tokens={patches}: must be the patches of a square grid, as {near}")
    return side, side


def is_softmax(attention: str) -> bool:
    """Whether it is the baseline, by one of its kernels."""
    try:
        written = parse(attention)
    except ValueError:
        # A mixture of layers is something else.
        return False
    return written.name == "softmax" and set(dict(written.options)) <= {"kernel"}


def with_softmax(attentions: Iterable[str]) -> list[str]:
    """The attentions behind softmax by both its kernels, each once."""
    return list(dict.fromkeys([*SOFTMAX, *(one.strip() for one in attentions if one.strip() != "softmax")]))


def layer_subjects(attentions: Iterable[str], base: LayerSubject) -> list[LayerSubject]:
    """All attentions at the size of one, softmax first.

    Args:
        attentions: as their users wrote them.
        base: width, heads, grid, prefix and terms.

    Raises:
        ValueError: no such attention or option.
    """
    return [replace(base, attention=name) for name in with_softmax(attentions)]
