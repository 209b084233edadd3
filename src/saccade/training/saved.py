"""A trained model, evaluated on pictures prepared as those it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from saccade.models.vit import VisionTransformer
from saccade.models.weights import load_model
from saccade.training.device import choose_device, same_bits
from saccade.training.evaluate import BATCH_SIZE, evaluate
from saccade.training.opened import check_facts, prepared

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
        raise ValueError(
            f"{folder} holds a masked autoencoder, which has no classes: give the folder of a classifier, or see what "
            "it has learned with `saccade probe`"
        )
    check_facts(facts, folder, also=["classes"])
    dataset = prepared(model, facts, folder, data, note)
    if list(dataset.classes) != facts["classes"]:
        raise ValueError(
            f"{dataset.name} has the classes {_few(dataset.classes)}, and the model was trained on "
            f"{_few(facts['classes'])}: give data with the same classes"
        )
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


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
