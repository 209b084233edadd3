"""xFormers' attentions through fewer keys: learned sums, means of segments, and chosen queries."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.attention.nystrom import pseudo_inverse, segment_means
from saccade.attention.orthoformer import orthoformer_attention
from saccade.attention.parts import at_least_float32, without_autocast
from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.masks import AttentionMask, as_added, masked_softmax


class LinformerAttention(Attention):
    """softmax(Q (EK)ᵀ/√e) FV. Repaired: a shorter sequence uses the first columns of E and F, and costs less.

    xFormers filled q, k and v up with zeros, which gives the same values for more work than the whole sequence, and
    dropped values twice: of the weights, and of the output. Here dropout is of the weights.

    Args:
        dropout: of the weights, in training.
        seq_len: tokens of the longest sequence.
        k: sums, that is rows of E and F; by default a quarter of seq_len.
    """

    requires_same_k_q_dimensions: ClassVar[bool] = True

    def __init__(self, dropout: float, seq_len: int, k: int | None = None) -> None:
        super().__init__(dropout)
        self.seq_len = seq_len
        self.k = seq_len // 4 if k is None else k
        if not 0 < self.k < seq_len:
            raise ValueError(
                f"LinformerAttention(seq_len={seq_len}, k={self.k}): k must be 1..{seq_len - 1}; more would be more "
                "work than softmax: take ScaledDotProduct"
            )
        self.E = nn.Linear(seq_len, self.k, bias=False)
        self.F = nn.Linear(seq_len, self.k, bias=False)

    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """Softmax attention to the sums."""
        n = k.shape[1]
        if not self.k < n <= self.seq_len:
            raise ValueError(
                f"LinformerAttention(seq_len={self.seq_len}, k={self.k}) was given {n} tokens: it takes "
                f"{self.k + 1}..{self.seq_len}; fewer would be more work than softmax, for more there are no weights"
            )
        return masked_softmax(q, self.E.weight[:, :n] @ k, self.F.weight[:, :n] @ v, None, self.rate)


class NystromAttention(Attention):
    """softmax(QK̃ᵀ) softmax(Q̃K̃ᵀ)⁺ softmax(Q̃Kᵀ) V, plus a convolution of V. Repaired: masked tokens are as if removed.

    In xFormers masked tokens were zeros in the means of their segments, which were divided by the full length. Refused
    are: landmarks for every token, which it silently made softmax; `causal`, whose masks let later tokens through by
    way of the landmarks; the published start of the pseudo-inverse, with which an image's output depends on its batch
    mates.

    Args:
        dropout: of the output, in training.
        num_heads: heads; the convolution has one kernel each.
        num_landmarks: segments of the sequence.
        landmark_pooling: makes the landmarks of q, and of k, in the place of segment means: (g, n, e) to (g, M, e).
        causal: refused.
        use_razavi_pinverse: False takes torch.linalg.pinv.
        pinverse_original_init: refused.
        inv_iterations: steps towards the pseudo-inverse.
        v_skip_connection: makes what is added of v: (B, H, n, d) to the same.
        conv_kernel_size: where that is not given, the odd length of a depthwise convolution along the tokens; masked
            values are zeros there.
    """

    supports_key_padding_mask: ClassVar[bool] = True
    requires_same_k_q_dimensions: ClassVar[bool] = True

    def __init__(
        self,
        dropout: float,
        num_heads: int,
        num_landmarks: int = 64,
        landmark_pooling: Callable[[Tensor], Tensor] | None = None,
        causal: bool = False,
        use_razavi_pinverse: bool = True,
        pinverse_original_init: bool = False,
        inv_iterations: int = 6,
        v_skip_connection: nn.Module | None = None,
        conv_kernel_size: int | None = None,
    ) -> None:
        super().__init__(dropout)
        if causal:
            raise ValueError(
                "NystromAttention(causal=True): a landmark is a mean over earlier and later tokens, which no mask "
                "undoes; take ScaledDotProduct(causal=True)"
            )
        if pinverse_original_init:
            raise ValueError(
                "NystromAttention(pinverse_original_init=True): the start would be the largest column sum of the whole "
                "batch, and an image's output would depend on its batch mates; leave it out and take twice the "
                "inv_iterations for the same accuracy"
            )
        if num_landmarks < 1 or inv_iterations < 1:
            raise ValueError(
                f"NystromAttention(num_landmarks={num_landmarks}, inv_iterations={inv_iterations}): both must be at "
                "least 1"
            )
        if conv_kernel_size is not None and conv_kernel_size % 2 == 0:
            raise ValueError(f"NystromAttention(conv_kernel_size={conv_kernel_size}): must be odd")
        self.num_heads = num_heads
        self.num_landmarks = num_landmarks
        self.landmark_pooling = landmark_pooling
        self.use_razavi_pinverse = use_razavi_pinverse
        self.inv_iterations = inv_iterations
        self.skip_connection = v_skip_connection
        if v_skip_connection is None and conv_kernel_size is not None:
            size, padding = (conv_kernel_size, 1), (conv_kernel_size // 2, 0)
            self.skip_connection = nn.Conv2d(num_heads, num_heads, size, padding=padding, groups=num_heads, bias=False)

    def attend(
        self,
        q: Float[Tensor, "g n e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g n d"]:
        """K1 (K2⁺ (K3 V)), and beside it the skip connection."""
        if self.num_landmarks >= q.shape[1]:
            raise ValueError(self._too_many(f"{q.shape[1]} tokens"))
        kept = None if key_padding_mask is None else self._kept(key_padding_mask, len(q), q.shape[1])
        q_marks, k_marks = (self._landmarks(x, kept) for x in (q, k))
        mask = None if kept is None else as_added(kept).to(q)[:, None].expand(-1, self.num_landmarks, -1)
        seen = masked_softmax(q_marks, k, v, mask)
        with without_autocast(q.device):
            between = at_least_float32(q_marks * q.shape[-1] ** -0.5) @ at_least_float32(k_marks).mT
            values = self._inverse(between.softmax(-1)) @ at_least_float32(seen)
        y = masked_softmax(q, k_marks, values.to(v.dtype), None)
        if self.skip_connection is not None:
            there = v if kept is None else v * kept[..., None]
            y = y + self.skip_connection(there.unflatten(0, (-1, self.num_heads))).flatten(0, 1)
        return self.attn_drop(y)

    def _inverse(self, matrix: Float[Tensor, "g m m"]) -> Float[Tensor, "g m m"]:
        if self.use_razavi_pinverse:
            return pseudo_inverse(matrix[:, None], self.inv_iterations)[:, 0]
        return torch.linalg.pinv(matrix)

    def _landmarks(self, x: Float[Tensor, "g n e"], kept: Bool[Tensor, "g n"] | None) -> Float[Tensor, "g m e"]:
        if self.landmark_pooling is not None:
            return self.landmark_pooling(x if kept is None else x * kept[..., None])
        if kept is None:
            return segment_means(x[:, None], 0, self.num_landmarks)[:, 0]
        return kept_means(x, kept, self.num_landmarks)

    def _kept(self, mask: Tensor, groups: int, n: int) -> Bool[Tensor, "g n"]:
        """Which tokens are there, for each head of each image, whichever of its forms the mask has."""
        kept = mask if mask.dtype == torch.bool else ~mask.isneginf()
        given = tuple(mask.shape)
        kept = kept[:, 0] if kept.ndim == 3 and kept.shape[1] == 1 else kept
        if kept.ndim != 2 or kept.shape[1] != n or groups % len(kept):
            raise ValueError(
                f"NystromAttention: key_padding_mask of shape {given} for {groups} heads of images of {n} tokens: must "
                f"be (images, {n}) or ({groups}, 1, {n}), True or 0 for what is kept"
            )
        if int(kept.sum(1).min()) <= self.num_landmarks:
            raise ValueError(self._too_many(f"an image with {int(kept.sum(1).min())} unmasked tokens"))
        return kept.repeat_interleave(groups // len(kept), 0)

    def _too_many(self, seen: str) -> str:
        return (
            f"NystromAttention(num_landmarks={self.num_landmarks}) on {seen}: as many landmarks as tokens are softmax "
            "under another name; take fewer landmarks, or ScaledDotProduct"
        )


class LandmarkSelection(StrEnum):
    """How `OrthoFormerAttention` chooses its landmarks."""

    Orthogonal = "orthogonal"
    KMeans = "kmeans"
    KMeans_Spherical = "kmeans_spherical"
    Random = "random"


class OrthoFormerAttention(Attention):
    """softmax(QLᵀ/√e) (softmax(LKᵀ/√e) V), L being queries as unlike as possible. Repaired: the same output each time.

    xFormers started from a query drawn at random, in evaluation too; with as many landmarks as tokens it became
    softmax, with more it ran through all of them for nothing; and it dropped masks with a warning. All but the first of
    these are refused, and so are landmarks drawn at random or out of a random part of the queries, and means of
    clusters, which start from random ones.

    Args:
        dropout: of the output, in training.
        num_landmarks: queries chosen.
        subsample_fraction: 1; refused otherwise.
        landmark_selection: `Orthogonal`; refused otherwise.
    """

    def __init__(
        self,
        dropout: float,
        num_landmarks: int = 32,
        subsample_fraction: float = 1.0,
        landmark_selection: LandmarkSelection | str = LandmarkSelection.Orthogonal,
    ) -> None:
        super().__init__(dropout)
        if num_landmarks < 1:
            raise ValueError(f"OrthoFormerAttention(num_landmarks={num_landmarks}): must be at least 1")
        if subsample_fraction != 1:
            raise ValueError(
                f"OrthoFormerAttention(subsample_fraction={subsample_fraction}): the landmarks would be drawn at "
                "random, in evaluation too; leave it out"
            )
        if LandmarkSelection(landmark_selection) is not LandmarkSelection.Orthogonal:
            raise ValueError(
                f"OrthoFormerAttention(landmark_selection={str(landmark_selection)!r}): the paper's landmarks are "
                '"orthogonal"; leave it out'
            )
        self.num_landmarks = num_landmarks

    def attend(
        self,
        q: Float[Tensor, "g m e"],
        k: Float[Tensor, "g n e"],
        v: Float[Tensor, "g n d"],
        att_mask: Tensor | AttentionMask | None,
        key_padding_mask: Tensor | None,
    ) -> Float[Tensor, "g m d"]:
        """By this layer's number of landmarks."""
        n = q.shape[1]
        if self.num_landmarks >= n:
            raise ValueError(
                f"OrthoFormerAttention(num_landmarks={self.num_landmarks}) on {n} tokens: as many landmarks as tokens "
                "are more work than softmax, and not softmax; take fewer landmarks, or ScaledDotProduct"
            )
        return self.attn_drop(orthoformer_attention(q[:, None], k[:, None], v[:, None], self.num_landmarks)[:, 0])


def kept_means(x: Float[Tensor, "g n e"], kept: Bool[Tensor, "g n"], landmarks: int) -> Float[Tensor, "g m e"]:
    """Means over the segments of the tokens that are kept, as if the others were removed."""
    rank, count = kept.cumsum(1) - 1, kept.sum(1, keepdim=True)
    short, longer = count // landmarks, count % landmarks
    shorter = landmarks - longer
    segment = torch.where(rank < shorter * short, rank // short, shorter + (rank - shorter * short) // (short + 1))
    member = (segment[:, None] == torch.arange(landmarks, device=x.device)[:, None]) & kept[:, None]
    weights = member.to(x) / member.sum(-1, keepdim=True).to(x)
    return weights @ x
