"""A pre-trained model on disk, probed beside its own random start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from saccade.training.device import choose_device, same_bits
from saccade.training.evaluate import BATCH_SIZE
from saccade.training.features import extract
from saccade.training.neighbours import K, check_neighbours
from saccade.training.opened import open_model, prepared
from saccade.training.probe import METHODS, probe_features, random_start


def probe_saved(
    source: Path | str,
    *,
    data: str | None = None,
    methods: Sequence[str] = METHODS,
    pool: str | None = None,
    k: int | None = None,
    random: bool = True,
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    trust_class: Collection[str] = (),
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Probes a model by each method, and then the same model with random weights (see `random_start`).

    Args:
        source: as `open_model` takes it.
        data: name or path; None takes what the model was trained on.
        methods: as `probe` takes them.
        pool: as `probe` takes it.
        k: of "knn": neighbours that vote; None takes `K`.
        random: whether the random start is probed, too: what all its training is worth is the difference.
        device: as `choose_device` takes it.
        batch_size: images at a time.
        threads: of torch; None leaves its own choice.
        trust_class: classes outside saccade's table that the folder may name as its attention; their code runs.
        note: is told what is being done.

    Returns:
        What `probe` returns, a method and encoder each, with "checkpoint", "model", "attention", "data", "encoder"
        ("trained" or "random") and "device".

    Raises:
        ValueError: no model there, data that cannot be had, or neighbours that it has not or nobody asks for.
    """
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: must be at least 1")
    if k is not None and "knn" not in methods:
        raise ValueError(f"--k {k}: only nearest neighbours vote: leave it out, or take --method knn or all")
    place = choose_device(device)
    model, facts = open_model(source, trust_class, note=note)
    dataset = prepared(model, facts, source, data, note)
    voting = K if k is None else k
    if "knn" in methods:
        check_neighbours(voting, len(dataset.train))
    images = sum(len(part) for part in dataset.splits.values())
    found = []
    with same_bits(place, threads):
        for encoder in ("trained", "random") if random else ("trained",):
            # The seed of the run, so that the random encoder is the one that training from scratch began with.
            encoding = model if encoder == "trained" else random_start(model, facts.get("seed") or 0)
            note(f"features of {images:,} images by the {encoder} encoder")
            features = extract(
                encoding.to(place), dataset, pool=pool, batch_size=batch_size, amp_dtype=facts["amp_dtype"]
            )
            for method in methods:
                note(f"{method} on {len(features.train.labels):,} rows of {features.train.x.shape[1]} features")
                found.append(
                    {
                        "checkpoint": str(source),
                        "model": model.name,
                        "attention": model.attention,
                        "data": dataset.name,
                        "encoder": encoder,
                        **probe_features(features, method=method, k=voting),
                        "device": str(place),
                    }
                )
    return found
