"""Rivals: softmax models that are cheaper by other means than attention, as people would make them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from saccade.models.sizes import create_classifier


@dataclass(frozen=True)
class Rival:
    """The model asked for with softmax and one change.

    Attributes:
        label: what is changed, as in "softmax at depth=6".
        changes: options of the model that differ, as for create_model.
        share: its declared FLOPs over those of the model as it is; backward has about twice those of forward in
            both, so that the share is that of a training step, too.
    """

    label: str
    changes: Mapping[str, Any]
    share: float


def families(model: str, options: Mapping[str, Any]) -> dict[str, list[Rival]]:
    """Every way to make a softmax model cheaper, each with its rivals from the dearest to the cheapest.

    Larger patches, fewer layers, fewer heads of the same width (a narrower model), and patches merged on the way
    (`models/merging.py`). A way that the model does not have is left out.

    Raises:
        ValueError: a masked autoencoder, or what create_model refuses.
    """
    with torch.device("meta"):
        usual = create_classifier(model, "softmax", **options)
    whole = sum(usual.flops().values())
    config, patches = usual.config, usual.tokens.patches
    changes = {
        "larger patch": _patch_sizes(config) if config["embed_layer"] == "patch" else [],
        "fewer layers": [{"depth": depth} for depth in range(config["depth"] - 1, 0, -1)],
        "narrower": _widths(config),
        "token merging": [{"token_merging": count} for count in _counts(patches // 2)],
    }
    found = {way: list(_rivals(model, options, each, whole)) for way, each in changes.items()}
    return {way: sorted(rivals, key=lambda one: -one.share) for way, rivals in found.items() if rivals}


def nearest(family: Sequence[Rival], share: float) -> Rival:
    """The one whose declared share is the nearest, as a ratio."""
    return min(family, key=lambda rival: abs(math.log(rival.share / share)))


def rivals_of(model: str, options: Mapping[str, Any], target: float) -> list[tuple[str, dict[str, Any]]]:
    """One softmax model of each family, the nearest in declared FLOPs; whether it takes as long, a clock must say.

    Example:
        for label, changed in rivals_of("vit_small_patch16_224", {"num_classes": 10}, target=0.6):
            create_model("vit_small_patch16_224", "softmax", **changed)

    Args:
        model: a name of `list_models()`, of a classifier.
        options: overrides of it.
        target: wanted FLOPs of a training step over those of the model with softmax.

    Returns:
        Label and complete options.

    Raises:
        ValueError: a target outside 0..1, a masked autoencoder, or what create_model refuses.
    """
    if not 0 < target < 1:
        raise ValueError(f"target={target:g}: must be a share above 0 and below 1 of what the model with softmax costs")
    chosen = [nearest(family, target) for family in families(model, options).values()]
    return [(rival.label, {**options, **rival.changes}) for rival in chosen]


def _rivals(
    model: str, options: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], whole: int
) -> Iterator[Rival]:
    """Those that can be built and cost less."""
    for change in changes:
        try:
            with torch.device("meta"):
                made = create_classifier(model, "softmax", **{**options, **change})
        except ValueError:
            # A width without sine positions, merging under a pooled head: not a way of this model.
            continue
        share = sum(made.flops().values()) / whole
        if share < 1:
            name, value = next(iter(change.items()))
            yield Rival(f"softmax at {name}={value}", change, share)


def _patch_sizes(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Multiples of the patch that divide the image and leave two by two or more."""
    sides = list(zip(config["img_size"], config["patch_size"], strict=True))
    times = range(2, min(img // patch for img, patch in sides) // 2 + 1)
    fitting = [count for count in times if all(img % (count * patch) == 0 for img, patch in sides)]
    return [{"patch_size": _one_side([count * patch for _, patch in sides])} for count in fitting]


def _widths(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fewer heads, each as wide as it is."""
    heads = config["num_heads"]
    return [
        {"embed_dim": config["embed_dim"] // heads * fewer, "num_heads": fewer} for fewer in range(heads - 1, 0, -1)
    ]


def _counts(most: int) -> Iterator[int]:
    """One by one at first, then a quarter more each time, up to the most."""
    count = 1
    while count < most:
        yield count
        count = max(count + 1, count * 5 // 4)
    yield most


def _one_side(patch: list[int]) -> int | list[int]:
    """A square patch by its side, as people write it."""
    return patch[0] if patch[0] == patch[1] else patch
