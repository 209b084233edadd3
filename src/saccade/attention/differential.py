"""Differential attention: what two attention maps have in common is taken away."""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, fill_normal, unseeded
from saccade.attention.parts import at_least_float32, rotary_angles, rotate, without_autocast
from saccade.attention.renormed import project
from saccade.attention.tokens import Tokens

# Of the normalisation, in the paper's code and in timm's.
EPSILON = 1e-5

_VECTORS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


class Differential(MultiHead):
    """The difference of two attention maps: (softmax(Q₁K₁ᵀ/√(e/2)) - λ softmax(Q₂K₂ᵀ/√(e/2))) V, normalised.

    Q₁ and Q₂ are the halves of a head's Q, likewise K; V keeps the head's width e. λ = exp(λq₁·λk₁) - exp(λq₂·λk₂) + λ₀
    is learned and λ₀ = 0.8 - 0.6 exp(-0.3 layer) is not. Each head's output is divided by its root mean square
    (RMSNorm) and multiplied by 1 - λ₀. Rows of the difference sum to 1 - λ and may hold negative weights. The paper
    compares h such heads with softmax of 2h, whose queries and keys are as wide.

    Args:
        dual: λ = exp(λa) - exp(λb) + λ₀ of two learned numbers, instead of four learned vectors.
    """

    paper = "Ye et al. 2024, https://arxiv.org/abs/2410.05258"
    cost = "N² D"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "never"
    each_query_alone: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        dual: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        if self.head_dim % 2:
            raise ValueError(
                f"differential with heads of width {self.head_dim} ({dim} / {num_heads}): needs an even width, since "
                "queries and keys are cut into halves"
            )
        self.half_dim = self.head_dim // 2
        if self.rope and self.half_dim % 4:
            raise ValueError(
                f"differential(rope=True) with heads of width {self.head_dim} ({dim} / {num_heads}): needs a multiple "
                "of 8, since each half has rotary positions of its own"
            )
        if isinstance(self.q_norm, nn.LayerNorm):
            self.q_norm, self.k_norm = (nn.LayerNorm(self.half_dim, eps=1e-6) for _ in range(2))
        self.dual = dual
        if dual:
            self.lambda_a, self.lambda_b = (nn.Parameter(torch.empty(())) for _ in range(2))
        else:
            for name in _VECTORS:
                self.register_parameter(name, nn.Parameter(torch.empty(self.half_dim)))
        self.sub_norm = nn.RMSNorm(self.head_dim, eps=EPSILON)
        self.reset_parameters(unseeded)

    @property
    def lambda_0(self) -> float:
        """What λ starts near: 0.2 in the first layer, towards 0.8 in the last."""
        return 0.8 - 0.6 * math.exp(-0.3 * self.layer)

    def lambda_(self) -> Float[Tensor, ""]:
        """λ, one number for all heads, in float32 at least."""
        if self.dual:
            first, second = at_least_float32(self.lambda_a), at_least_float32(self.lambda_b)
        else:
            q1, k1, q2, k2 = (at_least_float32(self.get_parameter(name)) for name in _VECTORS)
            first, second = (q1 * k1).sum(), (q2 * k2).sum()
        return first.exp() - second.exp() + self.lambda_0

    def split(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None, outputs: slice | None = None
    ) -> tuple[Float[Tensor, "b h m e"], Float[Tensor, "b h n e"], Float[Tensor, "b h n e"]]:
        """As MultiHead's, but each half of a query and of a key is normalised and rotated by itself."""
        if outputs is None:
            q, k, v = (self._heads(y) for y in project(self.qkv, x).chunk(3, dim=-1))
        else:
            q, k, v = self._split_rows(x, outputs)
        if isinstance(self.q_norm, nn.LayerNorm):
            q, k = (norm(halves(y)).flatten(3) for norm, y in ((self.q_norm, q), (self.k_norm, k)))
        if self.rope:
            angles = rotary_angles(self.tokens, patches, self.half_dim, x.device)
            q = torch.cat([rotate(y, angles if outputs is None else angles[:, outputs]) for y in q.chunk(2, -1)], -1)
            k = torch.cat([rotate(y, angles) for y in k.chunk(2, -1)], -1)
        return q, k, v

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """The difference, normalised head by head."""
        y = differential_attention(q, k, v, self.lambda_())
        with without_autocast(q.device):
            weight = at_least_float32(self.sub_norm.weight) * (1 - self.lambda_0)
            return nn.functional.rms_norm(at_least_float32(y), (self.head_dim,), weight, EPSILON).to(v.dtype)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Two softmax attentions, one after the other, and the norm spelled out."""
        y = torch.zeros_like(v)
        for half, sign in ((slice(None, self.half_dim), 1.0), (slice(self.half_dim, None), -self.lambda_())):
            weights = torch.einsum("bhie,bhje->bhij", q[..., half], k[..., half]).div(self.half_dim**0.5).exp()
            y = y + sign * torch.einsum("bhij,bhje->bhie", weights / weights.sum(-1, keepdim=True), v)
        root = (y.square().sum(-1, keepdim=True) / self.head_dim + EPSILON).sqrt()
        return (1 - self.lambda_0) * self.sub_norm.weight * (y / root)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Two maps of half the width are one of the whole; their difference meets V once."""
        return 4 * rows * (self.tokens.prefix + patches) * self.dim

    @property
    def mix_order_free(self) -> bool:
        """Both maps see a set."""
        return True

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; vectors normal of 0.1, or both numbers 0; ones for the norm."""
        super().reset_parameters(generator_of)
        if self.dual:
            nn.init.zeros_(self.lambda_a)
            nn.init.zeros_(self.lambda_b)
        else:
            for name in _VECTORS:
                fill_normal(self.get_parameter(name), generator_of(name), 0.1)
        self.sub_norm.reset_parameters()


def differential_attention(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n w"], lambda_: float | Tensor
) -> Float[Tensor, "b h m w"]:
    """(A₁ - λA₂) V, where A_c is the softmax attention map of the c-th halves of Q and K; not normalised yet."""
    with without_autocast(q.device):
        # Scores of half precision would drown what is left where the maps are nearly equal, and the gradient of λ.
        q, k = (at_least_float32(halves(y)).transpose(2, 3) for y in (q, k))
        first, second = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1).unbind(2)
        return (first - lambda_ * second).to(v.dtype) @ v


def halves(y: Float[Tensor, "b h n e"]) -> Float[Tensor, "b h n 2 half"]:
    """The two halves of each head's width."""
    return y.unflatten(-1, (2, -1))
