"""Pure functions that two or more mechanisms share."""

from __future__ import annotations

import contextlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.elsewhere import device_type
from saccade.attention.explicit import explicit_attention
from saccade.attention.tokens import Tokens


def coordinates(tokens: Tokens, patches: Int[Tensor, "*b p"]) -> tuple[Int[Tensor, "*b p"], Int[Tensor, "*b p"]]:
    """Row and column of each patch id on the grid."""
    columns = tokens.grid[1]
    return patches // columns, patches % columns


def visible_ids(
    tokens: Tokens, patches: Int[Tensor, "b p"] | None, device: torch.device | None = None
) -> Int[Tensor, "b p"]:
    """The ids of the patches; where none are given those of the whole grid, once for all images."""
    return torch.arange(tokens.patches, device=device)[None] if patches is None else patches


def rotary_angles(
    tokens: Tokens, patches: Int[Tensor, "b p"] | None, width: int, device: torch.device, temperature: float = 10_000.0
) -> Float[Tensor, "b n f"]:
    """Angles of the 2-D rotary positions, width / 2 a token: first the row's frequencies, then the column's.

    The frequency of pair i of an axis is temperature^(-i / (width / 4)), as in RoFormer (Su et al. 2021,
    https://arxiv.org/abs/2104.09864) applied to both axes, as in timm's RotaryEmbeddingCat. Prefix tokens turn by 0.
    """
    ids = visible_ids(tokens, patches, device)
    quarter = width // 4
    frequencies = temperature ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    rows, columns = coordinates(tokens, ids)
    angles = torch.cat([rows[..., None] * frequencies, columns[..., None] * frequencies], dim=-1)
    return torch.nn.functional.pad(angles, (0, 0, tokens.prefix, 0))


def rotate(x: Float[Tensor, "b h n e"], angles: Float[Tensor, "#b n f"]) -> Float[Tensor, "b h n e"]:
    """Turns each pair of neighbouring channels by its angle, in float32 at least."""
    even, odd = at_least_float32(x).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def faster_kernel(dtype: torch.dtype, device: torch.device) -> str:
    """Either "sdpa" or "explicit": by which the same softmax attention runs faster on tensors of this kind."""
    # torch's fused kernel is slow in bf16 on a CPU: the whole training step is 1.5 x faster without it.
    return "explicit" if device_type(device) == "cpu" and dtype == torch.bfloat16 else "sdpa"


def softmax_attention(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h m e"]:
    """softmax(Q Kᵀ / √e) V by the faster kernel; queries and keys may be landmarks or projections."""
    if faster_kernel(q.dtype, q.device) == "sdpa":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return explicit_attention(q, k, v)


def at_least_float32(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Half precision as float32, anything wider as it is."""
    return x.float() if x.dtype.itemsize < 4 else x


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Where float32 stays float32: autocast would turn what `at_least_float32` returns back."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def onto_grid(x: Float[Tensor, "b p w"], patches: Int[Tensor, "b p"] | None, tokens: Tokens) -> Float[Tensor, "b l w"]:
    """The visible patches at their places on the whole grid, in raster order; zeros where none is."""
    if patches is None:
        return x
    whole = x.new_zeros(x.shape[0], tokens.patches, x.shape[2])
    return whole.scatter(1, patches[..., None].expand_as(x), x)


def off_grid(x: Float[Tensor, "b l w"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "b p w"]:
    """The rows of the visible patches: the way back from `onto_grid`."""
    if patches is None:
        return x
    return x.gather(1, patches[..., None].expand(-1, -1, x.shape[2]))


def resize(maps: Float[Tensor, "c y x"], grid: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """Maps of another size: bilinear, smoothed where they shrink."""
    bilinear = torch.nn.functional.interpolate(maps[None], grid, mode="bilinear", align_corners=False, antialias=True)
    return bilinear[0]


def require_whole(mechanism: str, least: int, **options: object) -> None:
    """Checks that options are whole numbers of at least `least`.

    Raises:
        ValueError: one is not.
    """
    for option, value in options.items():
        if type(value) is not int or value < least:
            raise ValueError(f"{mechanism}({option}={value!r}): {option} must be a whole number of at least {least}")


def by_token(x: Float[Tensor, "b h n e"], width: int, dtype: torch.dtype) -> Float[Tensor, "b h n w"]:
    """Empty, laid out (b, n, h, width) in memory, so that putting the heads side by side copies nothing."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1], width, dtype=dtype).transpose(1, 2)


def require_off(mechanism: str, why: str, **options: bool) -> None:
    """Checks that options which mean nothing to the mechanism are off.

    Raises:
        ValueError: one is on.
    """
    for option, value in options.items():
        if value:
            raise ValueError(f"{mechanism}({option}={value!r}): {option} must be False, for {why}")


def pairs_are_fewer(rows: int, n: int, width: int) -> bool:
    """Whether (Q Kᵀ) V is less work than Q (Kᵀ V), for `rows` queries and n keys of one head's width."""
    return 2 * rows * n < width * (rows + n)
