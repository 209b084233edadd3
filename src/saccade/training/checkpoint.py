"""Checkpoints: the weights of the last finished epochs, each in a folder of its own, so that one is always whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.models.vit import VisionTransformer
from saccade.models.weights import save_model

KEPT = 2


def save_checkpoint(model: VisionTransformer, run: Path, epoch: int, facts: Mapping[str, Any]) -> None:
    """Saves the weights under checkpoints/ in the run's folder, then removes all but the newest two."""
    save_model(model, run / "checkpoints" / f"epoch-{epoch}", facts)
    for old in sorted((run / "checkpoints").iterdir(), key=_epoch)[:-KEPT]:
        shutil.rmtree(old)


def save_final(model: VisionTransformer, run: Path, facts: Mapping[str, Any]) -> None:
    """Saves the weights in the run's folder itself; only then the checkpoints go."""
    save_model(model, run, facts)
    shutil.rmtree(run / "checkpoints")


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("epoch-"))
