"""Weights for another grid, patch size or number of channels than they were trained at."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def resample_positions(
    positions: Float[Tensor, "1 n w"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "1 m w"]:
    """Positions between the old ones, bicubic and smoothed where they shrink, as timm has it.

    Args:
        positions: of prefix tokens, which stay, then of the patches in raster order.
        old: rows and columns of patches.
        new: the same, wanted.
    """
    if old == new:
        return positions
    prefix, patches = positions.tensor_split([positions.shape[1] - old[0] * old[1]], dim=1)
    maps = patches.float().transpose(1, 2).unflatten(2, old)
    maps = nn.functional.interpolate(maps, new, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([prefix, maps.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def resample_patches(
    weight: Float[Tensor, "d c y x"], patch_size: tuple[int, int]
) -> Float[Tensor, "d c {patch_size[0]} {patch_size[1]}"]:
    """A patch embedding for patches of another size that sees in a resized patch what the old one saw in the patch.

    With B the matrix that resizes a patch (bicubic, smoothed where it shrinks), the weight w becomes w B⁺: the
    pseudo-inverse resize of Beyer et al. 2023 (FlexiViT), https://arxiv.org/abs/2212.08013.
    """
    old = (weight.shape[2], weight.shape[3])
    if old == patch_size:
        return weight
    pixels = torch.eye(old[0] * old[1]).view(-1, 1, *old)
    resized = nn.functional.interpolate(pixels, patch_size, mode="bicubic", align_corners=False, antialias=True)
    inverse = torch.linalg.pinv(resized.flatten(1).T)
    return (weight.float().flatten(2) @ inverse).unflatten(2, patch_size).to(weight.dtype)


def convert_channels(weight: Float[Tensor, "d c y x"], channels: int) -> Float[Tensor, "d {channels} y x"]:
    """A first convolution for images of another number of channels, as timm does it.

    For one channel the weights are summed: it answers to a grey image as it did to that image in colour. For more they
    are repeated in turn, and for fewer those of the first channels are kept and the others dropped, which loses what
    they told of the image; both are scaled so that an equal value in all channels has the effect that it had.
    """
    there = weight.shape[1]
    if there == channels:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight.repeat(1, math.ceil(channels / there), 1, 1)[:, :channels] * (there / channels)
