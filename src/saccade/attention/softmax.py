"""Softmax attention: every token looks at every token."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attention.base import MultiHead, Shared
from saccade.attention.explicit import explicit_attention
from saccade.attention.initial import unseeded
from saccade.attention.parts import faster_kernel
from saccade.attention.tokens import Tokens

Kernel = Literal["auto", "sdpa", "explicit"]


class Softmax(MultiHead):
    """Every token looks at every token: softmax(Q Kᵀ / √e) V.

    Args:
        kernel: how the one function is computed. "sdpa" is torch's fused scaled_dot_product_attention, "explicit" is
            product, softmax, product; "auto" takes the faster one for the dtype and device (`kernel_for` says which).
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

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """softmax(Q Kᵀ / √e) V by the kernel that `kernel_for` names."""
        if self.kernel_for(q.dtype, q.device) == "sdpa":
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return explicit_attention(q, k, v)

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
