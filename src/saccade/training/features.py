"""Frozen features: what an encoder makes of every image of a data set, computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saccade.data.batches import eval_batches
from saccade.data.dataset import Dataset, Split
from saccade.models.mae import MaskedAutoencoder
from saccade.models.vit import VisionTransformer
from saccade.training.evaluate import BATCH_SIZE

POOLS = ("token", "avg")


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a data set as an encoder sees it: a row of D features an image, and the number of its class."""

    x: Float[Tensor, "n d"]
    labels: Int64[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Features:
    """A data set as an encoder sees it.

    Attributes:
        train: what a probe learns from; validation: what it chooses on; test: what it is judged by.
        classes: how many there are.
        pool: how an image's tokens became one row.
    """

    train: Part
    validation: Part
    test: Part
    classes: int
    pool: str


def extract(
    model: VisionTransformer | MaskedAutoencoder,
    dataset: Dataset,
    *,
    pool: str | None = None,
    batch_size: int = BATCH_SIZE,
    amp_dtype: str | None = None,
) -> Features:
    """Runs the encoder once over every image's middle crop, unmasked, on the device that its weights are on.

    The model is in evaluation mode meanwhile and is left as it was. Training images are not augmented: what is learned
    from the features then depends on nothing but the encoder.

    Args:
        model: a masked autoencoder, of which the encoder is taken, or a classifier, of which all but the head.
        dataset: images of the model's size and channels.
        pool: "token": the class token behind the last norm; "avg": the mean of the patches there; None: what the model
            was made for (`own_pool`). A classifier that norms behind its pooling (`fc_norm`) norms the features, too.
        batch_size: images at a time; the features do not depend on it, rounding aside.
        amp_dtype: "bf16" runs float32 weights under autocast.

    Raises:
        ValueError: another pool, a class token asked for where there is none, images of another size or number of
            channels, none that have classes, or a part without images.
    """
    pool = own_pool(model) if pool is None else pool
    _check(model, dataset, pool)
    was_training = model.training
    model.eval()
    try:
        parts = {
            name: _part(model, split, dataset, pool, batch_size, amp_dtype) for name, split in dataset.splits.items()
        }
    finally:
        model.train(was_training)
    return Features(**parts, classes=len(dataset.classes), pool=pool)


def own_pool(model: VisionTransformer | MaskedAutoencoder) -> str:
    """What a model was made to be read by: a masked autoencoder the class token, a classifier what its head reads.

    Behind any mean a classifier's last norm has been trained on means, and would mistake a class token for one.
    """
    means = isinstance(model, VisionTransformer) and (model.global_pool in ("avg", "all") or model.cls_token is None)
    return "avg" if means else "token"


@torch.no_grad()
def _part(
    model: VisionTransformer | MaskedAutoencoder,
    split: Split,
    dataset: Dataset,
    pool: str,
    batch_size: int,
    amp_dtype: str | None,
) -> Part:
    weight = next(model.parameters())
    rows, labels = [], []
    for batch in eval_batches(split, dataset, batch_size, weight.device):
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=amp_dtype == "bf16"):
            rows.append(_pooled(model, model.forward_features(batch.images.to(weight.dtype)), pool).float())
        labels.append(batch.labels)
    return Part(torch.cat(rows), torch.cat(labels))


def _pooled(
    model: VisionTransformer | MaskedAutoencoder, tokens: Float[Tensor, "b n d"], pool: str
) -> Float[Tensor, "b d"]:
    row = tokens[:, 0] if pool == "token" else tokens[:, model.tokens.prefix :].mean(dim=1)
    return model.fc_norm(row) if isinstance(model, VisionTransformer) else row


def _check(model: VisionTransformer | MaskedAutoencoder, dataset: Dataset, pool: str) -> None:
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r}: must be {' or '.join(POOLS)}")
    dataset.require_classes()
    if pool == "token" and isinstance(model, VisionTransformer) and model.cls_token is None:
        raise ValueError('pool="token" of a model without a class token: use pool="avg", the mean of the patches')
    if (there := (dataset.channels, *dataset.img_size)) != (wanted := (model.in_chans, *model.img_size)):
        raise ValueError(
            f"{dataset.name} was loaded as {_shape(there)}, and the model takes {_shape(wanted)} (channels, rows, "
            f"columns): load_data(..., img_size={model.img_size}, in_chans={model.in_chans})"
        )
    if empty := [name for name, split in dataset.splits.items() if len(split) == 0]:
        raise ValueError(f"{dataset.name}: its {empty[0]} part has no images, and a probe needs all three")


def _shape(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
