"""Checkpoints: the last finished epochs, each in a folder of its own with all that the next step depends on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saccade.errors import Failed
from saccade.models.mae import MaskedAutoencoder
from saccade.models.vit import VisionTransformer
from saccade.models.weights import CONFIG, WEIGHTS, load_weights, save_model, sha256_of, write_tensors
from saccade.record import write_whole
from saccade.training.optimiser import AdamW

KEPT = 2
OPTIMISER = "optimiser.safetensors"
MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run as it was at the end of an epoch.

    Attributes:
        folder: where it lies.
        weights: of the model, by name.
        optimiser: as `AdamW.state` gave it.
        history: an epoch each, up to this one.
        data_fingerprint: of the images it was trained on.
    """

    folder: Path
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    history: list[dict[str, Any]]
    data_fingerprint: str


def save_checkpoint(
    run: Path,
    model: VisionTransformer | MaskedAutoencoder,
    optimiser: AdamW,
    history: list[dict[str, Any]],
    data_fingerprint: str,
    facts: Mapping[str, Any],
) -> None:
    """Saves the state at the end of the last epoch of `history`, then removes all but the newest two.

    A folder checkpoints/epoch-N in the run's folder is there whole or not at all: it is written under another name
    first. What was saved is what `load_model` reads, with the optimiser's state and a manifest beside it.
    """
    whole = run / "checkpoints" / f"epoch-{history[-1]['epoch']}"
    work = whole.with_name(f".{whole.name}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        save_model(model, work, facts)
        write_tensors(work / OPTIMISER, optimiser.state())
        state = {
            "history": history,
            "data_fingerprint": data_fingerprint,
            "sha256": {name: sha256_of(work / name) for name in (WEIGHTS, CONFIG, OPTIMISER)},
        }
        write_whole(work / MANIFEST, json.dumps({"state": state, "sha256": _sum(state)}) + "\n")
        # A damaged one may lie there, which the run has gone on without.
        shutil.rmtree(whole, ignore_errors=True)
        os.replace(work, whole)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _sync(whole.parent)
    for old in _saved(run)[:-KEPT]:
        shutil.rmtree(old)


def newest_checkpoint(run: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest that is whole, or None where no epoch was finished.

    Args:
        run: the run's folder.
        say: is told of those that are damaged.

    Raises:
        Failed: there are checkpoints, and none of them is whole.
    """
    saved = _saved(run)
    for folder in reversed(saved):
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            say(f"{folder} is damaged ({error}) and is passed over")
    if saved:
        raise Failed(f"{run}: none of its {len(saved)} checkpoints is whole; begin anew in another folder")
    return None


def remove_checkpoints(run: Path) -> None:
    """Removes them all: behind the last epoch, the run's folder holds the model itself."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _read(folder: Path) -> Checkpoint:
    """Reads one.

    Raises:
        ValueError: something there is not what was written.
    """
    written = json.loads((folder / MANIFEST).read_bytes())
    state = written["state"]
    if written["sha256"] != _sum(state):
        raise ValueError(f"{MANIFEST} was changed")
    for name, sha256 in state["sha256"].items():
        if sha256_of(folder / name) != sha256:
            raise ValueError(f"{name} was changed")
    return Checkpoint(
        folder, load_weights(folder), load_file(folder / OPTIMISER), state["history"], state["data_fingerprint"]
    )


def _saved(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")))


def _sum(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sync(folder: Path) -> None:
    """Makes the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
