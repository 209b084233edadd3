"""Cross-covariance attention: channels look at channels, by how alike they are over the tokens."""

from __future__ import annotations

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, unseeded
from saccade.attention.parts import at_least_float32, require_off, without_autocast
from saccade.attention.tokens import Tokens

# torch.nn.functional.normalize's: a channel of zeros stays zero.
EPSILON = 1e-12


class XCA(MultiHead):
    """Channels look at channels, by how alike they are over the tokens: V softmax(τ Q̂ᵀK̂)ᵀ for each head.

    Q̂ and K̂ are Q and K divided by the norm of each channel over the visible tokens; the softmax runs over the channels
    of K. τ multiplies and is learned, one a head, from 1; it has one axis, so weight decay leaves it alone. XCiT's own
    blocks add a convolution between patches ("local patch interaction"), which is no part of the attention: without it,
    tokens meet only through the e x e weights.
    """

    paper = "El-Nouby et al. 2021, https://arxiv.org/abs/2106.09681"
    cost = "N D² / H"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "never"

    def __init__(self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, **shared: Unpack[Shared]) -> None:
        why = "it compares channels over the tokens, and normalises them itself"
        require_off("xca", why, rope=shared.get("rope", False), qk_norm=shared.get("qk_norm", False))
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.temperature = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The function below; it sees a set."""
        return xca_attention(q, k, v, self.temperature)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Normalised channels, their products, and the softmax as quotients."""
        q, k = (nn.functional.normalize(x, dim=2, eps=EPSILON) for x in (q, k))
        weights = (self.temperature[:, None, None] * torch.einsum("bhna,bhnc->bhac", q, k)).exp()
        return torch.einsum("bhac,bhnc->bhna", weights / weights.sum(-1, keepdim=True), v)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Two products of N x e x e for each head."""
        return 4 * (self.tokens.prefix + patches) * self.head_dim * self.dim

    @property
    def mix_order_free(self) -> bool:
        """Sums over the tokens have no order."""
        return True

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; τ = 1."""
        super().reset_parameters(generator_of)
        nn.init.ones_(self.temperature)


def xca_attention(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    temperature: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """V softmax(τ Q̂ᵀK̂)ᵀ with the norms over the tokens; norms and sums over tokens in float32 at least.

    `temperature` is τ, one a head; None means 1.
    """
    with without_autocast(q.device):
        wide_q, wide_k = at_least_float32(q), at_least_float32(k)
        # The products are divided instead of the factors: e x e numbers instead of N x e.
        norms = _norms(wide_q).mT * _norms(wide_k)
        scores = wide_q.mT @ wide_k / norms
        if temperature is not None:
            scores = scores * at_least_float32(temperature)[:, None, None]
        weights = scores.softmax(-1).to(v.dtype)
        return v @ weights.mT


def _norms(x: Float[Tensor, "b h n e"]) -> Float[Tensor, "b h 1 e"]:
    return x.norm(dim=-2, keepdim=True).clamp_min(EPSILON)
