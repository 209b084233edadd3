"""What all of xFormers' attentions have: the call with q, k and v, and flags that say what it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from saccade.compat.xformers.masks import AttentionMask


class Attention(nn.Module, ABC):
    """An attention that is given q, k and v: (B · H, N, e) with heads folded into the batch, or (B, H, N, e).

    A head of an image is a group. Where the folded form is used, the heads of an image are neighbours.

    Args:
        dropout: probability with which a weight (or a value of the output, as the class says) is dropped in training.
    """

    supports_attention_mask: ClassVar[bool] = False
    """It takes `att_mask`."""
    supports_key_padding_mask: ClassVar[bool] = False
    """It takes `key_padding_mask`."""
    requires_same_k_q_dimensions: ClassVar[bool] = False
    """Queries and keys must be of one number of tokens."""
    requires_input_projection: ClassVar[bool] = True
    """`MultiHeadDispatch` projects what it gives."""
    requires_skip_multi_head: ClassVar[bool] = False
    """`MultiHeadDispatch` gives it whole tokens, and hands on what it returns."""
    requires_squared_context: ClassVar[bool] = False
    """The tokens are a square grid."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"{type(self).__name__}(dropout={dropout}): dropout must be in [0, 1)")
        self.attn_drop = nn.Dropout(dropout)

    @property
    def rate(self) -> float:
        """The dropout of now: none in eval mode."""
        return self.attn_drop.p if self.training else 0.0

    @abstractmethod
    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """What the mechanism does; a mask is there only where its flag says that it is taken."""

    def forward(
        self,
        q: Float[Tensor, "*q"],
        k: Float[Tensor, "*k"] | None = None,
        v: Float[Tensor, "*v"] | None = None,
        att_mask: Tensor | AttentionMask | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Float[Tensor, "*y"]:
        """Attends; k defaults to q, and v to k.

        Raises:
            ValueError: shapes that do not fit, or a mask that this attention does not take.
        """
        name = type(self).__name__
        k = q if k is None else k
        v = k if v is None else v
        if q.ndim not in (3, 4):
            raise ValueError(f"{name}: q must be (heads of images, tokens, e) or (B, H, tokens, e), not {q.shape}")
        if k.shape[:-1] != v.shape[:-1] or k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
            raise ValueError(f"{name}: q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit")
        if self.requires_same_k_q_dimensions and q.shape[-2] != k.shape[-2]:
            raise ValueError(f"{name}: as many keys as queries are needed, not {k.shape[-2]} for {q.shape[-2]}")
        if att_mask is not None and not self.supports_attention_mask:
            raise ValueError(f"{name} takes no att_mask: it never forms the weights that a mask would act on")
        if key_padding_mask is not None and not self.supports_key_padding_mask:
            instead = ": give att_mask=key_padding_mask[:, None, :].expand(-1, queries, -1)"
            raise ValueError(
                f"{name} takes no key_padding_mask{instead if self.supports_attention_mask else ': leave the keys out'}"
            )
        if q.ndim == 3:
            return self.attend(q, k, v, att_mask, key_padding_mask)
        groups = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        return self.attend(*groups, att_mask, key_padding_mask).unflatten(0, q.shape[:2])
