"""Flags that several verbs share: how a run is trained, where, and where its files go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """How a run is trained, where, and where its files go.

    Parameters
    ----------
    recipe
        A name from `saccade recipes`, or a TOML file. Default: the one that fits.
    set_
        Changes one field of the recipe: --set train.weight_decay=0.1
    epochs
        Passes over the training images.
    lr
        Highest learning rate.
    batch_size
        Images a step.
    seed
        Of initial weights, order, augmentation, stochastic depth and dropout.
    img_size
        Rows and columns in pixels, or one number for both. Default: the model's.
    on_bad_image
        Whether a picture that cannot be read ends the command (error) or is left out and counted (skip).
    dtype
        Of the weights: fp32, or bf16 with a float32 master copy in the optimiser.
    amp_dtype
        Of autocast: bf16.
    logging_step
        Steps between two lines of the log.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of torch. Default: its own choice.
    output
        New or empty folder. Default: runs/MODEL-ATTENTION-DATA-SEED-TIME.
    trust_class
        A class of your own, my.module:Mine, that a file may name as its attention: its code runs.
    json
        Print the result as JSON on one line.
    """

    recipe: str | None = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = ()
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    img_size: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="")] = None
    on_bad_image: Literal["error", "skip"] | None = None
    dtype: str | None = None
    amp_dtype: str | None = None
    logging_step: int | None = None
    device: str = "auto"
    threads: int | None = None
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
    trust_class: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    json: Annotated[bool, Parameter(negative="")] = False

    @property
    def of_training(self) -> dict[str, Any]:
        """Values of the recipe's [train] by name; None where the user said nothing."""
        names = ("epochs", "lr", "batch_size", "seed", "dtype", "amp_dtype", "logging_step")
        return {name: getattr(self, name) for name in names}


NOTHING_SAID = RunFlags()
"""What a verb has where the user gives none of them."""


def model_options(img_size: Sequence[int] | None, settings: Sequence[str], **given: Any) -> dict[str, Any]:
    """What a user changes of a model: `--img-size`, `--set`, and other flags that were given.

    Args:
        img_size: as `--img-size` takes it.
        settings: what `--set` changes, values read as a recipe's are.
        given: other options by name; None where the user said nothing.
    """
    from saccade.training.recipe import Recipe, parse_settings, with_values

    sides = img_size[0] if img_size is not None and len(img_size) == 1 else img_size
    said = {key: value for key, value in {"img_size": sides, **given}.items() if value is not None}
    values = parse_settings(f"model.options.{setting}" for setting in settings)
    return said | dict(with_values(Recipe(), values).model.options)
