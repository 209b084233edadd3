"""Tokens: what an attention layer is built for, the patch grid and the prefix tokens in front of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tokens:
    """The whole sequence of a model: `prefix` tokens (cls, registers), then the patches of `grid` in raster order.

    A layer is built for the whole grid; which patches are present is said at each call, by id (row * columns + column).

    Raises:
        ValueError: an empty grid or a negative prefix.
    """

    grid: tuple[int, int]
    prefix: int = 0

    def __post_init__(self) -> None:
        if len(self.grid) != 2 or min(self.grid) < 1 or self.prefix < 0:
            raise ValueError(
                f"Tokens(grid={self.grid}, prefix={self.prefix}): the grid needs two sides of at least 1, "
                "and the prefix at least 0 tokens"
            )

    @property
    def patches(self) -> int:
        """How many patches the whole grid holds."""
        return self.grid[0] * self.grid[1]

    @property
    def count(self) -> int:
        """How many tokens the whole sequence holds, prefix included."""
        return self.prefix + self.patches
