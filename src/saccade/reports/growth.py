"""Growth: the power of the number of tokens by which a cost grows, fitted on log axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saccade.reports.ratios import LEAST_REPEATS

# A line through two points says nothing about whether it is one.
LEAST_SIZES = 3
DRAWS = 2_000


@dataclass(frozen=True)
class Growth:
    """A straight line through the logarithms of cost and tokens.

    Attributes:
        exponent: 1 is linear, 2 quadratic.
        r2: share of the costs' variance that the line explains.
        tokens: sizes it was fitted to.
        scale: the cost at one token, by the line.
        low: lower end of the exponent's 95 % interval, as repeats vary; None where there are too few, or none.
        high: upper end.
    """

    exponent: float
    r2: float
    tokens: tuple[int, ...]
    scale: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return power(self.exponent)

    def cost(self, tokens: int | float) -> float:
        """What the line says of so many tokens."""
        return self.scale * tokens**self.exponent


def power(exponent: float) -> str:
    """An exponent with a true minus."""
    return f"{exponent:.2f}".replace("-", "−")


def growth(tokens: Sequence[int], costs: Sequence[Sequence[int | float]], seed: int = 0) -> Growth | None:
    """Fits a power of the tokens to the larger sizes: small ones are mostly overhead, which pulls it down.

    The upper half of the sizes is taken, and three at the least. The interval draws repeats of each size with
    replacement (percentile bootstrap, seeded); it says how sure the slope through these sizes is, and r² whether they
    lie on a line.

    Args:
        tokens: sizes, ascending.
        costs: repeats of each.
        seed: of the draws.

    Returns:
        None with fewer than three sizes, and where something cost nothing that could be measured.
    """
    if len(tokens) < LEAST_SIZES or min(min(each) for each in costs) <= 0:
        return None
    upper = max(LEAST_SIZES, -(-len(tokens) // 2))
    sizes, repeats = tuple(tokens[-upper:]), [np.log(each) for each in costs[-upper:]]
    x, y = np.log(sizes), np.array([np.median(each) for each in repeats])
    slope = _slopes(x, y[None])[0]
    rest = ((y - y.mean() - slope * (x - x.mean())) ** 2).sum()
    spread = ((y - y.mean()) ** 2).sum()
    # Where nothing grows, a flat line explains it all.
    r2 = 1 - rest / spread if spread > 0 else 1.0
    scale = float(np.exp(y.mean() - slope * x.mean()))
    if min(map(len, repeats)) < LEAST_REPEATS:
        return Growth(float(slope), float(r2), sizes, scale)
    generator = np.random.default_rng(seed)
    drawn = [np.median(generator.choice(each, (DRAWS, len(each))), axis=1) for each in repeats]
    low, high = np.percentile(_slopes(x, np.stack(drawn, axis=1)), [2.5, 97.5])
    return Growth(float(slope), float(r2), sizes, scale, float(low), float(high))


def _slopes(x: Float[np.ndarray, " n"], y: Float[np.ndarray, "k n"]) -> Float[np.ndarray, " k"]:
    """Of the least-squares line through each row of y."""
    centred = x - x.mean()
    return (y - y.mean(axis=1, keepdims=True)) @ centred / (centred @ centred)
