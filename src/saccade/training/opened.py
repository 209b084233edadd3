"""A model on disk, saccade's or others', and pictures prepared as those it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.sources import in_colour, load_data
from saccade.models.mae import MaskedAutoencoder
from saccade.models.mae_weights import load_mae
from saccade.models.pretrained import classifier_of, read_pretrained
from saccade.models.sizes import create_classifier
from saccade.models.transfer import start_from
from saccade.models.vit import VisionTransformer
from saccade.models.weights import is_saved, load_model

# What a model must say of the pictures it was trained on.
_OF_PICTURES = {"data", "on_bad_image", "limit", "convert_to_chans", "crop_pct", "mean", "std", "amp_dtype"}

# How facebookresearch/mae prepares pictures for evaluation: sides of 256 / 224, ImageNet's mean and deviation.
_PUBLISHED_CROP, _PUBLISHED_MEAN, _PUBLISHED_STD = 224 / 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def open_model(
    source: Path | str,
    trust_class: Collection[str] = (),
    *,
    norm_pix_loss: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> tuple[VisionTransformer | MaskedAutoencoder, dict[str, Any]]:
    """The model, on the CPU, and what is known of its run and its pictures.

    Of a file of others' the heads, the softmax and the preparation of pictures are taken as published, which is noted.

    Args:
        source: a folder that `save_model` wrote, or a file (.pth, .bin, .safetensors) of facebookresearch/mae,
            transformers or timm; one that holds the encoder alone becomes a classifier without a head.
        trust_class: classes outside saccade's table that a folder may name as its attention; their code runs.
        norm_pix_loss: whether a file of others' predicts normalised pixels, which it does not say.
        note: is told what was taken for granted.

    Raises:
        ValueError: no model there, or a pickle of anything but tensors.
    """
    path = Path(source)
    if says_itself(path):
        return load_model(path, trust_class)
    found = read_pretrained(path)
    model: VisionTransformer | MaskedAutoencoder
    if "decoder_pred.weight" in found.state:
        model = load_mae(path, norm_pix_loss=norm_pix_loss)
    else:
        name, attention, options = classifier_of(found)
        model = create_classifier(name, attention, **{**options, "in_chans": found.known["in_chans"], "num_classes": 0})
        start_from(model, path)
    facts: dict[str, Any] = dict.fromkeys(_OF_PICTURES)
    facts |= {"on_bad_image": "error", "crop_pct": _PUBLISHED_CROP}
    if model.in_chans == len(_PUBLISHED_MEAN):
        facts |= {"mean": _PUBLISHED_MEAN, "std": _PUBLISHED_STD}
    colours = "the data's own" if facts["mean"] is None else "ImageNet's"
    note(
        f"{path} does not say how it was trained: taken as {model.config['num_heads']} heads of softmax, on pictures "
        f"less {colours} mean, over {colours} deviation"
    )
    return model, facts


def says_itself(source: Path | str) -> bool:
    """Whether this is taken for a folder that `save_model` wrote, and not for a file of others."""
    path = Path(source)
    return path.is_dir() or is_saved(path) or not path.suffix


def prepared(
    model: VisionTransformer | MaskedAutoencoder,
    facts: dict[str, Any],
    source: Path | str,
    data: str | None,
    note: Callable[[str], None],
    *,
    labelled: bool = True,
) -> Dataset:
    """The images as the model saw those it was trained on: same size, same crop, same normalisation.

    Args:
        model: whose size and channels they get.
        facts: what is known of its pictures.
        source: of the model, for errors.
        data: name or path; None takes what the model was trained on.
        note: is told what loading has to say.
        labelled: as `load_data` takes it.

    Raises:
        ValueError: facts that do not say how the pictures were prepared, or no such data.
    """
    check_facts(facts, source)
    name = facts["data"] if data is None else data
    if name is None:
        raise ValueError(f"{source} does not say what it was trained on: give --data")
    dataset = load_data(
        name,
        img_size=model.img_size,
        crop_pct=facts["crop_pct"],
        # As asked in training: the same pictures, asked for in other words, would be decoded a second time.
        in_chans=facts["convert_to_chans"] if data is None else model.in_chans,
        on_bad_image=facts["on_bad_image"],
        limit=facts["limit"] if data is None else None,
        labelled=labelled,
        note=note,
    )
    if data is not None and model.in_chans == 1 and in_colour(name):
        note(f"{name} has pictures in colour, and {source} takes one channel: they are turned to grey")
    if facts["mean"] is None:
        return dataset
    return replace(dataset, mean=tuple(facts["mean"]), std=tuple(facts["std"]))


def check_facts(facts: dict[str, Any], source: Path | str, also: Collection[str] = ()) -> None:
    """Whether the facts say how pictures were prepared.

    Raises:
        ValueError: they do not.
    """
    if missing := (_OF_PICTURES | set(also)) - set(facts):
        raise ValueError(
            f"{source}/config.json does not say {', '.join(sorted(missing))}: "
            "give the folder of a run of `saccade train` or `saccade pretrain`, which does"
        )
