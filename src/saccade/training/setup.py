"""From a recipe to what is trained: the model it plans, the images it names, and one made to fit the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from saccade.data.dataset import Dataset
from saccade.data.sources import load_data
from saccade.models.sizes import create_classifier
from saccade.models.vit import VisionTransformer
from saccade.training.recipe import Recipe, with_values


def plan_model(recipe: Recipe) -> VisionTransformer:
    """The model without memory, so that an impossible one is refused before any image is read.

    Raises:
        ValueError: an unknown model, attention or option, or sizes that do not fit each other.
    """
    options = dict(recipe.model.options)
    if recipe.data.in_chans is not None:
        options.setdefault("in_chans", recipe.data.in_chans)
    with torch.device("meta"):
        planned = create_classifier(recipe.model.name, recipe.model.attention, **options)
    if planned.global_pool == "":
        raise ValueError('model.options.global_pool = "": a classifier reads one row: "token", "avg" or "all"')
    return planned


def load_images(recipe: Recipe, img_size: tuple[int, int], note: Callable[[str], None]) -> Dataset:
    """The images that the recipe names, for a model of this size."""
    data = recipe.data
    return load_data(
        data.name,
        img_size=img_size,
        crop_pct=data.crop_pct,
        in_chans=data.in_chans,
        on_bad_image=data.on_bad_image,
        limit=data.limit,
        note=note,
    )


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with what the images decide written out: classes and channels.

    Raises:
        ValueError: the recipe asks for other classes, channels or sizes than the images have, or for batches larger
            than the training part.
    """
    if (wanted := plan_model(recipe).img_size) != dataset.img_size:
        raise ValueError(
            f"{dataset.name} was loaded for images of {dataset.img_size}, and {recipe.model.name} takes {wanted}: "
            "load it for that size, or give img_size"
        )
    of_data = {"num_classes": len(dataset.classes), "in_chans": dataset.channels}
    for option, there in of_data.items():
        asked = recipe.model.options.get(option, there)
        if asked != there:
            raise ValueError(f"model.options.{option} = {asked}: {dataset.name} has {there}; leave the option out")
    if len(dataset.train) < recipe.train.batch_size:
        raise ValueError(
            f"train.batch_size = {recipe.train.batch_size}: {dataset.name} has {len(dataset.train)} training images; "
            "take a batch of at most so many"
        )
    return with_values(recipe, {f"model.options.{option}": there for option, there in of_data.items()})


def make_model(recipe: Recipe) -> VisionTransformer:
    """The model of a resolved recipe with its first weights, f(seed, parameter name)."""
    model = recipe.model
    return create_classifier(model.name, model.attention, seed=recipe.train.seed, **model.options)


def saved_facts(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What a saved model needs beside its weights to see new pictures as it saw those it was trained on."""
    return {
        "data": dataset.name,
        "on_bad_image": recipe.data.on_bad_image,
        "limit": recipe.data.limit,
        "convert_to_chans": recipe.data.in_chans,
        "classes": list(dataset.classes),
        "crop_pct": dataset.crop_pct,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "amp_dtype": recipe.train.amp_dtype,
        "seed": recipe.train.seed,
    }
