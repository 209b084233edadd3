"""Student's t distribution with a whole number of degrees of freedom, as the finite sums it is."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def probability_below(t: Float[np.ndarray, "*k n"], degrees: int) -> Float[np.ndarray, "*k n"]:
    """P(T <= t), exact: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.

    Raises:
        ValueError: fewer than one degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom: Student's t has 1 or more")
    angle = np.arctan(t / math.sqrt(degrees))
    sine, cosine = np.sin(angle), np.cos(angle)
    if degrees % 2:
        series = cosine * _series(cosine**2, range(3, degrees, 2)) if degrees > 1 else 0.0
        inside = (angle + sine * series) * 2 / math.pi
    else:
        inside = sine * _series(cosine**2, range(2, degrees, 2))
    return (1 + inside) / 2


def quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = probability, for 0.5 <= probability < 1, by bisection."""
    low, high = 0.0, 1.0
    while probability_below(np.array([high]), degrees) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if probability_below(np.array([middle]), degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _series(x: Float[np.ndarray, "*k n"], steps: range) -> Float[np.ndarray, "*k n"]:
    """1 + r₁ x (1 + r₂ x (1 + ...)) with r = (step - 1) / step for each of `steps`."""
    total = np.ones_like(x)
    for step in reversed(steps):
        total = 1 + (step - 1) / step * x * total
    return total
