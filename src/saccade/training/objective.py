"""What a step minimises: loss = objective(model, batch, draws)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from saccade.data.batches import Batch
from saccade.models.vit import VisionTransformer

Draws = Callable[[str, int], Float[Tensor, "b k"]]
"""`draws(purpose, count)`: `count` numbers in 0..1 for each image of the batch, f(seed, epoch, image, purpose)."""


Objective = Callable[[VisionTransformer, Batch, Draws], Float[Tensor, ""]]
"""The mean loss of a batch, float32; it draws nothing but what `draws` and, for dropout, the seeded generator give."""


@dataclass(frozen=True)
class Classification:
    """Cross entropy with labels, or with the mixed targets of mixup and cutmix.

    Attributes:
        label_smoothing: share of the target that is spread over all classes.
    """

    label_smoothing: float = 0.0

    def __call__(self, model: VisionTransformer, batch: Batch, draws: Draws) -> Float[Tensor, ""]:
        """The mean cross entropy."""
        logits = model(batch.images.to(next(model.parameters()).dtype), noise=draws("depth", 2 * len(model.blocks)))
        targets = batch.labels if batch.targets is None else batch.targets
        return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
