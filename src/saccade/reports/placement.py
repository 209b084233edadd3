"""Placement: where the labels of a picture's points go, so that none covers another, a point or a bar.

A box is left, bottom, right, top in pixels, y upwards.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Pixels between a point and its label, nearest first.
DISTANCES = (9.0, 18.0, 32.0, 50.0, 72.0, 100.0)

# To the right, to the left, above, below, then the diagonals, then what lies between: in sixteenths of a turn.
DIRECTIONS = (0, 8, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15)

# Pixels that stay free around a label.
AIR = 3.0


def place_labels(
    points: Float[np.ndarray, "n 2"],
    sizes: Float[np.ndarray, "n 2"],
    obstacles: Float[np.ndarray, "k 4"],
    frame: Float[np.ndarray, " 4"],
) -> Float[np.ndarray, "n 4"]:
    """A box for each label, near its point, with as little overlap as one choice after another finds.

    Args:
        points: where the points are.
        sizes: width and height of each label.
        obstacles: what no label should cover: points, bars, lines.
        frame: what the labels must stay within.
    """
    taken = obstacles
    for point, size in zip(points, sizes, strict=True):
        boxes = around(point, size)
        wide = boxes + AIR * np.array([-1, -1, 1, 1])
        outside = (wide[:, 2:] - wide[:, :2]).prod(-1) - overlaps(wide, frame[None])[:, 0]
        # Outside counts far more. The first of the best is taken: they come nearest first.
        best = boxes[np.argmin(np.round(overlaps(wide, taken).sum(-1) + 100 * outside))]
        taken = np.concatenate([taken, best[None]])
    return taken[len(obstacles) :]


def overlaps(boxes: Float[np.ndarray, "c 4"], others: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "c k"]:
    """The area that each box shares with each of the others."""
    ends = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    starts = np.maximum(boxes[:, None, :2], others[None, :, :2])
    return np.maximum(ends - starts, 0.0).prod(-1)


def around(point: Float[np.ndarray, " 2"], size: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "c 4"]:
    """Boxes of this size around a point, the nearest first."""
    angles = 2 * np.pi / 16 * np.array(DIRECTIONS)
    outward = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    middles = point + np.concatenate([outward * (distance + size / 2) for distance in DISTANCES])
    return np.concatenate([middles - size / 2, middles + size / 2], axis=-1)


def distance_to(box: Float[np.ndarray, " 4"], point: Float[np.ndarray, " 2"]) -> float:
    """From a point to the nearest side of a box; 0 inside."""
    return float(np.hypot(*np.maximum(np.maximum(box[:2] - point, point - box[2:]), 0.0)))
