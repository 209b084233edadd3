"""k-nearest neighbours: the class of an image by a vote of the most similar training images."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize, one_hot

K = 20
TEMPERATURE = 0.07

# Similarities and votes held at a time.
_MOST_VALUES = 2**25


def nearest_classes(
    queries: Float[Tensor, "q d"],
    known: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> Int64[Tensor, " q"]:
    """The class with most votes among the k training images of largest cosine similarity s, each of weight exp(s / T).

    Wu et al. 2018, https://arxiv.org/abs/1805.01978, with the k and T at which DINO reports
    (https://arxiv.org/abs/2104.14294). Nothing is learned or chosen. Memory does not grow with the number of queries.

    Args:
        queries: features of the images to be classified.
        known: features of the training images.
        labels: their classes.
        classes: how many there are.
        k: neighbours that vote.
        temperature: T; the smaller, the more the nearest one counts.

    Raises:
        ValueError: k that is not 1..n, or a temperature that is not above 0.
    """
    check_neighbours(k, len(known))
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    known, votes = normalize(known, dim=1), one_hot(labels, classes).to(known.dtype)
    rows = max(1, _MOST_VALUES // max(len(known), k * classes))
    return torch.cat([_voted(normalize(some, dim=1), known, votes, k, temperature) for some in queries.split(rows)])


def check_neighbours(k: int, images: int) -> None:
    """Whether so many of the training images can vote.

    Raises:
        ValueError: k that is not 1..images.
    """
    if not 1 <= k <= images:
        raise ValueError(f"k={k} neighbours of {images} training images: must be 1..{images}")


def _voted(
    queries: Float[Tensor, "q d"],
    known: Float[Tensor, "n d"],
    votes: Float[Tensor, "n classes"],
    k: int,
    temperature: float,
) -> Int64[Tensor, " q"]:
    similarity, nearest = (queries @ known.T).topk(k, dim=1)
    # Over exp(1 / T), which changes no order: exp(s / T) itself overflows where T is small.
    weight = ((similarity - 1) / temperature).exp()
    return (weight[:, :, None] * votes[nearest]).sum(dim=1).argmax(dim=1)
