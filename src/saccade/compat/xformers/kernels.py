"""xFormers' attentions without a weight for each pair, and those whose weights are no softmax."""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.fourier import real_part
from saccade.attention.parts import at_least_float32, without_autocast
from saccade.attention.performer import performer_attention, random_features
from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.masks import AttentionMask


class FeatureMapType(StrEnum):
    """What stands for the exponential in `FavorAttention`."""

    SMOrf = "sm_orf"
    SMHyp = "sm_hyp"
    SMReg = "sm_reg"


class FavorAttention(Attention):
    """φ(Q)(φ(K)ᵀV) / (φ(Q)·Σφ(K)) with positive orthogonal random features. Repaired: unbiased, and saved.

    xFormers made rows of the wrong length orthogonal, put its ε inside the exponential and none into the denominator,
    summed causally along the channels instead of the tokens, counted calls for the redraw in evaluation too, and kept
    the features outside the state, so that a loaded model was another function. SMReg, its default, was off by half of
    the kernel and more, and further with more features; SMHyp by a few per cent where features are few. Both are
    refused.

    Args:
        causal: refused.
        dropout: of the output, in training.
        dim_features: features; by default e (1 + log2 e) rounded up, made even.
        dim_head: width e of a head; needed, since ω is drawn when the layer is built. It is the buffer `omega`.
        iter_before_redraw: refused; call `redraw` between training steps.
        feature_map_type: `SMOrf`, the one that there is.
        normalize_inputs: refused.
    """

    omega: Tensor

    def __init__(
        self,
        causal: bool = False,
        dropout: float = 0.0,
        dim_features: int | None = None,
        dim_head: int | None = None,
        iter_before_redraw: int | None = None,
        feature_map_type: FeatureMapType | str = FeatureMapType.SMOrf,
        normalize_inputs: bool = False,
    ) -> None:
        super().__init__(dropout)
        if causal:
            raise ValueError("FavorAttention(causal=True) is not offered: take ScaledDotProduct(causal=True)")
        if iter_before_redraw is not None:
            raise ValueError(
                f"FavorAttention(iter_before_redraw={iter_before_redraw}): a layer that counts its calls is another "
                "function after each evaluation; call redraw() between training steps instead"
            )
        if FeatureMapType(feature_map_type) is not FeatureMapType.SMOrf:
            raise ValueError(
                f"FavorAttention(feature_map_type={str(feature_map_type)!r}): its weights are biased; leave it out"
            )
        if normalize_inputs:
            raise ValueError(
                "FavorAttention(normalize_inputs=True): the largest exponent is always taken out; leave it out"
            )
        if dim_head is None:
            raise ValueError(
                "FavorAttention needs dim_head, the width of a head: its features are drawn when it is built, and "
                "saved with it"
            )
        self.dim_features = 2 * (math.ceil(dim_head * (1 + math.log2(dim_head))) // 2)
        if dim_features is not None:
            self.dim_features = dim_features
        if self.dim_features < 1:
            raise ValueError(f"FavorAttention(dim_features={self.dim_features}): must be at least 1")
        self.register_buffer("omega", torch.empty(self.dim_features, dim_head))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draws the features anew, from torch's global generator where none is given."""
        if not self.omega.is_meta:
            rows, width = self.omega.shape
            self.omega.copy_(random_features(rows, width, 0, generator or torch.default_generator))

    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """By the features of this layer's ω."""
        if q.shape[-1] != self.omega.shape[1]:
            raise ValueError(f"FavorAttention(dim_head={self.omega.shape[1]}) was given heads of width {q.shape[-1]}")
        return self.attn_drop(performer_attention(q[:, None], k[:, None], v[:, None], self.omega)[:, 0])


class FourierMix(Attention):
    """Re(F_tokens(F_channels(Q))), the transform divided by nothing, as in FNet; k and v are not looked at.

    The same function as in xFormers, in half precision too: there autocast was switched off on CUDA alone. Its values
    grow by the root of half the number of tokens and channels: `fourier`, whose default keeps their size, is the better
    choice in a pre-norm block.

    Args:
        dropout: of the output, in training.
    """

    requires_input_projection = False

    def __init__(self, dropout: float) -> None:
        super().__init__(dropout)

    def attend(
        self,
        q: Float[Tensor, "g n e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n e"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g n e"]:
        """One transform of each head."""
        with without_autocast(q.device):
            y = real_part(at_least_float32(q)[:, :, None], (1,), "backward")[:, :, 0]
        return self.attn_drop(y.to(q.dtype))


class LambdaLayer(Attention):
    """(λᶜ + λᵖ_n)ᵀ q_n, λᶜ = softmax(K)ᵀ V over the tokens, λᵖ_n = Σ_m E_(m-n) v_mᵀ. Repaired: λᵖ sums over the tokens.

    In xFormers λᵖ_n held v_n alone, times the sum of all E: no token saw another by its place. Its keys were a softmax
    over their channels instead of over the tokens, a sequence of one token lost dimensions, and all λᵖ were formed.
    Queries are not normalised, as there, and the places are those in the sequence; `lambda` is the paper's layer for
    images.

    Args:
        dropout: of the output, in training.
        seq_len: tokens of the longest sequence.
        dim_head: width of a head.
    """

    requires_same_k_q_dimensions = True

    def __init__(self, dropout: float, seq_len: int, dim_head: int) -> None:
        super().__init__(dropout)
        self.seq_len = seq_len
        self.rel_pos_emb = nn.Parameter(torch.randn(2 * seq_len - 1, dim_head))

    def attend(
        self,
        q: Float[Tensor, "g n e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g n d"]:
        """The content by one matrix for all tokens, the positions by one number for each pair of them."""
        n = q.shape[1]
        if n > self.seq_len:
            raise ValueError(f"LambdaLayer(seq_len={self.seq_len}) was given {n} tokens")
        content = q @ (k.softmax(1).mT @ v)
        place = torch.arange(n, device=q.device)
        of_pairs = self.rel_pos_emb[place - place[:, None] + self.seq_len - 1]
        return self.attn_drop(content + torch.einsum("gne,nme->gnm", q, of_pairs) @ v)
