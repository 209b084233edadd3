"""From a recipe to what is trained: the model it plans, the images it names, and one made to fit the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from saccade.data.dataset import Dataset
from saccade.data.sources import load_data
from saccade.models.mae import MaskedAutoencoder
from saccade.models.pretrained import weights_sha256
from saccade.models.sizes import create_model, is_masked_autoencoder
from saccade.models.transfer import start_from
from saccade.models.vit import VisionTransformer
from saccade.training.objective import Classification, Objective
from saccade.training.pretraining import Pretraining
from saccade.training.recipe import ModelRecipe, Recipe, with_values


def objective_of(recipe: Recipe) -> Objective[Any, Any]:
    """The task: the name of the model decides.

    Raises:
        ValueError: an unknown model, or settings that mean nothing to the task.
    """
    if not is_masked_autoencoder(recipe.model.name):
        return Classification(recipe.train.label_smoothing)
    of_labels = {
        "augment.mixup": recipe.augment.mixup,
        "augment.cutmix": recipe.augment.cutmix,
        "train.label_smoothing": recipe.train.label_smoothing,
    }
    for name, value in of_labels.items():
        if value:
            raise ValueError(
                f"{name} = {value:g}: {recipe.model.name} learns without labels to reconstruct pictures as they are; "
                f"set {name} to 0"
            )
    return Pretraining("median" if plan_model(recipe).config["objective"] == "simmim" else "mean")


def plan_model(recipe: Recipe) -> VisionTransformer | MaskedAutoencoder:
    """The model without memory, so that an impossible one is refused before any image is read.

    Raises:
        ValueError: an unknown model, attention or option, or sizes that do not fit each other.
    """
    options = dict(recipe.model.options)
    if recipe.data.in_chans is not None:
        options.setdefault("in_chans", recipe.data.in_chans)
    with torch.device("meta"):
        planned = create_model(recipe.model.name, recipe.model.attention, **options)
    if isinstance(planned, VisionTransformer) and planned.global_pool == "":
        raise ValueError('model.options.global_pool = "": a classifier reads one row: "token", "avg" or "all"')
    return planned


def load_images(
    recipe: Recipe, img_size: tuple[int, int], note: Callable[[str], None], *, labelled: bool = True
) -> Dataset:
    """The images that the recipe names, for a model of this size; without `labelled`, such without classes, too."""
    data = recipe.data
    return load_data(
        data.name,
        img_size=img_size,
        crop_pct=data.crop_pct,
        in_chans=data.in_chans,
        on_bad_image=data.on_bad_image,
        limit=data.limit,
        labelled=labelled,
        note=note,
    )


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with what the images decide written out: classes and channels.

    Raises:
        ValueError: the recipe asks for other classes, channels or sizes than the images have, for a classifier of
            images without classes, or for batches larger than the training part.
    """
    if (wanted := plan_model(recipe).img_size) != dataset.img_size:
        raise ValueError(
            f"{dataset.name} was loaded for images of {dataset.img_size}, and {recipe.model.name} takes {wanted}: "
            "load it for that size, or give img_size"
        )
    of_data = {"in_chans": dataset.channels}
    if not is_masked_autoencoder(recipe.model.name):
        dataset.require_classes()
        of_data["num_classes"] = len(dataset.classes)
    for option, there in of_data.items():
        asked = recipe.model.options.get(option, there)
        if asked != there:
            raise ValueError(f"model.options.{option} = {asked}: {dataset.name} has {there}; leave the option out")
    if len(dataset.train) < recipe.train.batch_size:
        raise ValueError(
            f"train.batch_size = {recipe.train.batch_size}: {dataset.name} has {len(dataset.train)} training images; "
            "take a batch of at most so many"
        )
    found: dict[str, Any] = {f"model.options.{option}": there for option, there in of_data.items()}
    if recipe.model.checkpoint is not None:
        found["model.checkpoint_sha256"] = _same_weights(recipe.model)
    return with_values(recipe, found)


def make_model(
    recipe: Recipe, note: Callable[[str], None] = lambda line: None
) -> VisionTransformer | MaskedAutoencoder:
    """The model of a resolved recipe with its first weights: f(seed, parameter name), or its checkpoint's.

    Args:
        recipe: resolved.
        note: is told what it starts from.

    Raises:
        ValueError: the checkpoint cannot be read, or its encoder is another.
    """
    told = recipe.model
    model = create_model(told.name, told.attention, seed=recipe.train.seed, **told.options)
    if told.checkpoint is not None:
        for line in start_from(model, told.checkpoint, convert_channels=told.convert_channels).notes():
            note(line)
    return model


def _same_weights(told: ModelRecipe) -> str:
    """The checkpoint's SHA-256, which is the one that the recipe names, if it names one."""
    assert told.checkpoint is not None
    found = weights_sha256(told.checkpoint)
    if told.checkpoint_sha256 not in (None, found):
        raise ValueError(
            f"model.checkpoint = {told.checkpoint!r}: its weights are no longer those of model.checkpoint_sha256; "
            "leave that out to start from what is there now"
        )
    return found


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
