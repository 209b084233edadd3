"""The masks of xFormers' attentions: boolean with True for what is kept, or added to the scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.attention.parts import softmax_attention


@dataclass(frozen=True)
class AttentionMask:
    """What is added to the scores: 0 keeps, -inf forbids, anything between is a bias.

    Args:
        values: (m, n), or one such for each head of each image.
        is_causal: nothing asks; kept for its name.
    """

    values: Float[Tensor, "*g m n"]
    is_causal: bool = False

    @classmethod
    def from_bool(cls, x: Bool[Tensor, "*g m n"]) -> AttentionMask:
        """The mask that keeps what is True."""
        return cls(as_added(x))

    @classmethod
    def make_causal(
        cls,
        seq_len: int,
        to_seq_len: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> AttentionMask:
        """The mask that keeps token j for token i where j ≤ i."""
        return cls(as_added(causal(seq_len, to_seq_len or seq_len, device)).to(dtype), is_causal=True)

    def to_bool(self) -> Bool[Tensor, "*g m n"]:
        """True where something is kept."""
        return ~self.values.isneginf()

    def __add__(self, other: AttentionMask) -> AttentionMask:
        return AttentionMask(self.values + other.values)


def causal(m: int, n: int, device: torch.device | None = None) -> Bool[Tensor, "m n"]:
    """Token i (row) sees token j (column) where j ≤ i."""
    return torch.ones(m, n, dtype=torch.bool, device=device).tril()


def as_added(mask: Bool[Tensor, "*g"] | Float[Tensor, "*g"]) -> Float[Tensor, "*g"]:
    """-inf where a boolean mask is False and 0 elsewhere; a mask that is added as it is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))


def for_each_group(
    mask: Tensor | AttentionMask | None, q: Float[Tensor, "g m e"], k: Float[Tensor, "g n e"]
) -> Float[Tensor, "#g m n"] | None:
    """The mask as what is added to the scores of each group, that is of each head of each image.

    Raises:
        ValueError: its shape does not fit.
    """
    if mask is None:
        return None
    values = as_added(mask.values if isinstance(mask, AttentionMask) else mask).to(q)
    given = tuple(values.shape)
    groups, m, n = len(q), q.shape[1], k.shape[1]
    values = values.flatten(0, -3) if values.ndim > 3 else values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[1:] != (m, n) or groups % len(values):
        raise ValueError(
            f"att_mask of shape {given} for {groups} heads of images, {m} queries and {n} keys: must be ({m}, {n}), or "
            f"one such for each image or for each head of each image"
        )
    # Heads lie inside images: the mask of an image is that of its heads, which are neighbours.
    return values if len(values) == 1 else values.repeat_interleave(groups // len(values), 0)


def masked_softmax(
    q: Float[Tensor, "g m e"],
    k: Float[Tensor, "g n e"],
    v: Float[Tensor, "g n d"],
    mask: Float[Tensor, "#g m n"] | None,
    dropout: float = 0.0,
) -> Float[Tensor, "g m d"]:
    """softmax(QKᵀ/√e + M) V; a query that may see nothing gets 0, not NaN."""
    if mask is None and not dropout and v.shape == k.shape:
        return softmax_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    if mask is None:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    blind = mask.isneginf().all(-1, keepdim=True)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask.masked_fill(blind, 0), dropout)
    return y.masked_fill(blind, 0)
