"""Kept: what each layer of a model keeps between the forward and the backward pass, an image's share of it."""

from __future__ import annotations

from collections.abc import Collection

from saccade.measurement.memory.predict import predicted_step
from saccade.measurement.operations import layer_of
from saccade.measurement.subject import Subject

BETWEEN = "between the layers"


def kept_by_layer(subject: Subject, layers: Collection[str]) -> dict[str, float]:
    """Bytes an image of the activations that a training step keeps, predicted, by the layer that made them.

    Args:
        subject: the model and the terms; how many images there are decides which layers keep less and compute again.
        layers: names as in the state dict; what none of them made (sums of shortcuts, positions, the loss) stands
            under `BETWEEN`.

    Raises:
        ValueError: the model cannot be predicted, or cannot be trained.
    """
    kept = dict.fromkeys([*layers, BETWEEN], 0.0)
    for name, size in predicted_step(subject).kept_by_module.items():
        kept[layer_of(name, layers) or BETWEEN] += size / subject.batch_size
    return kept
