"""The verb `finetune`: a classifier that starts from a pre-trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saccade.cli.flags import NOTHING_SAID, RunFlags


def finetune(
    checkpoint: Path,
    *,
    data: str | None = None,
    attention: str | None = None,
    layer_decay: float | None = None,
    convert_channels: Annotated[bool, Parameter(negative="")] = False,
    flags: RunFlags = NOTHING_SAID,
) -> None:
    """Fine-tune a pre-trained model as a classifier, as MAE does: rates that fall from head to input, mixup, drop path.

    Example:
    `saccade finetune runs/my-pretraining --data path/to/images --img-size 96`

    Model, widths and attention are the checkpoint's; classes and channels are those of the data. At another image or
    patch size positions and whatever an attention keeps by place are interpolated, and a note says so. The run's folder
    holds what `saccade train` writes; train.log tells what was loaded, reshaped, started fresh, or not used. Where it
    was interrupted, `saccade train --resume --output FOLDER` goes on: its recipe names the checkpoint.

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
        Sum or repeat the weights that read pixels where the images have another number of channels.
    """
    from saccade.cli.console import note, print_values
    from saccade.cli.going_on import told_how_to_go_on
    from saccade.reports.curves import curves
    from saccade.training.finetuning import finetuning_recipe
    from saccade.training.loop import train as run
    from saccade.training.progress import shown
    from saccade.training.recipe import parse_settings
    from saccade.training.run import default_folder

    chosen = finetuning_recipe(
        checkpoint,
        recipe=flags.recipe,
        attention=attention,
        data=data,
        img_size=flags.img_size,
        on_bad_image=flags.on_bad_image,
        convert_channels=convert_channels,
        flags={**flags.of_training, "layer_decay": layer_decay},
        settings=parse_settings(flags.set_),
        trust_class=flags.trust_class,
    )
    folder = flags.output or default_folder(
        f"finetuned-{chosen.model.name}", chosen.model.attention, chosen.data.name, chosen.train.seed
    )
    with told_how_to_go_on("train", chosen, folder, flags), shown() as progress:
        trained = run(chosen, output=folder, device=flags.device, threads=flags.threads, progress=progress)
    curves(trained.history, folder)
    note(f"written: {folder}")
    told = ("test_top1_percent", "test_loss", "validation_top1_percent", "train_seconds", "parameters")
    print_values({**trained.result, "output": str(folder)}, told, flags.json)
