"""Pure functions that two or more mechanisms share."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.tokens import Tokens


def coordinates(tokens: Tokens, patches: Int[Tensor, "*b p"]) -> tuple[Int[Tensor, "*b p"], Int[Tensor, "*b p"]]:
    """Row and column of each patch id on the grid."""
    columns = tokens.grid[1]
    return patches // columns, patches % columns


def rotary_angles(
    tokens: Tokens, patches: Int[Tensor, "b p"] | None, width: int, device: torch.device, temperature: float = 10_000.0
) -> Float[Tensor, "b n f"]:
    """Angles of the 2-D rotary positions, width / 2 a token: first the row's frequencies, then the column's.

    The frequency of pair i of an axis is temperature^(-i / (width / 4)), as in RoFormer (Su et al. 2021,
    https://arxiv.org/abs/2104.09864) applied to both axes, as in timm's RotaryEmbeddingCat. Prefix tokens turn by 0.
    """
    ids = torch.arange(tokens.patches, device=device)[None] if patches is None else patches
    quarter = width // 4
    frequencies = temperature ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    rows, columns = coordinates(tokens, ids)
    angles = torch.cat([rows[..., None] * frequencies, columns[..., None] * frequencies], dim=-1)
    return torch.nn.functional.pad(angles, (0, 0, tokens.prefix, 0))


def rotate(x: Float[Tensor, "b h n e"], angles: Float[Tensor, "#b n f"]) -> Float[Tensor, "b h n e"]:
    """Turns each pair of neighbouring channels by its angle, in float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
