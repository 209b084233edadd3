"""Constants to predict: one colour and one picture of the training part, whose losses a masked autoencoder must beat.

The best constant under a squared error is the mean; under SimMIM's absolute error it is the median.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.data.batches import eval_batches
from saccade.data.dataset import Dataset
from saccade.models.embed import patchify
from saccade.models.mae import MaskedAutoencoder
from saccade.training.evaluate import BATCH_SIZE

# Values that medians are of: 222 colour pictures of 224 pixels, all of most smaller data sets. What is predicted from n
# pictures loses less than 1 / n more than the best constant, on average: less than is warned of.
_MOST_VALUES = 2**25


@dataclass(frozen=True, eq=False)
class Constants:
    """The best constant predictions that the training part knows of.

    Attributes:
        colour: one for all pixels, as a patch.
        picture: one for each place, patch by patch.
    """

    colour: Float[Tensor, " p"]
    picture: Float[Tensor, "n p"]


@torch.no_grad()
def training_constants(model: MaskedAutoencoder, dataset: Dataset) -> Constants:
    """Mean colour and mean picture of what the model is to predict; the medians where its error is absolute.

    Of the training part, not augmented, so that they are of no part that a loss is judged on. A mean is of all of its
    pictures; a median, which has to hold them, of a large part is of pictures spread evenly over it.

    Args:
        model: on any device; it is only asked what it is to predict.
        dataset: whose training part, mean and deviation are taken.
    """
    places, values = model.tokens.patches, math.prod(model.patch_embed.patch_size) * model.in_chans
    count, dtype = len(dataset.train), next(model.parameters()).dtype
    taken = count if model.objective == "mae" else min(count, max(1, _MOST_VALUES // (places * values)))
    spread = dataset.train.select(torch.arange(taken) * count // taken)
    # On the CPU: the peak of an accelerator is that of training.
    parts = (
        model.targets(patchify(batch.images.to(dtype), model.patch_embed.patch_size))
        for batch in eval_batches(spread, dataset, BATCH_SIZE)
    )
    if model.objective == "mae":
        picture = torch.zeros(places, values)
        for targets in parts:
            picture += targets.sum(dim=0) / taken
        return Constants(one_colour(model, picture[None]), picture)
    targets = torch.cat([*parts])
    # A patch at a time: a median copies what it is of.
    picture = torch.stack([patch.median(dim=0).values for patch in targets.unbind(1)])
    return Constants(one_colour(model, targets), picture)


def one_colour(model: MaskedAutoencoder, targets: Float[Tensor, "b m p"]) -> Float[Tensor, " p"]:
    """The best constant for all pixels, channel by channel, as a patch.

    Args:
        model: whose error decides what is best.
        targets: of patches, channels running fastest.
    """
    middle = torch.mean if model.objective == "mae" else torch.median
    colour = [middle(targets[..., channel :: model.in_chans]) for channel in range(model.in_chans)]
    return torch.stack(colour).repeat(targets.shape[2] // model.in_chans)
