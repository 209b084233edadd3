"""What a run minimises, how its model is judged and what is written down of that: all that tells two tasks apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from saccade.data.batches import Batch
from saccade.data.dataset import Dataset, Split
from saccade.models.vit import VisionTransformer
from saccade.training.evaluate import Evaluation, evaluate

Draws = Callable[[str, int], Float[Tensor, "b k"]]
"""`draws(purpose, count)`: `count` numbers in 0..1 for each image of the batch, f(seed, epoch, image, purpose)."""

Row = Mapping[str, Any]
"""A finished epoch: a line of metrics.jsonl."""


Model = TypeVar("Model", bound=nn.Module)
Found = TypeVar("Found")


class Objective(ABC, Generic[Model, Found]):
    """A task as the loop needs it.

    Attributes:
        columns: what summary.csv shows of an epoch between its training loss and its learning rate.
    """

    columns: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, draws: Draws) -> Float[Tensor, ""]:
        """The mean loss of a batch, float32.

        It draws nothing but what `draws` and, for dropout, the seeded generator give.
        """

    @abstractmethod
    def beside(self, model: Model, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """Numbers of the batch that the log shows beside its loss, and epochs keep the means of, by name."""

    @abstractmethod
    def attention(self, model: Model) -> str:
        """What the layers of the model compute, for the first line of the log."""

    @abstractmethod
    def evaluate(self, model: Model, split: Split, dataset: Dataset, amp_dtype: str | None) -> Found:
        """How good the model is, exactly: each image of the split counts once."""

    @abstractmethod
    def row(self, found: Found) -> dict[str, Any]:
        """What an epoch's row keeps of the evaluation on the validation part, "eval_loss" among it."""

    @abstractmethod
    def line(self, row: Row) -> str:
        """The log's line for the end of an epoch."""

    @abstractmethod
    def warning(self, row: Row, epochs: int) -> str:
        """What the user should know at the end of this epoch of a run of so many; "" is nothing."""

    @abstractmethod
    def settings(self, model: Model) -> dict[str, Any]:
        """What result.json says of the model beside its name and attention."""

    @abstractmethod
    def validated(self, row: Row) -> dict[str, Any]:
        """What result.json says of the validation part, from the last epoch's row."""

    @abstractmethod
    def tested(self, found: Found) -> dict[str, Any]:
        """What result.json says of the evaluation on the test part."""


@dataclass(frozen=True)
class Classification(Objective[VisionTransformer, Evaluation]):
    """Cross entropy with labels, or with the mixed targets of mixup and cutmix.

    Attributes:
        label_smoothing: share of the target that is spread over all classes.
    """

    label_smoothing: float = 0.0
    columns: ClassVar[tuple[str, ...]] = ("eval_loss", "eval_top1")

    def __call__(self, model: VisionTransformer, batch: Batch, draws: Draws) -> Float[Tensor, ""]:
        """The mean cross entropy."""
        logits = model(batch.images.to(next(model.parameters()).dtype), noise=draws("depth", 2 * len(model.blocks)))
        targets = batch.labels if batch.targets is None else batch.targets
        return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def beside(self, model: VisionTransformer, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """Nothing."""
        return {}

    def attention(self, model: VisionTransformer) -> str:
        """That of the blocks."""
        return model.attention

    def evaluate(self, model: VisionTransformer, split: Split, dataset: Dataset, amp_dtype: str | None) -> Evaluation:
        """Loss and hits."""
        return evaluate(model, split, dataset, amp_dtype=amp_dtype)

    def row(self, found: Evaluation) -> dict[str, Any]:
        """Loss and top-1."""
        return {"eval_loss": found.loss, "eval_top1": found.top1_percent}

    def line(self, row: Row) -> str:
        """Top-1 and loss."""
        return f"epoch: [{row['epoch']}]  validation top-1: {row['eval_top1']:.2f} %  loss: {row['eval_loss']:.4f}"

    def warning(self, row: Row, epochs: int) -> str:
        """None: accuracy speaks for itself."""
        return ""

    def settings(self, model: VisionTransformer) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def validated(self, row: Row) -> dict[str, Any]:
        """Loss and top-1."""
        return {"validation_loss": row["eval_loss"], "validation_top1_percent": row["eval_top1"]}

    def tested(self, found: Evaluation) -> dict[str, Any]:
        """Loss, top-1, top-5, and which images were right."""
        return {
            "test_loss": found.loss,
            "test_top1_percent": found.top1_percent,
            "test_top5_percent": found.top5_percent,
            "test_correct": found.correct_hex,
        }
