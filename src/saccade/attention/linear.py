"""Linear attention: the keys and values are summed once, so cost grows with N instead of N²."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.attention.base import MultiHead, Shared
from saccade.attention.elsewhere import device_type, in_turn
from saccade.attention.initial import unseeded
from saccade.attention.parts import at_least_float32, by_token, without_autocast
from saccade.attention.tokens import Tokens

# idiap/fast-transformers, attention/linear_attention.py.
EPSILON = 1e-6

# Values of q in a tile: with its neighbours it stays in a core's cache, which is 1.4-2 x faster than one pass.
_TILE_VALUES = 2**18


class Linear(MultiHead):
    """Keys and values are summed once: φ(Q)(φ(K)ᵀV) / (φ(Q)·Σφ(K) + ε) with φ = elu + 1 and no 1/√e."""

    paper = "Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236"
    cost = "N D² / H"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "never"
    each_query_alone: ClassVar[bool] = True

    def __init__(self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, **shared: Unpack[Shared]) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """The cheaper of the two orders of the same three products, sums in float32."""
        with without_autocast(q.device):
            if self._pair_flops(q.shape[2], k.shape[2]) < self._state_flops(q.shape[2], k.shape[2]):
                return by_pairs(q, k, v)
            # A compiler fuses the plain formula by itself, and cannot tile a batch whose size it does not know.
            return by_state(q, k, v) if torch.compiler.is_compiling() else _ByState.apply(q, k, v)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Every weight φ(q_i)·φ(k_j), divided by the sum of its row."""
        q, k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
        weights = torch.einsum("bhie,bhje->bhij", q, k)
        return torch.einsum("bhij,bhje->bhie", weights / (weights.sum(-1, keepdim=True) + EPSILON), v)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Of the cheaper order."""
        n = self.tokens.prefix + patches
        return min(self._pair_flops(rows, n), self._state_flops(rows, n))

    def _pair_flops(self, rows: int, n: int) -> int:
        return 4 * rows * n * self.dim

    def _state_flops(self, rows: int, n: int) -> int:
        return 2 * self.dim * (self.head_dim * (n + rows) + rows)

    @property
    def mix_order_free(self) -> bool:
        """A sum has no order."""
        return True


def feature(x: Float[Tensor, "*b n e"]) -> Float[Tensor, "*b n e"]:
    """φ(x) = elu(x) + 1, in float32 at least."""
    # Contiguous at once: products copy otherwise, and torch 2.13 compiles an elu of heads with wrong strides.
    return torch.nn.functional.elu(at_least_float32(x).contiguous()).add_(1)


def by_pairs(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h m e"]:
    """(φ(Q)φ(K)ᵀ) V: cheaper than `by_state` where there are fewer tokens than channels in a head."""
    weights = feature(q) @ feature(k).transpose(-2, -1)
    return (weights @ at_least_float32(v) / (weights.sum(-1, keepdim=True) + EPSILON)).to(v.dtype)


def by_state(
    q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h m e"]:
    """φ(Q) (φ(K)ᵀV)."""
    q, k, v, dtype = feature(q), feature(k), at_least_float32(v), v.dtype
    return (q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2).unsqueeze(-1) + EPSILON)).to(dtype)


class _ByState(torch.autograd.Function):
    """`by_state` a few images at a time: for the backward pass it keeps only q, k, v and its own output.

    Per head, with S = φ(K)ᵀV, z = Σφ(K) and d = φ(Q)·z + ε the output is y = φ(Q)S / d. With g = ∂/∂y / d and
    c = -(g·y) the gradients are (gSᵀ + c zᵀ) φ'(Q) for Q, (V(φ(Q)ᵀg)ᵀ + (φ(Q)ᵀc)ᵀ) φ'(K) for K, and φ(K)(φ(Q)ᵀg) for V.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Float[Tensor, "b h m e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
    ) -> Float[Tensor, "b h m e"]:
        wide = torch.promote_types(q.dtype, torch.float32)
        y = by_token(q, q.shape[3], v.dtype)
        state = k.new_empty(*k.shape[:2], k.shape[3], v.shape[3], dtype=wide)
        total = k.new_empty(*k.shape[:2], k.shape[3], 1, dtype=wide)
        divisor = q.new_empty(*q.shape[:3], 1, dtype=wide)
        for few in in_turn(_tiles(k), k, (y, state, total, divisor)):
            features = feature(k[few])
            state[few] = features.transpose(-2, -1) @ at_least_float32(v[few])
            total[few] = features.sum(-2).unsqueeze(-1)
            features = feature(q[few])
            divisor[few] = features @ total[few] + EPSILON
            y[few] = (features @ state[few]).div_(divisor[few])
        ctx.save_for_backward(q, k, v, y, state, total, divisor)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "b h m e"]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, y, state, total, divisor = ctx.saved_tensors
        to_q, to_k, to_v = (by_token(x, x.shape[3], x.dtype) for x in (q, k, v))
        with without_autocast(q.device):
            for few in in_turn(_tiles(k), k, (to_q, to_k, to_v)):
                g = at_least_float32(gradient[few]) / divisor[few]
                c = -(g * y[few]).sum(-1, keepdim=True)
                features = feature(q[few])
                to_state = features.transpose(-2, -1) @ g
                to_total = features.transpose(-2, -1) @ c
                through = (g @ state[few].transpose(-2, -1)).add_(c * total[few].transpose(-2, -1))
                to_q[few] = through.mul_(_slope(features))
                features = feature(k[few])
                to_v[few] = features @ to_state
                through = (at_least_float32(v[few]) @ to_state.transpose(-2, -1)).add_(to_total.transpose(-2, -1))
                to_k[few] = through.mul_(_slope(features))
        return to_q, to_k, to_v


def _tiles(k: Float[Tensor, "b h n e"]) -> Iterator[slice]:
    """Images at a time: few on a CPU, for its cache; all on anything else, which has to be launched."""
    few = max(1, _TILE_VALUES // k.shape[1:].numel()) if device_type(k.device) == "cpu" else len(k)
    return (slice(start, start + few) for start in range(0, len(k), few))


def _slope(features: Float[Tensor, "b h n e"]) -> Float[Tensor, "b h n e"]:
    """φ'(x) from φ(x), in place: e^x is its own slope below 0, and above it is 1."""
    return features.clamp_(max=1)
