"""Augmentation of training images, in batches; what happens to an image is a function of seed, epoch and its number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from saccade.data import boxes, mixing
from saccade.data.crops import flipped, padded_crops, resized_crops
from saccade.data.dataset import Dataset
from saccade.data.draws import uniform

# As torchvision's RandomErasing and timm have them.
ERASED_SCALE, ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to training images, in this order; by default nothing but the middle crop of evaluation.

    Attributes:
        crop_padding: black pixels around a picture, from which a crop is taken anywhere; 0 takes the middle.
        resized_crop: smallest and largest share of a picture's area that a random box has, which is then resized (in
            place of the padded crop); None does not.
        resized_ratio: smallest and largest width / height of that box.
        interpolation: of the resizing.
        flip: probability of a mirror image, left for right.
        erasing: probability that a random box is filled with the mean colour.
        mixup: images are added to another, with shares from Beta(mixup, mixup); 0 does not.
        cutmix: boxes of another image are pasted in, with areas from Beta(cutmix, cutmix); 0 does not.

    Raises:
        ValueError: a value out of its range, or two kinds of crop at once.
    """

    crop_padding: int = 0
    resized_crop: tuple[float, float] | None = None
    resized_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    flip: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "erasing"):
            _at_most(name, getattr(self, name), 1.0)
        for name in ("crop_padding", "mixup", "cutmix"):
            _at_most(name, float(getattr(self, name)), math.inf)
        if self.resized_crop is not None:
            _ordered("resized_crop", self.resized_crop, 1.0)
            _ordered("resized_ratio", self.resized_ratio, math.inf)
            if self.crop_padding:
                raise ValueError(
                    "augment.resized_crop and augment.crop_padding are two kinds of crop: give one of them"
                )

    @property
    def mixes(self) -> bool:
        """Whether an image meets another."""
        return self.mixup > 0 or self.cutmix > 0


def augment(
    dataset: Dataset, index: Int64[Tensor, " b"], options: Augment, *, seed: int, epoch: int
) -> tuple[UInt8[Tensor, "b c y x"] | Float[Tensor, "b c y x"], Float[Tensor, "b classes"] | None]:
    """Training images of these numbers as the model meets them in this epoch; pixels are 0..255.

    The other image that mixup and cutmix need is drawn from the whole training set, and augmented as the epoch augments
    it, so that the result does not depend on which images share a batch.

    Returns:
        The images, bytes unless they were mixed, and the mixed targets where they were.
    """
    if not options.mixes:
        return _alone(dataset, index, options, seed, epoch), None
    drawn = uniform(seed, epoch, index, "partner", 1)[:, 0]
    partners = boxes.below(drawn, torch.tensor(len(dataset.train)))
    images, others = (_alone(dataset, these, options, seed, epoch).float() for these in (index, partners))
    how = uniform(seed, epoch, index, "mix", mixing.DRAWS)
    images, share = mixing.mixed(images, others, how, options.mixup, options.cutmix)
    labels = dataset.train.labels
    return images, mixing.mixed_targets(labels[index], labels[partners], share, len(dataset.classes))


def _alone(
    dataset: Dataset, index: Int64[Tensor, " b"], options: Augment, seed: int, epoch: int
) -> UInt8[Tensor, "b c y x"]:
    """Each image as it is augmented by itself."""
    images = _cropped(dataset, index, options, seed, epoch)
    if options.flip:
        images = flipped(images, uniform(seed, epoch, index, "flip", 1)[:, 0] < options.flip)
    if options.erasing:
        images = _erased(images, dataset, uniform(seed, epoch, index, "erasing", 1 + boxes.DRAWS), options.erasing)
    return images


def _cropped(
    dataset: Dataset, index: Int64[Tensor, " b"], options: Augment, seed: int, epoch: int
) -> UInt8[Tensor, "b c y x"]:
    pictures, size = dataset.train.images, dataset.img_size
    if options.resized_crop is not None:
        drawn = uniform(seed, epoch, index, "resized crop", boxes.DRAWS)
        scale, ratio = options.resized_crop, options.resized_ratio
        return resized_crops(pictures, index, drawn, size, scale, ratio, options.interpolation)
    if options.crop_padding:
        return padded_crops(pictures, index, uniform(seed, epoch, index, "crop", 2), size, options.crop_padding)
    return pictures.centre(index, size)


def _erased(
    images: UInt8[Tensor, "b c y x"], dataset: Dataset, drawn: Float[Tensor, "b draws"], probability: float
) -> UInt8[Tensor, "b c y x"]:
    height, width = (torch.full((len(images),), side) for side in dataset.img_size)
    box, found = boxes.random_boxes(drawn[:, 1:], height, width, ERASED_SCALE, ERASED_RATIO)
    chosen = found & (drawn[:, 0] < probability)
    colour = (torch.tensor(dataset.mean) * 255).round().to(torch.uint8)[:, None, None]
    return torch.where(box.masks(dataset.img_size) & chosen[:, None, None, None], colour, images)


def _at_most(name: str, value: float, high: float) -> None:
    if not (0 <= value <= high and math.isfinite(value)):
        raise ValueError(f"augment.{name} = {value}: must be at least 0{_upper(high)}")


def _ordered(name: str, pair: tuple[float, float], high: float) -> None:
    if not (len(pair) == 2 and 0 < pair[0] <= pair[1] <= high and math.isfinite(pair[1])):
        raise ValueError(f"augment.{name} = {pair}: must be two numbers above 0{_upper(high)}, the smaller first")


def _upper(high: float) -> str:
    return f" and at most {high:g}" if math.isfinite(high) else ""
