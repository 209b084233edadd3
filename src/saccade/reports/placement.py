"""Placement: where the labels of a picture's points go, so that none covers another, a point or a bar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Pixels between a point and its label, nearest first.
DISTANCES = (9.0, 18.0, 32.0, 50.0, 72.0, 100.0)
ANGLES = 16

# Pixels that stay free around a label.
AIR = 3.0

# Each label is placed anew so often, knowing where the others went.
SWEEPS = 4


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def distance(self, x: float, y: float) -> float:
        """From a point to the nearest side; 0 inside."""
        return math.hypot(max(self.left - x, x - self.right, 0.0), max(self.bottom - y, y - self.top, 0.0))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
) -> list[Box]:
    """A box for each label, near its point, with as little overlap as repeated greedy choices find.

    Args:
        points: where the points are.
        sizes: width and height of each label.
        obstacles: what no label should cover: points, bars, lines.
        frame: what the labels must stay within.
    """
    placed: dict[int, Box] = {}
    for index in list(range(len(points))) * SWEEPS:
        others = [*obstacles, *(box for other, box in placed.items() if other != index)]
        # The first of the best: candidates come nearest first.
        placed[index] = min(_around(points[index], sizes[index]), key=lambda box: round(_covered(box, others, frame)))
    return [placed[index] for index in range(len(points))]


def _covered(box: Box, others: Sequence[Box], frame: Box) -> float:
    """How much of the box and its surroundings lies on something, or outside the frame, which counts far more."""
    wide = Box(box.left - AIR, box.bottom - AIR, box.right + AIR, box.top + AIR)
    return sum(wide.overlap(other) for other in others) + 100 * (wide.area - wide.overlap(frame))


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    """Boxes around the point, nearest first; at each distance to the right, to the left, above, below, then between."""
    x, y = point
    width, height = size
    order = sorted(range(ANGLES), key=lambda step: (step % (ANGLES // 2) != 0, step % (ANGLES // 4) != 0, step))
    for distance in DISTANCES:
        for step in order:
            across, up = math.cos(2 * math.pi * step / ANGLES), math.sin(2 * math.pi * step / ANGLES)
            middle_x = x + across * (distance + width / 2)
            middle_y = y + up * (distance + height / 2)
            yield Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)
