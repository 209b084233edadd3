"""Masking: which patches of an image are hidden, and how many stay visible."""

from __future__ import annotations

from fractions import Fraction

from jaxtyping import Float, Int
from torch import Tensor


def hide(
    noise: Float[Tensor, "b n"], grid: tuple[int, int], unit: tuple[int, int], visible: int
) -> tuple[Int[Tensor, "b v"], Int[Tensor, "b m"]]:
    """Ids of the visible and of the hidden patches of each image, both ascending.

    Args:
        noise: a number a patch; those with the smallest stay visible.
        grid: rows and columns of patches.
        unit: rows and columns of patches that go together, by the number of their first one.
        visible: how many patches stay visible, whole units.
    """
    if unit != (1, 1):
        first = noise.unflatten(1, grid)[:, :: unit[0], :: unit[1]]
        noise = first.repeat_interleave(unit[0], 1).repeat_interleave(unit[1], 2).flatten(1)
    seen, hidden = noise.argsort(dim=1).tensor_split([visible], dim=1)
    return seen.sort(dim=1).values, hidden.sort(dim=1).values


def visible_patches(patches: int, mask_ratio: float, unit: int = 1) -> int:
    """How many patches stay visible: int(units · (1 - ratio)) units, by the ratio's decimals and not by a float's.

    Args:
        patches: of an image.
        mask_ratio: share that is hidden.
        unit: how many go together.

    Raises:
        ValueError: nothing would be hidden, or fewer than two patches would be visible.
    """
    units = patches // unit
    visible = unit * int(units * (1 - Fraction(str(mask_ratio)))) if 0 < mask_ratio < 1 else 0
    if not 2 <= visible < patches:
        together = "" if unit == 1 else f", {unit} at a time"
        # Rounded down: a value that is named here must be one that is taken.
        largest = 1000 * (units - max(1, -(-2 // unit))) // units / 1000
        raise ValueError(
            f"mask_ratio={mask_ratio} of {patches} patches{together}: at least one must be hidden and two visible, "
            + (f"so it must be above 0 and at most {largest:g}" if largest > 0 else "for which these are too few")
        )
    return visible


def mask_unit(
    grid: tuple[int, int], patch_size: tuple[int, int], mask_patch_size: tuple[int, int] | None
) -> tuple[int, int]:
    """Rows and columns of patches that are hidden or visible together.

    Args:
        grid: rows and columns of patches.
        patch_size: rows and columns of a patch, pixels.
        mask_patch_size: rows and columns of what goes together, pixels; None for a patch.

    Raises:
        ValueError: patches do not divide it, or it does not divide the image.
    """
    if mask_patch_size is None:
        return 1, 1
    unit = mask_patch_size[0] // patch_size[0], mask_patch_size[1] // patch_size[1]
    whole = all(side % patch == 0 for side, patch in zip(mask_patch_size, patch_size, strict=True))
    if not whole or grid[0] % unit[0] or grid[1] % unit[1]:
        height, width = grid[0] * patch_size[0], grid[1] * patch_size[1]
        raise ValueError(
            f"mask_patch_size={mask_patch_size} on images of {height} x {width} in patches of {patch_size[0]} x "
            f"{patch_size[1]}: must be a multiple of the patch and divide the image"
        )
    return unit
