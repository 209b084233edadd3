"""The training: one loop, its recipe, its evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.data.dataset import Dataset
    from saccade.training.loop import Trained
    from saccade.training.recipe import Recipe

__all__ = ["finetune", "pretrain", "train"]


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
    resume: bool = False,
    quiet: bool = False,
) -> Trained:
    """Trains one classifier; what is not given is the recipe's.

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
        resume: goes on with the run in `output` from its last finished epoch, when it was interrupted; say what was
            said when it began.
        quiet: shows no progress.

    Raises:
        ValueError: something that cannot be had, named in the message.
        Diverged: a loss or gradient is not finite.
    """
    flags = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "dtype": dtype,
        "amp_dtype": amp_dtype,
    }
    said: dict[str, Any] = {
        "recipe": recipe,
        "model": model,
        "attention": attention,
        "img_size": img_size,
        "flags": flags,
        "on_bad_image": on_bad_image,
        "settings": settings,
    }
    return _run(data, said, device=device, threads=threads, output=output, resume=resume, quiet=quiet)


def pretrain(
    model: str | None = None,
    attention: str | None = None,
    data: str | Path | Dataset | None = None,
    *,
    decoder_attention: str | None = None,
    mask_ratio: float | None = None,
    norm_pix_loss: bool | None = None,
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
    resume: bool = False,
    quiet: bool = False,
) -> Trained:
    """Pre-trains one masked autoencoder, without labels; what is not given is the recipe's.

    Example:
        saccade.pretrain("mae_nano_patch1_8", "linear", "digits", epochs=60).model.forward_features(images)

    Args:
        model: name of a masked autoencoder.
        attention: of the encoder, its written form.
        data: as for `train`.
        decoder_attention: of the decoder; None takes the encoder's.
        mask_ratio: share of the patches that are hidden.
        norm_pix_loss: predicts each patch less its own mean, over its own deviation.
        recipe: as for `train`, and what follows.
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
        resume: goes on with the run in `output` from its last finished epoch, when it was interrupted; say what was
            said when it began.
        quiet: shows no progress.

    Raises:
        ValueError: something that cannot be had, named in the message.
        Diverged: a loss or gradient is not finite.
    """
    flags = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "dtype": dtype,
        "amp_dtype": amp_dtype,
    }
    of_model = {"decoder_attention": decoder_attention, "mask_ratio": mask_ratio, "norm_pix_loss": norm_pix_loss}
    said: dict[str, Any] = {
        "recipe": recipe,
        "model": model,
        "attention": attention,
        "img_size": img_size,
        "flags": flags,
        "on_bad_image": on_bad_image,
        "settings": settings,
        "model_options": of_model,
        "pretraining": True,
    }
    return _run(data, said, device=device, threads=threads, output=output, resume=resume, quiet=quiet)


def finetune(
    checkpoint: str | Path,
    data: str | Path | Dataset | None = None,
    *,
    attention: str | None = None,
    layer_decay: float | None = None,
    convert_channels: bool = False,
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
    trust_class: Collection[str] = (),
    device: str = "auto",
    threads: int | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Trained:
    """Fine-tunes a pre-trained model as a classifier; what is not given is the checkpoint's, then the recipe's.

    Example:
        saccade.finetune("runs/my-pretraining", "digits", epochs=20).result["test_top1_percent"]

    Args:
        checkpoint: folder of a saved model, or a file of weights of facebookresearch/mae, transformers or timm.
        data: as for `train`; None takes what the checkpoint was trained on, or the recipe's.
        attention: where the checkpoint does not tell it.
        layer_decay: rate of each block over that of the next.
        convert_channels: sums, repeats or cuts the weights that read pixels where the images have other channels.
        recipe: as for `train`, and what follows; None takes the one that fits the size of the images.
        epochs: passes over the training images.
        lr: highest learning rate.
        batch_size: images a step.
        seed: of everything random.
        dtype: "fp32" or "bf16", of the weights.
        amp_dtype: "bf16" for autocast.
        img_size: one side, or rows and columns, in pixels; None keeps the checkpoint's.
        on_bad_image: "error" or "skip".
        settings: any other field of the recipe, as in {"augment.flip": 0.0}.
        trust_class: classes outside saccade's table that the checkpoint may name as its attention; their code runs.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: of torch; None leaves its own choice.
        output: new or empty folder for the run's files; None keeps none.
        resume: goes on with the run in `output`, as for `pretrain`.
        quiet: shows no progress.

    Raises:
        ValueError: something that cannot be had, named in the message.
        Diverged: a loss or gradient is not finite.
    """
    flags = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "dtype": dtype,
        "amp_dtype": amp_dtype,
        "layer_decay": layer_decay,
    }
    said: dict[str, Any] = {
        "checkpoint": checkpoint,
        "recipe": recipe,
        "attention": attention,
        "img_size": img_size,
        "flags": flags,
        "on_bad_image": on_bad_image,
        "settings": settings,
        "trust_class": trust_class,
        "convert_channels": convert_channels,
    }
    return _run(data, said, device=device, threads=threads, output=output, resume=resume, quiet=quiet)


def _run(
    data: str | Path | Dataset | None,
    said: Mapping[str, Any],
    *,
    device: str,
    threads: int | None,
    output: str | Path | None,
    resume: bool,
    quiet: bool,
) -> Trained:
    """Trains by what was said, as `chosen_recipe` takes it, or where a checkpoint is named `finetuning_recipe`."""
    from saccade.data.dataset import Dataset
    from saccade.training import loop
    from saccade.training.chosen import chosen_recipe
    from saccade.training.finetuning import finetuning_recipe
    from saccade.training.progress import Silent, shown

    loaded = data if isinstance(data, Dataset) else None
    name = data.name if isinstance(data, Dataset) else data
    choose = finetuning_recipe if "checkpoint" in said else chosen_recipe
    chosen = choose(data=None if name is None else str(name), **said)
    with nullcontext(Silent()) if quiet else shown() as progress:
        return loop.train(
            chosen,
            output=None if output is None else Path(output),
            device=device,
            threads=threads,
            data=loaded,
            progress=progress,
            resume=resume,
        )
