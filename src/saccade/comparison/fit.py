"""What fits: the question that images and models allow, and the mechanisms that make sense in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from saccade.attention import fitting, list_attentions, resolved_text
from saccade.comparison.question import BASELINE, Question
from saccade.comparison.then import Then
from saccade.measurement.work import work_of
from saccade.models.sizes import is_masked_autoencoder
from saccade.training.recipe import Recipe, with_values
from saccade.training.setup import load_images, plan_model, resolve


def ask(
    recipe: Recipe, attentions: Sequence[str], device: str, say: Callable[[str], None], then: Then | None = None
) -> Question:
    """The question, with what only the images can tell; mechanisms that are none are refused before these are read."""
    planned = plan_model(recipe)
    for attention in attentions:
        resolved_text(attention, len(planned.blocks))
        require_fit(with_values(recipe, {"model.attention": attention}))
    dataset = load_images(recipe, planned.img_size, say)
    return Question(resolve(recipe, dataset), dataset.facts(), device, len(planned.blocks), then)


def require_fit(recipe: Recipe) -> None:
    """Checks that an attention makes sense wherever it will be: in training, and on whole images afterwards.

    Raises:
        ValueError: it is refused somewhere.
    """
    try:
        planned = plan_model(recipe)
    except ValueError as error:
        if _decoder_is_to_blame(recipe):
            raise ValueError(f"in the decoder, {error}; --decoder-attention gives all rows one decoder") from error
        raise
    for block in planned.blocks:
        if reason := block.attn.refusal(planned.tokens.patches):
            raise ValueError(f"on whole images, as they are encoded after pre-training, {reason}")


def all_that_fit(recipe: Recipe, say: Callable[[str], None]) -> list[str]:
    """Every mechanism that saccade brings, as it makes sense in this model; the others are left out, and why."""
    encoder, *_ = work_of(plan_model(recipe)).stacks
    fit: list[str] = []
    for name in list_attentions():
        try:
            with torch.device("meta"):
                fits = fitting(name, encoder.width, encoder.heads, encoder.tokens, patches=encoder.patches)
            require_fit(with_values(recipe, {"model.attention": fits}))
            fit.append(fits)
        except ValueError as error:
            say(f"left out: {error}")
            continue
        if fit[-1] != name:
            say(f"{name} is taken as {fit[-1]}: its defaults are refused at this size")
    return fit


def _decoder_is_to_blame(recipe: Recipe) -> bool:
    """Whether the attention is refused only because each is in the decoder, too."""
    if not is_masked_autoencoder(recipe.model.name) or recipe.model.options.get("decoder_attention"):
        return False
    try:
        plan_model(with_values(recipe, {"model.options.decoder_attention": BASELINE}))
    except ValueError:
        return False
    return True
