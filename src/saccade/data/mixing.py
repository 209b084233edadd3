"""Mixing two images into one with a mixed target: mixup and cutmix."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saccade.data.boxes import Boxes, below

TABLE_POINTS = 4097
DRAWS = 5
"""How many random numbers an image needs to be mixed: which way, two shares, and the middle of a box."""


def mixed(
    images: Float[Tensor, "b c y x"],
    partners: Float[Tensor, "b c y x"],
    drawn: Float[Tensor, "b 5"],
    mixup: float,
    cutmix: float,
) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, " b"]]:
    """Mixes each image with its partner.

    mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412) adds the two with shares from Beta(mixup, mixup); cutmix
    (Yun et al. 2019, https://arxiv.org/abs/1905.04899) pastes a box of the partner whose share of the area is from
    Beta(cutmix, cutmix), and which may stick out. With both, each image gets either by a coin.

    Returns:
        The mixed images, and the share of the first image in each.
    """
    size = (images.shape[2], images.shape[3])
    by_adding = drawn[:, 0] < (0.5 if mixup and cutmix else 1.0 if mixup else 0.0)
    share = beta_quantile(drawn[:, 1], mixup) if mixup else torch.ones(len(images))
    boxes = _boxes(drawn[:, 2:], cutmix, size) if cutmix else None
    inside = boxes.masks(size).float() if boxes else torch.zeros(len(images), 1, 1, 1)
    weight = torch.where(by_adding[:, None, None, None], share[:, None, None, None], 1 - inside)
    return weight * images + (1 - weight) * partners, weight.mean(dim=(1, 2, 3))


def mixed_targets(
    labels: Int64[Tensor, " b"], partners: Int64[Tensor, " b"], share: Float[Tensor, " b"], classes: int
) -> Float[Tensor, "b classes"]:
    """The share of the image to its class, the rest to its partner's."""
    one, other = (torch.nn.functional.one_hot(these, classes).float() for these in (labels, partners))
    return share[:, None] * one + (1 - share[:, None]) * other


def beta_quantile(drawn: Float[Tensor, " b"], alpha: float) -> Float[Tensor, " b"]:
    """Numbers of the distribution Beta(alpha, alpha) from numbers uniform in 0 <= u < 1, one for one.

    Read from a table of the cumulated density, which is off by less than 1e-4.
    """
    cumulated, power = _beta_table(alpha)
    lower = np.minimum(drawn.double().numpy(), 1 - drawn.double().numpy())
    point = np.interp(lower, cumulated, np.linspace(0, 0.5**power, TABLE_POINTS)) ** (1 / power)
    return torch.where(drawn < 0.5, torch.from_numpy(point), 1 - torch.from_numpy(point)).float()


@lru_cache
def _beta_table(alpha: float) -> tuple[np.ndarray, float]:
    """Cumulated density of the lower half, over equal steps of x^power; its density is bounded there."""
    power = min(alpha, 1.0)
    x = np.linspace(0, 0.5**power, TABLE_POINTS) ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    cumulated = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return cumulated / cumulated[-1] / 2, power


def _boxes(drawn: Float[Tensor, "b 3"], alpha: float, size: tuple[int, int]) -> Boxes:
    """Boxes around a middle anywhere, with the picture's shape and an area from Beta(alpha, alpha)."""
    sides = torch.tensor(size)
    height, width = ((1 - beta_quantile(drawn[:, 0], alpha)).sqrt()[:, None] * sides).long().unbind(dim=1)
    middle_row, middle_column = below(drawn[:, 1:], sides).unbind(dim=1)
    return Boxes(middle_row - height // 2, middle_column - width // 2, height, width)
