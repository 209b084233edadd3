"""From what a user says to the recipe of a run: defaults < recipe < flags < --set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from saccade.models.sizes import is_masked_autoencoder, model_defaults
from saccade.training.recipe import Recipe, with_values
from saccade.training.recipes import named_recipe, recipe_for


def chosen_recipe(
    *,
    recipe: str | Recipe | None = None,
    model: str | None = None,
    attention: str | None = None,
    data: str | None = None,
    img_size: Sequence[int] | int | None = None,
    on_bad_image: str | None = None,
    flags: Mapping[str, Any],
    model_options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    trust_class: Collection[str] = (),
    pretraining: bool = False,
) -> Recipe:
    """The recipe of a run.

    Args:
        recipe: a named one, a TOML file, or a Recipe; None takes the one that fits model and data.
        model: name of a model; None keeps the recipe's.
        attention: its written form; None keeps the recipe's, or takes that of `model` where one is given.
        data: name or path; None keeps the recipe's.
        img_size: one side, or rows and columns, in pixels; None keeps the model's own.
        on_bad_image: "error" or "skip"; None keeps the recipe's.
        flags: values of `TrainRecipe` by name; those that are None keep the recipe's.
        model_options: overrides of the model by name, as for create_model; those that are None keep the recipe's.
        settings: any other field of the recipe, as in {"augment.flip": 0.0}.
        trust_class: classes outside saccade's table that a recipe's file may name as its attention.
        pretraining: whether a masked autoencoder is wanted, or a classifier.

    Raises:
        ValueError: an unknown name, a wrong type, a value out of its range, or a model of the other kind.
    """
    base = recipe if isinstance(recipe, Recipe) else _named(recipe, data, model, trust_class, pretraining)
    if model is not None and attention is None:
        attention = model_defaults(model)["attention"]
    values: dict[str, Any] = {"model.name": model, "model.attention": attention, "data.name": data}
    values["model.options.img_size"] = (
        img_size[0] if isinstance(img_size, Sequence) and len(img_size) == 1 else img_size
    )
    values["data.on_bad_image"] = on_bad_image
    values |= {f"train.{name}": value for name, value in flags.items()}
    values |= {f"model.options.{name}": value for name, value in (model_options or {}).items()}
    given = {name: value for name, value in values.items() if value is not None}
    chosen = with_values(with_values(base, given), settings or {})
    _require_kind(chosen.model.name, pretraining)
    return chosen


def _named(
    recipe: str | None, data: str | None, model: str | None, trust_class: Collection[str], pretraining: bool
) -> Recipe:
    return named_recipe(recipe or recipe_for(data, model, pretraining=pretraining), trust_class)


def _require_kind(model: str, pretraining: bool) -> None:
    """Refuses a model of the other kind, and names the verb that trains it.

    Raises:
        ValueError: it is one.
    """
    if is_masked_autoencoder(model) and not pretraining:
        raise ValueError(
            f"{model} is a masked autoencoder, which learns without labels: `saccade pretrain --model {model}` trains "
            f"it (saccade.pretrain in Python); a classifier of that size is {model.replace('mae_', 'vit_', 1)}"
        )
    if pretraining and not is_masked_autoencoder(model):
        raise ValueError(
            f"{model} is a classifier, which learns from labels: `saccade train --model {model}` trains it "
            "(saccade.train in Python); masked autoencoders have names with mae_, as `saccade models` lists them"
        )
