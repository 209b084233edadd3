"""Pure functions of coordinates: which patch (row) may see which (column), by their places on the grid.

Each takes the grid rows `y` and grid columns `x` of the patches, and is true on the diagonal.
"""

from __future__ import annotations

from jaxtyping import Bool, Int
from torch import Tensor


def same_row_or_column(y: Int[Tensor, "*b p"], x: Int[Tensor, "*b p"]) -> Bool[Tensor, "*b p p"]:
    """In one row of the grid, or in one column."""
    return _equal(y) | _equal(x)


def within_square(y: Int[Tensor, "*b p"], x: Int[Tensor, "*b p"], radius: int) -> Bool[Tensor, "*b p p"]:
    """At most `radius` rows and at most `radius` columns away: a square of side 2 radius + 1."""
    return (_steps(y).abs() <= radius) & (_steps(x).abs() <= radius)


def nearer_than(y: Int[Tensor, "*b p"], x: Int[Tensor, "*b p"], distance: float) -> Bool[Tensor, "*b p p"]:
    """Less than `distance` away, as the crow flies."""
    return _steps(y).square() + _steps(x).square() < distance**2


def same_window(y: Int[Tensor, "*b p"], x: Int[Tensor, "*b p"], side: int, shift: int = 0) -> Bool[Tensor, "*b p p"]:
    """In one square window of `side`; shifted windows begin `shift` patches later, and nothing wraps around."""
    # Not (y + shift): the same for shift = side / 2 only.
    return _equal((y + side - shift) // side) & _equal((x + side - shift) // side)


def same_phase(y: Int[Tensor, "*b p"], x: Int[Tensor, "*b p"], step: int) -> Bool[Tensor, "*b p p"]:
    """A whole number of steps apart, in rows and in columns: step² groups that lie between each other."""
    return _equal(y % step) & _equal(x % step)


def _steps(places: Int[Tensor, "*b p"]) -> Int[Tensor, "*b p p"]:
    return places.unsqueeze(-1) - places.unsqueeze(-2)


def _equal(places: Int[Tensor, "*b p"]) -> Bool[Tensor, "*b p p"]:
    return _steps(places) == 0
