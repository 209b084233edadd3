"""The verb `pretrain`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from saccade.cli.flags import NOTHING_SAID, RunFlags


def pretrain(
    *,
    data: str | None = None,
    model: str | None = None,
    attention: str | None = None,
    decoder_attention: str | None = None,
    mask_ratio: float | None = None,
    norm_pix_loss: bool | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    flags: RunFlags = NOTHING_SAID,
) -> None:
    """Pre-train a masked autoencoder: most patches are hidden, and it learns to predict them, without labels.

    Example:
    `saccade pretrain --data path/to/images --model mae_tiny_patch16_224 --attention linear --epochs 400`

    Beside the loss stands what predicting the mean colour would give, which is about 1: a model that stays there has
    learned nothing. At the end of an epoch stands, too, what the training part's mean picture would give, which a
    model must beat to have learned anything of the image before it; SimMIM's absolute error stands beside medians. The
    run's folder holds what that of `saccade train` holds, and what goes on with an interrupted run:
    `saccade pretrain --resume --output FOLDER`.

    Parameters
    ----------
    data
        digits (embedded), a folder of pictures, at any depth and without labels, or with train, val and test in it
        (class folders keep the parts that `saccade probe` will see), a parquet file or folder, owner/name on the hub,
        cifar10, ...
    model
        A name with mae_ from `saccade models`. Default: the recipe's.
    attention
        Of the encoder: a mechanism from `saccade attentions`, with options: "nystrom(landmarks=16)"; a mixture:
        `linear*8,softmax*4`; your own class: my.module:Mine or file.py:Mine.
    decoder_attention
        Of the decoder, likewise. Default: the encoder's.
    mask_ratio
        Share of the patches that are hidden. Default: the recipe's, which is 0.75 unless it says otherwise.
    norm_pix_loss
        Predict each patch less its own mean, over its own deviation. Default: the recipe's.
    resume
        Go on with the run in --output from its last finished epoch, by the recipe that lies there; the end is the same,
        bit by bit, as if it had not been interrupted.
    """
    from shlex import quote

    from saccade.cli.console import note, print_values
    from saccade.cli.runs import recipe_to_go_on, run
    from saccade.models.mae import MaskedAutoencoder
    from saccade.reports.curves import loss_curves
    from saccade.training.chosen import chosen_recipe
    from saccade.training.recipe import parse_settings

    chosen = chosen_recipe(
        recipe=recipe_to_go_on(flags) if resume else flags.recipe,
        model=model,
        attention=attention,
        data=data,
        img_size=flags.img_size,
        on_bad_image=flags.on_bad_image,
        flags=flags.of_training,
        model_options={
            "decoder_attention": decoder_attention,
            "mask_ratio": mask_ratio,
            "norm_pix_loss": norm_pix_loss,
        },
        settings=parse_settings(flags.set_),
        trust_class=flags.trust_class,
        pretraining=True,
    )
    trained, folder = run("pretrain", chosen, flags, resume=resume)
    assert isinstance(trained.model, MaskedAutoencoder)
    loss_curves(trained.history, folder, average="median" if trained.model.objective == "simmim" else "mean")
    note(f"written: {folder}")
    place = quote(str(folder))
    note(
        f"next: `saccade reconstruct {place}` shows what it predicts, `saccade probe {place}` tells what its features "
        f"are worth, and `saccade finetune {place}` makes a classifier of it; the latter two need images with classes"
    )
    of_result = ("test_loss", "test_mean_picture_loss", "test_baseline_loss", "train_seconds", "parameters")
    print_values({**trained.result, "output": str(folder)}, of_result, flags.json)
