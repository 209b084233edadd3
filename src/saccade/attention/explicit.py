"""Softmax attention as product, softmax, product: what outruns torch's fused kernel in bf16 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.attention.elsewhere import device_type

# Above the first, all weights together are more than glibc keeps mapped, and every tensor of them costs fresh pages;
# tiles of the second stay in the processor's cache.
WHOLE_BYTES = 32 * 2**20
TILE_BYTES = 2 * 2**20


def explicit_attention(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h m e"]:
    """softmax(Q Kᵀ / √e) V.

    Where the weights of a batch on a CPU exceed `WHOLE_BYTES`, they are computed a few heads at a time and again in
    backward instead of being kept: the same values, 1.9 x faster at 257 tokens, and memory linear in their number.
    """
    q = q * q.shape[-1] ** -0.5
    weights_bytes = q.shape[:-1].numel() * k.shape[-2] * q.element_size()
    if device_type(q.device) != "cpu" or weights_bytes <= WHOLE_BYTES or torch.compiler.is_compiling():
        return torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v
    return _TiledAttention.apply(*(one.flatten(0, 1) for one in (q, k, v))).unflatten(0, q.shape[:2])


class _TiledAttention(torch.autograd.Function):
    """softmax(Q Kᵀ) V for every head of every image, some at a time; differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, q: Float[Tensor, "g m e"], k: Float[Tensor, "g n e"], v: Float[Tensor, "g n e"]
    ) -> Float[Tensor, "g m e"]:
        ctx.save_for_backward(q, k, v)
        y = torch.empty_like(q)
        for q_tile, k_tile, v_tile, y_tile in _tiles(q, k, v, y):
            torch.bmm(_weights(q_tile, k_tile), v_tile, out=y_tile)
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Float[Tensor, "g m e"]
    ) -> tuple[Float[Tensor, "g m e"], Float[Tensor, "g n e"], Float[Tensor, "g n e"]]:
        q, k, v = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for q_tile, k_tile, v_tile, dy_tile, dq_tile, dk_tile, dv_tile in _tiles(q, k, v, dy, dq, dk, dv):
            weights = _weights(q_tile, k_tile)
            torch.bmm(weights.transpose(1, 2), dy_tile, out=dv_tile)
            dweights = dy_tile @ v_tile.transpose(1, 2)
            dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
            torch.bmm(dscores, k_tile, out=dq_tile)
            torch.bmm(dscores.transpose(1, 2), q_tile, out=dk_tile)
        return dq, dk, dv


def _weights(q: Float[Tensor, "g m e"], k: Float[Tensor, "g n e"]) -> Float[Tensor, "g m n"]:
    return torch.softmax(q @ k.transpose(1, 2), dim=-1)


def _tiles(q: Float[Tensor, "g m e"], k: Float[Tensor, "g n e"], *others: Tensor) -> Any:
    """Views of as many heads at a time as `TILE_BYTES` of weights allow."""
    one_head_bytes = q.shape[1] * k.shape[1] * q.element_size()
    heads = max(1, TILE_BYTES // one_head_bytes)
    return zip(*(tensor.split(heads) for tensor in (q, k, *others)), strict=True)
