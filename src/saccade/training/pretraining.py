"""Pre-training without labels: the loss of a masked autoencoder, and beside it what predicting a constant gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.parts import off_grid
from saccade.data.batches import Batch, eval_batches
from saccade.data.dataset import Dataset, Split
from saccade.data.draws import uniform
from saccade.models.embed import patchify
from saccade.models.mae import MaskedAutoencoder
from saccade.training.baselines import Constants, one_colour, training_constants
from saccade.training.evaluate import BATCH_SIZE
from saccade.training.objective import Draws, Objective, Row

LEAST_GAIN = 0.01
"""A loss counts as below that of the mean by this share of it at least: what is less, a constant reaches by chance."""

WARNING_SHARE = 0.1
"""Share of the epochs after which a loss that is not below that of the mean is worth a warning."""

_REMEDIES = (
    "another --lr (three times as high, or a third where the loss jumps), more --epochs, "
    "or --attention softmax to see whether the mechanism is to blame"
)


@dataclass(frozen=True)
class Reconstructed:
    """How well a masked autoencoder predicts the hidden patches of a split.

    Attributes:
        loss: mean error over the hidden pixels, squared (absolute where the model's objective is "simmim").
        baseline_loss: what predicting the training part's mean colour would give.
        mean_picture_loss: what predicting its mean picture would give, a colour for each place. Both are medians where
            the error is absolute.
    """

    loss: float
    baseline_loss: float
    mean_picture_loss: float


class Pretraining(Objective[MaskedAutoencoder, Reconstructed]):
    """The masked autoencoder's own loss, with masks f(seed, epoch, image); labels are not looked at.

    The baseline is the loss of a model that predicts one and the same colour for every hidden pixel: in training the
    mean of the batch's targets, channel by channel, in evaluation that of the training part. Squared, it is 1 on pixels
    that are normalised with mean and deviation of the training part, as they are here, up to what cropping changes and
    which patches are hidden; with norm_pix_loss it is about 1, too, and less where patches are flat. SimMIM's error is
    absolute: the best constant is then the median, and the baseline less than 1. A model that is no better has learned
    nothing at all, however long it has been trained. One that is no better than the training part's mean picture (of
    SimMIM, median picture), which on centred pictures is far better than one colour, has learned where things are, and
    nothing of the image before it.

    Args:
        average: what logs and warnings call the constants: "mean", or of an absolute error "median".
    """

    columns: ClassVar[tuple[str, ...]] = (
        "train_baseline_loss",
        "eval_loss",
        "eval_baseline_loss",
        "eval_mean_picture_loss",
    )

    def __init__(self, average: str = "mean") -> None:
        self.average = average
        self._known: tuple[MaskedAutoencoder, Dataset, Constants] | None = None

    def __call__(self, model: MaskedAutoencoder, batch: Batch, draws: Draws) -> Float[Tensor, ""]:
        """The mean error over the hidden patches."""
        return model(_images(model, batch), draws("mask", model.tokens.patches)).loss

    @torch.no_grad()
    def beside(self, model: MaskedAutoencoder, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """The loss of predicting the mean, or median, of the same hidden patches."""
        targets, _ = _hidden_targets(model, _images(model, batch), draws("mask", model.tokens.patches))
        return {"baseline_loss": model.error(one_colour(model, targets).expand_as(targets), targets)}

    def attention(self, model: MaskedAutoencoder) -> str:
        """That of both halves, and how much is hidden."""
        decoder = "" if model.decoder_attention == model.attention else f" and {model.decoder_attention} in the decoder"
        hidden = model.tokens.patches - model.visible
        return f"{model.attention}{decoder}, {hidden} of {model.tokens.patches} patches hidden"

    def evaluate(
        self, model: MaskedAutoencoder, split: Split, dataset: Dataset, amp_dtype: str | None
    ) -> Reconstructed:
        """The loss, with masks f(image), and what predicting constants would give."""
        # Once a run: they are of the training part, whichever part is evaluated.
        if self._known is None or self._known[0] is not model or self._known[1] is not dataset:
            self._known = model, dataset, training_constants(model, dataset)
        return evaluate_reconstruction(model, split, dataset, constants=self._known[2], amp_dtype=amp_dtype)

    def row(self, found: Reconstructed) -> dict[str, Any]:
        """All of it."""
        return {
            "eval_loss": found.loss,
            "eval_baseline_loss": found.baseline_loss,
            "eval_mean_picture_loss": found.mean_picture_loss,
        }

    def line(self, row: Row) -> str:
        """The loss, and what predicting constants would give."""
        return (
            f"epoch: [{row['epoch']}]  validation loss: {row['eval_loss']:.4f}  (predicting the "
            f"{self.average}: {row['eval_baseline_loss']:.4f}, the {self.average} picture: "
            f"{row['eval_mean_picture_loss']:.4f})"
        )

    def warning(self, row: Row, epochs: int) -> str:
        """After a tenth of the epochs, and at least one, where the mean is not beaten; at the end, the mean picture."""
        done = row["epoch"] + 1
        if done == math.ceil(WARNING_SHARE * epochs) and not below(row["train_loss"], row["train_baseline_loss"]):
            return (
                f"warning: after {done} of {epochs} epochs the loss, {row['train_loss']:.4f}, is not below what "
                f"predicting the {self.average} gives, {row['train_baseline_loss']:.4f}: nothing is learned yet; try "
                f"{_REMEDIES}"
            )
        if done == epochs and not below(row["eval_loss"], row["eval_mean_picture_loss"]):
            return (
                f"warning: at the end the validation loss, {row['eval_loss']:.4f}, is not below what predicting the "
                f"{self.average} picture gives, {row['eval_mean_picture_loss']:.4f}: what is predicted does not depend "
                f"on the visible patches; try {_REMEDIES}"
            )
        return ""

    def settings(self, model: MaskedAutoencoder) -> dict[str, Any]:
        """The decoder's attention, where there is a decoder, and what the loss is of."""
        return {
            **({} if model.objective == "simmim" else {"decoder_attention": model.decoder_attention}),
            "mask_ratio": model.config["mask_ratio"],
            "norm_pix_loss": model.norm_pix_loss,
        }

    def validated(self, row: Row) -> dict[str, Any]:
        """The loss, and what predicting constants would give."""
        return {
            "validation_loss": row["eval_loss"],
            "validation_baseline_loss": row["eval_baseline_loss"],
            "validation_mean_picture_loss": row["eval_mean_picture_loss"],
        }

    def tested(self, found: Reconstructed) -> dict[str, Any]:
        """The loss, and what predicting constants would give."""
        return {
            "test_loss": found.loss,
            "test_baseline_loss": found.baseline_loss,
            "test_mean_picture_loss": found.mean_picture_loss,
        }


def evaluate_reconstruction(
    model: MaskedAutoencoder,
    split: Split,
    dataset: Dataset,
    *,
    constants: Constants | None = None,
    batch_size: int = BATCH_SIZE,
    amp_dtype: str | None = None,
) -> Reconstructed:
    """The mean loss over a split with masks f(seed 0, image index); the model's mode is left as it was.

    Args:
        model: on the device where the work is done.
        split: the images, as in `dataset.test`.
        dataset: whose mean and deviation the images are normalised with, and whose training part has the constants.
        constants: as `training_constants` gives them, which is asked where they are None.
        batch_size: images at a time; the result does not depend on it, rounding aside.
        amp_dtype: "bf16" runs float32 weights under autocast.

    Raises:
        ValueError: the split has no images.
    """
    if len(split) == 0:
        raise ValueError(f"{dataset.name}: this split has no images; evaluate on another")
    place, was_training = next(model.parameters()).device, model.training
    model.eval()
    known = training_constants(model, dataset) if constants is None else constants
    colour, picture = known.colour.to(place), known.picture.to(place)
    errors = torch.zeros(3, dtype=torch.float64)
    try:
        with torch.inference_mode():
            for batch in eval_batches(split, dataset, batch_size, place):
                images, noise = _images(model, batch), _evaluation_noise(model, batch)
                with torch.autocast(place.type, torch.bfloat16, enabled=amp_dtype == "bf16"):
                    loss = model(images, noise).loss
                targets, hidden = _hidden_targets(model, images, noise)
                losses = (model.error(one, targets) for one in (colour.expand_as(targets), picture[hidden]))
                # As many patches are hidden in each image: the mean of a batch counts for its images.
                errors += len(batch) * torch.stack([loss, *losses]).double().cpu()
    finally:
        model.train(was_training)
    return Reconstructed(*(errors / len(split)).tolist())


def _images(model: MaskedAutoencoder, batch: Batch) -> Float[Tensor, "b c y x"]:
    return batch.images.to(next(model.parameters()).dtype)


def _evaluation_noise(model: MaskedAutoencoder, batch: Batch) -> Float[Tensor, "b n"]:
    return uniform(0, 0, batch.index, "evaluation mask", model.tokens.patches)


def _hidden_targets(
    model: MaskedAutoencoder, images: Float[Tensor, "b c y x"], noise: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "b m p"], Int[Tensor, "b m"]]:
    """What is to be predicted, and of which patches."""
    _, hidden = model.hide(len(images), noise, images.device)
    return model.targets(off_grid(patchify(images, model.patch_embed.patch_size), hidden)), hidden


def below(loss: float, mean_loss: float) -> bool:
    """Whether a loss is below that of a constant by more than a constant reaches by chance."""
    return loss < (1 - LEAST_GAIN) * mean_loss
