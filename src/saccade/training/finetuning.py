"""Fine-tuning: the recipe of a classifier that starts from a pre-trained model, which says how it is built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.models.options import rows_and_columns
from saccade.models.pretrained import Pretrained, classifier_of, read_pretrained
from saccade.training.chosen import chosen_recipe
from saccade.training.recipe import Recipe, with_values
from saccade.training.recipes import named_recipe


def finetuning_recipe(
    checkpoint: str | Path,
    *,
    recipe: str | Recipe | None = None,
    attention: str | None = None,
    data: str | None = None,
    img_size: Sequence[int] | int | None = None,
    on_bad_image: str | None = None,
    convert_channels: bool = False,
    flags: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    trust_class: Collection[str] = (),
) -> Recipe:
    """The recipe of a run that starts from `checkpoint`: recipe < what it says of its model < flags < --set.

    Args:
        checkpoint: as `start_from` takes it.
        recipe: a named one, a TOML file, or a Recipe; None takes the one that fits the size of the images.
        attention: its written form, where the checkpoint does not tell, or in other words; None takes the checkpoint's.
        data: name or path; None takes what the checkpoint was trained on, or the recipe's.
        img_size: one side, or rows and columns, in pixels; None keeps the checkpoint's.
        on_bad_image: "error" or "skip"; None keeps the recipe's.
        convert_channels: sums, repeats or cuts the weights that read pixels where the images have other channels.
        flags: values of `TrainRecipe` by name; those that are None keep the recipe's.
        settings: any other field of the recipe.
        trust_class: classes outside saccade's table that a recipe's file or the checkpoint may name as its attention.

    Raises:
        ValueError: no pre-trained model, an unknown name, a wrong type, a value out of its range.
    """
    found = read_pretrained(checkpoint, trust_class)
    likely = None if img_size is None else _grid_of(found, img_size)
    name, own, options = classifier_of(found, likely)
    base = recipe if isinstance(recipe, Recipe) else named_recipe(recipe or recipe_for(found, likely), trust_class)
    values: dict[str, Any] = {f"model.options.{option}": value for option, value in options.items()}
    values |= {"model.name": name, "model.attention": own, "model.checkpoint": str(checkpoint)}
    values["model.convert_channels"] = convert_channels or base.model.convert_channels
    if recipe is None and "data" in found.facts:
        values["data.name"] = found.facts["data"]
    return chosen_recipe(
        recipe=with_values(base, values),
        attention=attention,
        data=data,
        img_size=img_size,
        on_bad_image=on_bad_image,
        flags=flags,
        settings=settings,
        trust_class=trust_class,
    )


def recipe_for(found: Pretrained, likely: tuple[int, int] | None = None) -> str:
    """The named recipe that fits the images that a model was trained on, whose grid is perhaps the likely one."""
    return recipe_for_size(side * patch for side, patch in zip(found.grid(likely), found.patch_size, strict=True))


def recipe_for_size(img_size: Iterable[int]) -> str:
    """The named recipe that fits images of so many rows and columns."""
    longest = max(img_size)
    return "finetune-digits" if longest <= 8 else "finetune-cifar10-micro" if longest <= 32 else "finetune"


def _grid_of(found: Pretrained, img_size: Sequence[int] | int) -> tuple[int, int]:
    """Rows and columns of the model's patches on images of that size."""
    size = img_size[0] if isinstance(img_size, Sequence) and len(img_size) == 1 else img_size
    rows, columns = (
        pixels // patch for pixels, patch in zip(rows_and_columns("img_size", size), found.patch_size, strict=True)
    )
    return rows, columns
