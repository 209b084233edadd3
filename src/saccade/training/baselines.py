"""What predicting constants would lose: the losses that a masked autoencoder has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def one_colour_loss(targets: Float[Tensor, "*b p"], channels: int) -> Float[Tensor, ""]:
    """The loss of the best single colour: mean squared deviation from the mean of each channel.

    Args:
        targets: of hidden patches, channels running fastest.
        channels: of the images.
    """
    return targets.reshape(-1, channels).var(dim=0, correction=0).mean()


class Baselines:
    """Collects the targets of a split, batch by batch.

    Args:
        patches: n of an image.
        values: p of a patch.
    """

    def __init__(self, patches: int, values: int) -> None:
        self.counts = torch.zeros(patches, 1, dtype=torch.float64)
        self.sums, self.squares = torch.zeros(2, patches, values, dtype=torch.float64)

    def add(self, targets: Float[Tensor, "b m p"], hidden: Int[Tensor, "b m"]) -> None:
        """Some images more: what is to be predicted of these patches."""
        places, values, patches = hidden.flatten(), targets.flatten(0, 1), len(self.counts)
        self.counts += places.bincount(minlength=patches)[:, None].cpu()
        for total, addends in ((self.sums, values), (self.squares, values.square())):
            total += addends.new_zeros(total.shape).index_add_(0, places, addends).cpu()

    def one_colour_loss(self, channels: int) -> float:
        """As the function of that name, over all that was added."""
        pixels = self.counts.sum() * self.sums.shape[1] / channels
        mean, square = (one.reshape(-1, channels).sum(dim=0) / pixels for one in (self.sums, self.squares))
        return (square - mean.square()).mean().item()

    def mean_picture_loss(self) -> float:
        """The loss of the best picture: mean squared deviation from the mean of each place."""
        # A place that was never hidden has sums of 0.
        lost = self.squares - self.sums.square() / self.counts.clamp(min=1)
        return (lost.sum() / (self.counts.sum() * self.sums.shape[1])).item()
