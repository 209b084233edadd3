"""Then: how an encoder is judged when it has been pre-trained, by a probe or by fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from saccade.training.finetuning import recipe_for_size
from saccade.training.recipe import Recipe, recipe_from_dict, recipe_to_dict, with_values
from saccade.training.recipes import named_recipe
from saccade.training.setup import plan_model

Task = Literal["classify", "mae"]
How = Literal["probe", "finetune"]
Method = Literal["linear", "linear_bn", "knn"]


@dataclass(frozen=True, kw_only=True)
class Then:
    """What follows on pre-training.

    Attributes:
        how: "probe" leaves the encoder as it is, "finetune" trains all of it.
        method: of the probe.
        recipe: of fine-tuning, but for what is the pre-trained model's own: its widths, its attention, its images.
    """

    how: How = "probe"
    method: Method = "linear"
    recipe: Recipe | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        if self.recipe is None:
            return {"how": self.how, "method": self.method}
        return {"how": self.how, "recipe": recipe_to_dict(self.recipe)}

    @property
    def epochs(self) -> int:
        """Those of fine-tuning."""
        return 0 if self.recipe is None else self.recipe.train.epochs


def then_from(plain: Mapping[str, Any]) -> Then:
    """Reads what `plain` wrote."""
    recipe = plain.get("recipe")
    return Then(
        how=plain["how"],
        method=plain.get("method", "linear"),
        recipe=None if recipe is None else recipe_from_dict(recipe),
    )


def chosen_then(how: How | None, method: Method | None, epochs: int | None, recipe: Recipe) -> Then:
    """What a user asked for.

    Args:
        how: None for a probe.
        method: of the probe; None for the linear one.
        epochs: of fine-tuning; None for those of its recipe.
        recipe: of pre-training; fine-tuning is done in the same precision.
    """
    if how != "finetune":
        return Then(method=method or "linear")
    told = {"train.epochs": epochs, "train.dtype": recipe.train.dtype, "train.amp_dtype": recipe.train.amp_dtype}
    given = {name: value for name, value in told.items() if value is not None}
    return Then(how="finetune", recipe=with_values(named_recipe(recipe_for_size(plan_model(recipe).img_size)), given))


def require_sense(
    task: Task, how: How | None, method: Method | None, epochs: int | None, decoder_attention: str | None
) -> None:
    """Checks that what was asked for belongs together.

    Raises:
        ValueError: something that belongs to another task, or to another way to judge.
    """
    only_pretrained = {
        "--then": how,
        "--probe": method,
        "--finetune-epochs": epochs,
        "--decoder-attention": decoder_attention,
    }
    given = [f"{name} {value}" for name, value in only_pretrained.items() if value is not None]
    if task == "classify" and given:
        raise ValueError(f"{given[0]} belongs to masked autoencoders: add --task mae, or leave it out")
    if how == "finetune" and method is not None:
        raise ValueError(f"--probe {method} with --then finetune: one of the two judges; leave one out")
    if how != "finetune" and epochs is not None:
        raise ValueError(f"--finetune-epochs {epochs} without --then finetune: a probe has no epochs; add the one")
    if epochs is not None and epochs < 1:
        raise ValueError(f"--finetune-epochs {epochs}: must be at least 1")
