"""Scales: the question asked again of a larger model, since the order of mechanisms changes with size.

Tay et al. 2022 (https://arxiv.org/abs/2207.10551) found that the best model at one size is often another at the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from saccade.comparison.question import Question
from saccade.models.sizes import model_defaults
from saccade.training.recipe import with_values
from saccade.training.setup import load_images, plan_model

ScaleBy = Literal["width", "tokens"]

NAMES: dict[ScaleBy, str] = {"width": "twice the width", "tokens": "four times the tokens"}

# Heads stay as wide as they were, for their width is what feature maps and landmarks live on.
_WIDTHS = ("embed_dim", "num_heads", "decoder_embed_dim", "decoder_num_heads")


def scales_of(question: Question, count: int, by: ScaleBy, say: Callable[[str], None]) -> list[Question]:
    """The question as it was asked, then at the larger scale where two are wanted.

    Raises:
        ValueError: another number of scales, or a larger model that cannot be built.
    """
    if count not in (1, 2):
        raise ValueError(f"--scales {count}: must be 1, or 2 for the model that is asked for and a larger one")
    return [question] if count == 1 else [question, _larger(question, by, say)]


def _larger(question: Question, by: ScaleBy, say: Callable[[str], None]) -> Question:
    usual = model_defaults(question.recipe.model.name) | dict(question.recipe.model.options)
    changes = _wider(usual) if by == "width" else _finer(usual, plan_model(question.recipe).config)
    recipe = with_values(question.recipe, {f"model.options.{name}": value for name, value in changes.items()})
    data, img_size = question.data, plan_model(recipe).img_size
    if "img_size" in changes:
        data = load_images(recipe, img_size, say).facts()
    return replace(question, recipe=recipe, data=data, scale=NAMES[by])


def _wider(usual: Mapping[str, Any]) -> dict[str, Any]:
    return {name: 2 * usual[name] for name in _WIDTHS if name in usual}


def _finer(usual: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Patches of half the side; of patches that have none, images of twice the side."""
    patch = config["patch_size"]
    if usual.get("embed_layer", "patch") == "patch" and all(side % 2 == 0 for side in patch):
        return {"patch_size": [side // 2 for side in patch]}
    return {"img_size": [2 * side for side in config["img_size"]]}
