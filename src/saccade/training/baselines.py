"""Constants to predict: one colour and the mean picture, whose losses a masked autoencoder has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def one_colour(targets: Float[Tensor, "b m p"], channels: int) -> Float[Tensor, " p"]:
    """The mean of the targets, channel by channel, as a patch.

    Args:
        targets: of hidden patches, channels running fastest.
        channels: of the images.
    """
    return targets.reshape(-1, channels).mean(dim=0).repeat(targets.shape[2] // channels)


class MeanPicture:
    """The mean of the targets of many images, place by place.

    Args:
        patches: n of an image.
        values: p of a patch.
        device: of the targets.
    """

    def __init__(self, patches: int, values: int, device: torch.device) -> None:
        self.sums = torch.zeros(patches, values, device=device)
        self.counts = torch.zeros(patches, 1, device=device)

    def add(self, targets: Float[Tensor, "b m p"], hidden: Int[Tensor, "b m"]) -> None:
        """Some images more: what is to be predicted of these patches."""
        self.sums.index_add_(0, hidden.flatten(), targets.flatten(0, 1))
        self.counts += hidden.flatten().bincount(minlength=len(self.counts))[:, None]

    def picture(self) -> Float[Tensor, "n p"]:
        """A place that was never hidden, and which nobody asks for, is 0."""
        return self.sums / self.counts.clamp(min=1)

    def one_colour(self, channels: int) -> Float[Tensor, " p"]:
        """The mean of all targets, channel by channel, as a patch."""
        whole, pixels = self.sums.sum(dim=0).reshape(-1, channels), self.counts.sum() * self.sums.shape[1] / channels
        return (whole.sum(dim=0) / pixels).repeat(len(whole))
