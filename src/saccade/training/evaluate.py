"""Exact evaluation: every image of a split counts once, the last partial batch included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from saccade.data.batches import Batch, eval_batches
from saccade.data.dataset import Dataset, Split

BATCH_SIZE = 256


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a split.

    Attributes:
        loss: mean cross entropy over the images.
        correct: whether the most likely class is the right one, image by image, in the split's order.
        top5_correct: whether the right class is among the five most likely; None below six classes.
    """

    loss: float
    correct: Bool[Tensor, " n"]
    top5_correct: Bool[Tensor, " n"] | None

    @property
    def top1_percent(self) -> float:
        """Share of images whose most likely class is right."""
        return 100 * int(self.correct.sum()) / len(self.correct)

    @property
    def top5_percent(self) -> float | None:
        """Share of images whose right class is among the five most likely."""
        return None if self.top5_correct is None else 100 * int(self.top5_correct.sum()) / len(self.top5_correct)

    @property
    def correct_hex(self) -> str:
        """One bit an image, first image first, as hexadecimal digits: what paired comparisons need."""
        return as_hex(self.correct)


def evaluate(
    model: nn.Module, split: Split, dataset: Dataset, *, batch_size: int = BATCH_SIZE, amp_dtype: str | None = None
) -> Evaluation:
    """Runs the model over a split, on the device that its weights are on; the model's mode is left as it was.

    Args:
        model: images to logits.
        split: the images, as in `dataset.test`.
        dataset: whose mean and deviation the images are normalised with.
        batch_size: images at a time; the result does not depend on it, rounding aside.
        amp_dtype: "bf16" runs float32 weights under autocast.

    Raises:
        ValueError: the split has no images, or its images no classes.
    """
    dataset.require_classes()
    if len(split) == 0:
        raise ValueError(f"{dataset.name}: this split has no images; evaluate on another")
    weight = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return _counted(model, eval_batches(split, dataset, batch_size, weight.device), weight.dtype, amp_dtype)
    finally:
        model.train(was_training)


def as_hex(correct: Bool[Tensor, " n"]) -> str:
    """One bit an image, first image first, as hexadecimal digits."""
    return np.packbits(correct.numpy()).tobytes().hex()


def _counted(model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype, amp_dtype: str | None) -> Evaluation:
    losses, correct, among_five = [], [], []
    for batch in batches:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=amp_dtype == "bf16"):
            logits = model(batch.images.to(dtype)).float()
        losses.append(nn.functional.cross_entropy(logits, batch.labels, reduction="none"))
        correct.append(logits.argmax(dim=1) == batch.labels)
        if logits.shape[1] > 5:
            among_five.append((logits.topk(5).indices == batch.labels[:, None]).any(dim=1))
    # In float64, so that the mean of many is no sum that lost the last ones.
    loss = torch.cat(losses).cpu().double().mean().item()
    return Evaluation(loss, torch.cat(correct).cpu(), torch.cat(among_five).cpu() if among_five else None)
