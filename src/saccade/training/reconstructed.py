"""What masked autoencoders make of pictures whose patches are hidden, as pixels to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from saccade.attention.parts import at_least_float32
from saccade.data.draws import uniform
from saccade.models.embed import patchify
from saccade.models.mae import MaskedAutoencoder


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and deviation of each channel, where a pixel is 0..1: what a model's images were prepared with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_floats(self, images: UInt8[Tensor, "n c y x"]) -> Float[Tensor, "n c y x"]:
        """What the model sees."""
        mean, std = self._sides()
        return (images.float() - mean) / std

    def to_pixels(self, images: Float[Tensor, "n c y x"]) -> UInt8[Tensor, "n c y x"]:
        """The nearest pixels."""
        mean, std = self._sides()
        return (images * std + mean).round().clamp(0, 255).byte()

    def _sides(self) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
        mean, std = (torch.tensor(side)[:, None, None] * 255 for side in (self.mean, self.std))
        return mean, std


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What one model makes of some pictures.

    Attributes:
        hidden: where the patches are that it does not see.
        predicted: its prediction of every patch, of the visible ones, too.
        pasted: its prediction of the hidden patches among the visible ones as they are.
        loss: mean error over the pixels of hidden patches, as in its training, a picture each.
        mean_loss: what predicting the mean would lose there: that of the training pixels, or with `norm_pix_loss`
            each patch's own.
        absolute: whether these errors are absolute, as in SimMIM, and not squared.
        norm_pix_loss: whether it predicts each patch less its own mean, over its own deviation; these two are then the
            original's, also in `predicted` and `pasted`.
    """

    hidden: Bool[Tensor, "n y x"]
    predicted: UInt8[Tensor, "n c y x"]
    pasted: UInt8[Tensor, "n c y x"]
    loss: Float[Tensor, " n"]
    mean_loss: Float[Tensor, " n"]
    absolute: bool
    norm_pix_loss: bool


@torch.no_grad()
def reconstruct(
    model: MaskedAutoencoder, images: UInt8[Tensor, "n c y x"], normalisation: Normalisation, *, seed: int = 0
) -> Reconstructed:
    """Hides patches of each picture and predicts them.

    Which ones is f(seed, number of the picture), so every model with the same grid and mask ratio sees the same. The
    model is in evaluation mode meanwhile and is left as it was.

    Args:
        model: on any device.
        images: of the model's size and channels.
        normalisation: what its images were prepared with.
        seed: of the mask.

    Raises:
        ValueError: images of another size or number of channels.
    """
    weight = next(model.parameters())
    normal = normalisation.to_floats(images)
    noise = uniform(seed, 0, torch.arange(len(images)), "mask", model.tokens.patches)
    was_training = model.training
    model.eval()
    try:
        made = model(normal.to(weight.device, weight.dtype), noise.to(weight.device), details=True)
    finally:
        model.train(was_training)
    assert made.pred is not None
    assert made.mask is not None
    pred, hidden = at_least_float32(made.pred).cpu(), made.mask.bool().cpu()
    patches = patchify(normal, model.patch_embed.patch_size)
    target = model.targets(patches)
    shown = pred
    if model.norm_pix_loss:
        variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
        shown = pred * (variance + 1e-6).sqrt() + mean
    predicted = normalisation.to_pixels(unpatchify(shown, model.tokens.grid, model.patch_embed.patch_size))
    covered = unpatchify(hidden[:, :, None].expand_as(pred), model.tokens.grid, model.patch_embed.patch_size)
    return Reconstructed(
        hidden=covered[:, 0],
        predicted=predicted,
        pasted=torch.where(covered, predicted, images),
        loss=_of_hidden(model, pred, target, hidden),
        mean_loss=_of_hidden(model, torch.zeros_like(target), target, hidden),
        absolute=model.objective == "simmim",
        norm_pix_loss=model.norm_pix_loss,
    )


def unpatchify(
    patches: Shaped[Tensor, "b n p"], grid: tuple[int, int], patch_size: tuple[int, int]
) -> Shaped[Tensor, "b c y x"]:
    """Images from patches in raster order whose values run row, column, channel: the way back from predictions."""
    cut = patches.unflatten(2, (*patch_size, -1)).unflatten(1, grid)
    return cut.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def with_mask_ratio(model: MaskedAutoencoder, mask_ratio: float) -> MaskedAutoencoder:
    """The same weights, told to hide another share of the patches.

    Raises:
        ValueError: a share that hides nothing or leaves fewer than two patches, or an attention that refuses so few.
    """
    weight = next(model.parameters())
    made = MaskedAutoencoder(**{**model.config, "mask_ratio": mask_ratio}).to(weight.device, weight.dtype)
    made.load_state_dict(model.state_dict())
    made.name = model.name
    return made


def check_alike(models: Sequence[MaskedAutoencoder], names: Sequence[str]) -> None:
    """Whether all can be shown the same pictures with the same patches hidden.

    Raises:
        ValueError: they differ in size, channels, patches or mask ratio.
    """
    for option in ("img_size", "in_chans", "patch_size", "mask_ratio"):
        for model, name in zip(models, names, strict=True):
            if (theirs := model.config[option]) != (first := models[0].config[option]):
                remedy = "give --mask-ratio" if option == "mask_ratio" else "show them in pictures of their own"
                raise ValueError(
                    f"{names[0]} has {option}={first} and {name} {option}={theirs}, so they cannot see the same "
                    f"patches: {remedy}"
                )


def _of_hidden(
    model: MaskedAutoencoder,
    predicted: Float[Tensor, "n m p"],
    target: Float[Tensor, "n m p"],
    hidden: Bool[Tensor, "n m"],
) -> Float[Tensor, " n"]:
    """The model's error over the pixels of hidden patches, a picture each."""
    pictures = zip(predicted, target, hidden, strict=True)
    return torch.stack([model.error(one[of], wanted[of]) for one, wanted, of in pictures])
