"""The probe: how much of the classes is in an encoder's frozen features."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.models.mae import MaskedAutoencoder
from saccade.models.vit import VisionTransformer
from saccade.training.evaluate import BATCH_SIZE, as_hex
from saccade.training.features import Features, Part, extract
from saccade.training.linear_probe import PENALTIES, Linear, fitted
from saccade.training.neighbours import TEMPERATURE, K, nearest_classes

METHODS = ("linear", "linear_bn", "knn")


def probe(
    model: VisionTransformer | MaskedAutoencoder,
    dataset: Dataset,
    *,
    method: str = "linear",
    pool: str | None = None,
    k: int = K,
    penalties: Sequence[float] = PENALTIES,
    batch_size: int = BATCH_SIZE,
    amp_dtype: str | None = None,
) -> dict[str, Any]:
    """Classifies images by the model's frozen features, which are computed once, without augmentation.

    What is learned is learned from the training part, what is chosen is chosen on the validation part, and the test
    part is read once, at the end. There is no randomness: the same features give the same answer.

    Example:
        saccade.probe(model, saccade.load_data("digits", img_size=8), method="knn")["test_top1_percent"]

    Args:
        model: on any device; it is not changed.
        dataset: images of the model's size and channels, normalised as those the model was trained on.
        method: "linear" or "linear_bn", the best linear classifier of the features or of the features behind a
            BatchNorm (see `fitted`); "knn", a vote of the nearest training images (see `nearest_classes`).
        pool: what stands for an image: "token", the class token, or "avg", the mean of the patches; None takes the
            class token of a masked autoencoder, and what the head reads of a classifier.
        k: of "knn": neighbours that vote.
        penalties: of "linear" and "linear_bn": the strengths among which the validation part chooses.
        batch_size: images at a time.
        amp_dtype: "bf16" computes the features of float32 weights under autocast.

    Returns:
        Values by name: "method", "validation_top1_percent", "test_top1_percent", "test_correct" (one bit an image as
        hexadecimal digits), "test_images", "train_images" and "settings".

    Raises:
        ValueError: another method or pool, or images that do not fit the model.
    """
    _check(method)
    features = extract(model, dataset, pool=pool, batch_size=batch_size, amp_dtype=amp_dtype)
    return probe_features(features, method=method, k=k, penalties=penalties)


def probe_features(
    features: Features,
    *,
    method: str = "linear",
    k: int = K,
    penalties: Sequence[float] = PENALTIES,
) -> dict[str, Any]:
    """As `probe`, of features that are there already: several methods then cost one pass over the images.

    Raises:
        ValueError: another method, or a setting that it refuses.
    """
    _check(method)
    train = features.train
    settings: dict[str, Any] = {"pool": features.pool}
    if method == "knn":
        settings |= {"k": k, "temperature": TEMPERATURE}
        validation, test = (
            nearest_classes(part.x, train.x, train.labels, features.classes, k=k)
            for part in (features.validation, features.test)
        )
    else:
        chosen = _chosen(features, penalties, batch_norm=method == "linear_bn")
        settings |= {"penalty": chosen.penalty, "penalties": list(penalties)}
        validation, test = (chosen.classify(part.x) for part in (features.validation, features.test))
    return {
        "method": method,
        "validation_top1_percent": _top1_percent(validation, features.validation),
        "test_top1_percent": _top1_percent(test, features.test),
        "test_correct": as_hex((test == features.test.labels).cpu()),
        "test_images": len(test),
        "train_images": len(train.labels),
        "settings": settings,
    }


def random_start(model: VisionTransformer | MaskedAutoencoder, seed: int = 0) -> VisionTransformer | MaskedAutoencoder:
    """The same model with random weights, f(seed, parameter name): what all its training is to be compared with.

    They are those that pre-training, or training from scratch, began with. Fine-tuning began with the weights of its
    checkpoint instead.
    """
    started = copy.deepcopy(model)
    started.reset_parameters(seed)
    return started


def _chosen(features: Features, penalties: Sequence[float], *, batch_norm: bool) -> Linear:
    """The classifier with the most right answers on the validation part; of equals, that of lower loss there."""
    train, validation = features.train, features.validation

    def wrong_and_loss(one: Linear) -> tuple[int, float]:
        wrong = int((one.classify(validation.x) != validation.labels).sum())
        return wrong, one.loss(validation.x, validation.labels)

    fits = fitted(train.x, train.labels, features.classes, batch_norm=batch_norm, penalties=penalties)
    return min(fits, key=wrong_and_loss)


def _top1_percent(found: Int64[Tensor, " n"], part: Part) -> float:
    return 100 * int((found == part.labels).sum()) / len(found)


def _check(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method={method!r}: must be {', '.join(METHODS)}")
