"""xFormers' attentions that are softmax over some of the pairs: all, a band, around global tokens, random ones."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saccade.attention.global_tokens import global_attention
from saccade.attention.initial import seeded
from saccade.attention.local import local_attention
from saccade.attention.tokens import Tokens
from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.masks import AttentionMask, as_added, causal, for_each_group, masked_softmax


class _Patterned(Attention):
    """softmax(QKᵀ/√e + M) V over the pairs of a pattern; where M or dropout is asked for, over all scores, masked."""

    supports_attention_mask: ClassVar[bool] = True

    @abstractmethod
    def pattern(self, m: int, n: int, device: torch.device) -> Bool[Tensor, "m n"] | None:
        """Which query (row) sees which key (column); None for all."""

    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """The pattern and the mask together."""
        pattern = self.pattern(q.shape[1], k.shape[1], q.device)
        mask = for_each_group(att_mask, q, k)
        if pattern is not None:
            added = as_added(pattern).to(q)[None]
            mask = added if mask is None else mask + added
        return masked_softmax(q, k, v, mask, self.rate)


class ScaledDotProduct(_Patterned):
    """softmax(QKᵀ/√e + M) V. Repaired: a mask for each image acts on its own heads; what sees nothing is 0.

    xFormers repeated masks in the order of the batch though heads lie inside images, so that with more than one image
    they acted on others' heads; a row without any key was NaN.

    Args:
        dropout: of the weights, in training.
        causal: token i sees j ≤ i, whatever their number.
        seq_len: the longest sequence, where `causal` has one.
        to_seq_len: its longest sequence of keys.
    """

    def __init__(
        self, dropout: float = 0.0, causal: bool = False, seq_len: int | None = None, to_seq_len: int | None = None
    ) -> None:
        super().__init__(dropout)
        self.causal = causal
        self.seq_len = seq_len
        self.to_seq_len = to_seq_len or seq_len

    def pattern(self, m: int, n: int, device: torch.device) -> Bool[Tensor, "m n"] | None:
        """All, or what is not later."""
        if not self.causal:
            return None
        for said, count, what in ((self.seq_len, m, "queries"), (self.to_seq_len, n, "keys")):
            if said is not None and count > said:
                raise ValueError(f"ScaledDotProduct of causal sequences of at most {said} {what} was given {count}")
        return causal(m, n, device)


class LocalAttention(_Patterned):
    """softmax(QKᵀ/√e + M) V over |i - j| ≤ window_size // 2, along the sequence. Repaired: a mask can be given at all.

    xFormers could not join its own mask to the user's where the band was more than 30 % of the pairs, which raised a
    TypeError. The band runs along the sequence, as there: a patch's neighbours are those in its row, and cls is none's.
    For images take `local`, whose neighbourhood is two-dimensional and always has the prefix.

    Args:
        dropout: of the weights, in training.
        causal: token i sees i - window_size ≤ j ≤ i.
        window_size: odd, unless causal.
        force_sparsity: chose a kernel, and nothing else; refused.
    """

    requires_same_k_q_dimensions: ClassVar[bool] = True

    def __init__(
        self, dropout: float = 0.0, causal: bool = False, window_size: int = 5, force_sparsity: bool = False
    ) -> None:
        super().__init__(dropout)
        _refuse_sparsity("LocalAttention", force_sparsity)
        if window_size < 1 or (window_size % 2 == 0 and not causal):
            raise ValueError(f"LocalAttention(window_size={window_size}): must be odd and at least 1, unless causal")
        self.causal = causal
        self.window_size = window_size

    @property
    def wing(self) -> int:
        """How far a token sees to one side."""
        return self.window_size if self.causal else self.window_size // 2

    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """By the band alone where nothing else is asked for."""
        if self.causal or self.rate or att_mask is not None or v.shape != q.shape:
            return super().attend(q, k, v, att_mask, key_padding_mask)
        if not 0 < self.wing < q.shape[1] - 1:
            return super().attend(q, k, v, att_mask, key_padding_mask)
        row = Tokens((1, q.shape[1]))
        return local_attention(q[:, None], k[:, None], v[:, None], row, radius=self.wing)[:, 0]

    def pattern(self, m: int, n: int, device: torch.device) -> Bool[Tensor, "m n"]:
        """The band, or its earlier half."""
        place = torch.arange(m, device=device)
        band = (place[:, None] - place).abs() <= self.wing
        return band & causal(m, n, device) if self.causal else band


class GlobalAttention(_Patterned):
    """softmax(QKᵀ/√e + M) V where i or j is global, or i = j. Repaired: causal, the diagonal, shorter sequences.

    In xFormers a token that is not global did not see itself; `causal` made a mask of 1 x 1 and so did nothing; and a
    shorter sequence was filled up with zeros, which then were keys.

    Args:
        dropout: of the weights, in training.
        attention_query_mask: (N, 1), True for tokens that are global; shorter sequences use its beginning.
        causal: token i sees j ≤ i alone.
        force_sparsity: chose a kernel, and nothing else; refused.
    """

    requires_same_k_q_dimensions: ClassVar[bool] = True

    is_global: Tensor

    def __init__(
        self,
        dropout: float,
        attention_query_mask: Tensor,
        causal: bool = False,
        force_sparsity: bool = False,
    ) -> None:
        super().__init__(dropout)
        _refuse_sparsity("GlobalAttention", force_sparsity)
        given = attention_query_mask
        if given.dtype != torch.bool or given.ndim != 2 or given.shape[1] != 1:
            raise ValueError(f"GlobalAttention: attention_query_mask must be Boolean (N, 1), not {given.shape}")
        self.causal = causal
        self.register_buffer("is_global", given[:, 0].clone(), persistent=False)

    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """By the global tokens' rows and columns alone where nothing else is asked for."""
        if q.shape[1] > len(self.is_global):
            raise ValueError(f"GlobalAttention of at most {len(self.is_global)} tokens was given {q.shape[1]}")
        if self.causal or self.rate or att_mask is not None or v.shape != q.shape:
            return super().attend(q, k, v, att_mask, key_padding_mask)
        places = self.is_global[: q.shape[1]].nonzero().T
        there = torch.ones_like(places, dtype=torch.bool)
        return global_attention(q[:, None], k[:, None], v[:, None], 0, places, there)[:, 0]

    def pattern(self, m: int, n: int, device: torch.device) -> Bool[Tensor, "m n"]:
        """Rows and columns of the global tokens, and the diagonal."""
        chosen = self.is_global[:n].to(device)
        pattern = chosen[:, None] | chosen | torch.eye(n, dtype=torch.bool, device=device)
        return pattern & causal(m, n, device) if self.causal else pattern


class RandomAttention(_Patterned):
    """softmax(QKᵀ/√e + M) V over pairs drawn with probability r, and i = j. Repaired: no empty rows; one function.

    xFormers drew from torch's global generator and kept the draw outside the state, so that a loaded model was another
    one, and with few tokens rows were empty: NaN. Here a draw is a function of the seed and of the number of tokens.

    Args:
        dropout: of the weights, in training.
        causal: token i sees j ≤ i alone.
        r: probability that a token sees another, in (0, 1].
        constant_masking: False draws anew at every call in training, from torch's global generator; in eval mode the
            draw is the constant one (in xFormers it was another at every call).
        force_sparsity: chose a kernel, and nothing else; refused.
        seed: of the draw.
    """

    requires_same_k_q_dimensions: ClassVar[bool] = True

    def __init__(
        self,
        dropout: float,
        causal: bool = False,
        r: float = 0.01,
        constant_masking: bool = True,
        force_sparsity: bool = False,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(dropout)
        _refuse_sparsity("RandomAttention", force_sparsity)
        if not 0 < r <= 1:
            raise ValueError(f"RandomAttention(r={r}): r must be above 0 and at most 1")
        self.causal = causal
        self.r = r
        self.constant_masking = constant_masking
        self.seed = seed

    def pattern(self, m: int, n: int, device: torch.device) -> Bool[Tensor, "m n"]:
        """The drawn pairs and the diagonal."""
        if self.constant_masking or not self.training:
            draw = torch.rand(n, n, generator=seeded(self.seed)(f"pairs of {n}"), device="cpu").to(device)
        else:
            draw = torch.rand(n, n, device=device)
        pattern = (draw < self.r) | torch.eye(n, dtype=torch.bool, device=device)
        return pattern & causal(m, n, device) if self.causal else pattern


def _refuse_sparsity(name: str, force_sparsity: bool) -> None:
    if force_sparsity:
        raise ValueError(
            f"{name}(force_sparsity=True): there is no sparse kernel to be forced; leave it out, the result is the same"
        )
