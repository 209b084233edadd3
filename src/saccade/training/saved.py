"""A trained model, evaluated on pictures prepared as those it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.sources import load_data
from saccade.models.vit import VisionTransformer
from saccade.models.weights import load_model
from saccade.training.device import choose_device, same_bits
from saccade.training.evaluate import BATCH_SIZE, evaluate

SPLITS = ("test", "validation", "train")


def evaluate_saved(
    folder: Path,
    *,
    data: str | None = None,
    split: str = "test",
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    trust_class: Collection[str] = (),
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Evaluates the model of a run's folder, or of any folder that `save_model` wrote.

    Args:
        folder: with model.safetensors and config.json.
        data: name or path; None takes what the model was trained on.
        split: one of `SPLITS`.
        device: as `choose_device` takes it.
        batch_size: images at a time.
        threads: of torch; None leaves its own choice.
        trust_class: classes outside saccade's table that the folder may name as its attention; their code runs.
        note: is told what loading the data has to say.

    Returns:
        Values by name: "top1_percent", "top5_percent", "loss", "images", ...

    Raises:
        ValueError: a folder without a model, another split, data with other classes.
    """
    if split not in SPLITS:
        raise ValueError(f"--split {split}: must be {' or '.join(SPLITS)}")
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: must be at least 1")
    place = choose_device(device)
    model, facts = load_model(folder, trust_class)
    if not isinstance(model, VisionTransformer):
        raise ValueError(f"{folder} holds a masked autoencoder, which has no classes: give the folder of a classifier")
    dataset = _prepared(model, facts, folder, data, note)
    with same_bits(place, threads):
        found = evaluate(
            model.to(place), dataset.splits[split], dataset, batch_size=batch_size, amp_dtype=facts["amp_dtype"]
        )
    return {
        "model": model.name,
        "attention": model.attention,
        "data": dataset.name,
        "split": split,
        "images": len(found.correct),
        "top1_percent": found.top1_percent,
        "top5_percent": found.top5_percent,
        "loss": found.loss,
        "device": str(place),
    }


def _prepared(
    model: VisionTransformer, facts: dict[str, Any], folder: Path, data: str | None, note: Callable[[str], None]
) -> Dataset:
    """The images as the model saw those it was trained on: same size, same crop, same normalisation, same classes."""
    if missing := {
        "data",
        "on_bad_image",
        "limit",
        "convert_to_chans",
        "classes",
        "crop_pct",
        "mean",
        "std",
        "amp_dtype",
    } - set(facts):
        raise ValueError(
            f"{folder}/config.json does not say {', '.join(sorted(missing))}: "
            "give the folder of a run of `saccade train`, which does"
        )
    dataset = load_data(
        facts["data"] if data is None else data,
        img_size=model.img_size,
        crop_pct=facts["crop_pct"],
        # As asked in training: the same pictures, asked for in other words, would be decoded a second time.
        in_chans=facts["convert_to_chans"] if data is None else model.in_chans,
        on_bad_image=facts["on_bad_image"],
        limit=facts["limit"] if data is None else None,
        note=note,
    )
    if list(dataset.classes) != facts["classes"]:
        raise ValueError(
            f"{dataset.name} has the classes {_few(dataset.classes)}, and the model was trained on "
            f"{_few(facts['classes'])}: give data with the same classes"
        )
    return replace(dataset, mean=tuple(facts["mean"]), std=tuple(facts["std"]))


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
