"""Softmax attention: every token looks at every token."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead, Shared
from saccade.attention.crowd import Crowd
from saccade.attention.explicit import explicit_attention
from saccade.attention.folded import folded_attention
from saccade.attention.initial import unseeded
from saccade.attention.parts import faster_kernel
from saccade.attention.tokens import Tokens

Kernel = Literal["auto", "sdpa", "explicit"]


class Softmax(MultiHead):
    """Every token looks at every token: softmax(Q Kᵀ / √e) V.

    Args:
        kernel: how the one function is computed. "sdpa" is torch's fused scaled_dot_product_attention, "explicit" is
            product, softmax, product; "auto" takes the faster one for the dtype and device (`kernel_for` says which),
            and where few rows are wanted (`folds` says when) it projects no keys and values.
    """

    paper = "Vaswani et al. 2017, https://arxiv.org/abs/1706.03762"
    cost = "N² D"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "always"
    each_query_alone: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        kernel: Kernel = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        if kernel not in ("auto", "sdpa", "explicit"):
            raise ValueError(f'softmax(kernel={kernel!r}): kernel must be "auto", "sdpa" or "explicit"')
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.kernel = kernel
        self.reset_parameters(unseeded)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
        crowd: Crowd | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Projects, mixes, projects back; see `Attention.forward`.

        Args:
            x: as there.
            patches: as there.
            outputs: as there.
            crowd: tokens that stand for several patches count as many; it is told the keys, unless few rows are wanted.
        """
        count = x.shape[1]
        if outputs is None or not self.folds(len(range(*outputs.indices(count))), count):
            if crowd is None:
                return super().forward(x, patches, outputs)
            q, k, v = self.split(x, patches, outputs)
            crowd.keys = k.mean(dim=1)
            return self.merge(self._mix(q, k, v, crowd.bias(q.dtype)))
        weight_q, weight_k, weight_v = self.qkv.weight.chunk(3)
        bias_q, _, bias_v = (None, None, 0.0) if self.qkv.bias is None else self.qkv.bias.chunk(3)
        q = self._heads(torch.nn.functional.linear(x[:, outputs], weight_q, bias_q))
        bias = None if crowd is None else crowd.bias(q.dtype)
        return self.proj(folded_attention(q, x, weight_k, weight_v, bias).transpose(1, 2).flatten(2) + bias_v)

    def folds(self, rows: int, count: int) -> bool:
        """Whether so few wanted rows of `count` are computed without keys and values: where that is less work."""
        if self.kernel != "auto" or self.rope or not isinstance(self.k_norm, torch.nn.Identity):
            return False
        less = rows * (self.dim + count * (self.num_heads - 1)) < count * self.dim
        # Somebody's subclass mixes otherwise.
        return less and type(self).mix is Softmax.mix

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """softmax(Q Kᵀ / √e) V by the kernel that `kernel_for` names."""
        return self._mix(q, k, v, None)

    def _mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        bias: Float[Tensor, "b 1 1 n"] | None,
    ) -> Float[Tensor, "b h m e"]:
        if self.kernel_for(q.dtype, q.device) == "sdpa":
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        if bias is None:
            return explicit_attention(q, k, v)
        return torch.softmax(q * self.head_dim**-0.5 @ k.transpose(-2, -1) + bias, dim=-1) @ v

    def kernel_for(self, dtype: torch.dtype, device: torch.device) -> str:
        """The kernel that runs for tensors of this kind."""
        if self.kernel != "auto":
            return self.kernel
        return faster_kernel(dtype, device)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The weights exp(q·k / √e), divided by their sum over the keys."""
        weights = torch.einsum("bhie,bhje->bhij", q, k).div(self.head_dim**0.5).exp()
        return torch.einsum("bhij,bhje->bhie", weights / weights.sum(-1, keepdim=True), v)

    def flops(self, patches: int, rows: int | None = None) -> int:
        """As of every `MultiHead`, or four products of D x D for a row and two of N x D for each head of it."""
        count = self.tokens.prefix + patches
        if rows is None or not self.folds(rows, count):
            return super().flops(patches, rows)
        return rows * (8 * self.dim**2 + 4 * count * self.num_heads * self.dim)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Two products of rows x N x D."""
        return 4 * rows * (self.tokens.prefix + patches) * self.dim

    @property
    def mix_order_free(self) -> bool:
        """Softmax sees a set."""
        return True

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """It is softmax."""
        return {}
