"""The training: one loop, its recipe, its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.data.dataset import Dataset
    from saccade.training.loop import Trained
    from saccade.training.recipe import Recipe

__all__ = ["train"]


def train(
    model: str | None = None,
    attention: str | None = None,
    data: str | Path | Dataset | None = None,
    *,
    recipe: str | Recipe | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    dtype: str | None = None,
    amp_dtype: str | None = None,
    img_size: Sequence[int] | int | None = None,
    on_bad_image: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    output: str | Path | None = None,
    quiet: bool = False,
) -> Trained:
    """Trains one model; what is not given is the recipe's.

    Example:
        saccade.train("vit_nano_patch1_8", "linear", "digits", epochs=8).result["test_top1_percent"]

    Args:
        model: name of a model.
        attention: its written form.
        data: a name or path as load_data takes it, or images that it has loaded.
        recipe: a named one, a TOML file, or a Recipe; None takes the one that fits model and data.
        epochs: passes over the training images.
        lr: highest learning rate.
        batch_size: images a step.
        seed: of everything random.
        dtype: "fp32" or "bf16", of the weights.
        amp_dtype: "bf16" for autocast.
        img_size: one side, or rows and columns, in pixels.
        on_bad_image: "error" or "skip".
        settings: any other field of the recipe, as in {"augment.flip": 0.0}.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: of torch; None leaves its own choice.
        output: new or empty folder for the run's files; None keeps none.
        quiet: shows no progress.

    Raises:
        ValueError: something that cannot be had, named in the message.
        Diverged: a loss or gradient is not finite.
    """
    from saccade.data.dataset import Dataset
    from saccade.training import loop
    from saccade.training.chosen import chosen_recipe
    from saccade.training.progress import Silent, shown

    loaded = data if isinstance(data, Dataset) else None
    name = data.name if isinstance(data, Dataset) else data
    chosen = chosen_recipe(
        recipe=recipe,
        model=model,
        attention=attention,
        data=None if name is None else str(name),
        img_size=img_size,
        on_bad_image=on_bad_image,
        flags={
            "epochs": epochs,
            "lr": lr,
            "batch_size": batch_size,
            "seed": seed,
            "dtype": dtype,
            "amp_dtype": amp_dtype,
        },
        settings=settings,
    )
    folder = None if output is None else Path(output)
    if quiet:
        return loop.train(chosen, output=folder, device=device, threads=threads, data=loaded, progress=Silent())
    with shown() as progress:
        return loop.train(chosen, output=folder, device=device, threads=threads, data=loaded, progress=progress)
