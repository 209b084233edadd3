"""The verb `finetune`: a classifier that starts from a pre-trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from saccade.cli.flags import NOTHING_SAID, RunFlags

if TYPE_CHECKING:
    from saccade.training.recipe import Recipe


def finetune(
    checkpoint: Path | None = None,
    *,
    data: str | None = None,
    attention: str | None = None,
    layer_decay: float | None = None,
    convert_channels: Annotated[bool, Parameter(negative="")] = False,
    resume: Annotated[bool, Parameter(negative="")] = False,
    flags: RunFlags = NOTHING_SAID,
) -> None:
    """Fine-tune a pre-trained model as a classifier, as MAE does: rates that fall from head to input, mixup, drop path.

    Example:
    `saccade finetune runs/my-pretraining --data path/to/images --img-size 96`

    Model, widths and attention are the checkpoint's; classes and channels are those of the data. At another image or
    patch size positions and whatever an attention keeps by place are interpolated, and a note says so. The run's folder
    holds what `saccade train` writes; train.log tells what was loaded, reshaped, started fresh, or not used. Where it
    was interrupted, `saccade finetune --resume --output FOLDER` goes on: its recipe names the checkpoint.

    Parameters
    ----------
    checkpoint
        A run of `saccade pretrain` or `saccade train`, or a file (.pth, .bin, .safetensors) with the weights of
        facebookresearch/mae, of transformers, or of timm's Vision Transformer.
    data
        As for `saccade train`. Default: what the checkpoint was trained on, or the recipe's.
    attention
        For files that do not tell it. Default: the checkpoint's; softmax where it tells none.
    layer_decay
        Rate of each block over that of the next, above 0 and at most 1.
    convert_channels
        Convert the weights that read pixels where the images have another number of channels: for one they are summed,
        for more repeated, and for fewer those of the first channels are kept.
    resume
        Go on with the run in --output from its last finished epoch, by the recipe that lies there; the end is the same,
        bit by bit, as if it had not been interrupted.
    """
    from saccade.cli.console import note, print_values
    from saccade.cli.runs import recipe_to_go_on, run
    from saccade.reports.curves import curves
    from saccade.training.chosen import chosen_recipe
    from saccade.training.finetuning import finetuning_recipe
    from saccade.training.recipe import parse_settings

    settings = parse_settings(flags.set_)
    said: dict[str, Any] = {
        "attention": attention,
        "data": data,
        "img_size": flags.img_size,
        "on_bad_image": flags.on_bad_image,
        "flags": {**flags.of_training, "layer_decay": layer_decay},
        "trust_class": flags.trust_class,
    }
    if resume:
        # Its recipe has all that was taken from the checkpoint; what is said again must be the same.
        again = {"model.checkpoint": checkpoint and str(checkpoint), "model.convert_channels": convert_channels or None}
        settings = {name: value for name, value in again.items() if value is not None} | settings
        chosen = chosen_recipe(recipe=recipe_to_go_on(flags), settings=settings, **said)
        _require_checkpoint(chosen, flags.output)
    elif checkpoint is None:
        raise ValueError(
            "finetune: name the CHECKPOINT to start from, a run's folder or a .pth, .bin or .safetensors file; "
            "an interrupted run goes on by --resume --output FOLDER"
        )
    else:
        chosen = finetuning_recipe(
            checkpoint, recipe=flags.recipe, convert_channels=convert_channels, settings=settings, **said
        )
    trained, folder = run("finetune", chosen, flags, resume=resume, folder_name=f"finetuned-{chosen.model.name}")
    curves(trained.history, folder)
    note(f"written: {folder}")
    told = ("test_top1_percent", "test_loss", "validation_top1_percent", "train_seconds", "parameters")
    print_values({**trained.result, "output": str(folder)}, told, flags.json)


def _require_checkpoint(recipe: Recipe, folder: Path | None) -> None:
    """Refuses to go on with a run that began from nothing.

    Raises:
        ValueError: it did.
    """
    if recipe.model.checkpoint is None:
        raise ValueError(
            f"--resume: the run in {folder} started from no checkpoint; `saccade train --resume --output {folder}` "
            "goes on with it"
        )
