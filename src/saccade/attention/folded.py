"""Softmax attention of a few queries without keys and values: their projections are folded into query and output."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def folded_attention(
    q: Float[Tensor, "b h m e"],
    x: Float[Tensor, "b n w"],
    weight_k: Float[Tensor, "w w"],
    weight_v: Float[Tensor, "w w"],
    bias: Float[Tensor, "b 1 1 n"] | None = None,
) -> Float[Tensor, "b h m e"]:
    """softmax(Q (X W_kᵀ)ᵀ / √e + bias) X W_vᵀ, multiplied from the other side: 4 m N H D operations, not 4 N D².

    The bias of the keys is left out, since it adds the same number to all scores of a query; that of the values is the
    caller's to add, since the weights of a query sum to one.
    """
    b, h, m, e = q.shape
    by_head = (q * e**-0.5).transpose(0, 1).flatten(1, 2)
    directions = (by_head @ weight_k.unflatten(0, (h, e))).unflatten(1, (b, m)).transpose(0, 1).flatten(1, 2)
    scores = directions @ x.transpose(1, 2)
    seen = torch.softmax(scores if bias is None else scores + bias[:, 0], dim=-1) @ x
    by_head = seen.unflatten(1, (h, m)).transpose(0, 1).flatten(1, 2)
    return (by_head @ weight_v.unflatten(0, (h, e)).transpose(1, 2)).unflatten(1, (b, m)).transpose(0, 1)
