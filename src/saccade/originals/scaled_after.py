"""Original 003's attention as somebody's class: scaled behind its softmax, masked by a missing method."""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import unseeded
from saccade.attention.tokens import Tokens


class ScaledAfter(MultiHead):
    """softmax(Q Kᵀ) / √D V, which its author took for softmax attention.

    Scores that are not divided by √e make the softmax sharp, weights that are divided by √D sum to 1 / √D. It claims
    what softmax attention claims, and `saccade check saccade.originals.scaled_after:ScaledAfter` finds it out.

    Args:
        masked: gives the original's `mask` a mask that keeps every token, which must change nothing.
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
        masked: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.masked = masked
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """As the original has it."""
        mask = None
        if self.masked:
            mask = torch.ones(len(q), self.num_heads, q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        return scaled_after(q, k, v, self.dim, mask=mask)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """What it takes itself for: the weights exp(q·k / √e), divided by their sum over the keys."""
        weights = torch.einsum("bhie,bhje->bhij", q, k).div(self.head_dim**0.5).exp()
        return torch.einsum("bhij,bhje->bhie", weights / weights.sum(-1, keepdim=True), v)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Two products of rows x N x D."""
        return 4 * rows * (self.tokens.prefix + patches) * self.dim

    @property
    def mix_order_free(self) -> bool:
        """It sees a set."""
        return True

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """It should be softmax."""
        return {}


def scaled_after(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    emb_size: int,
    *,
    mask: Bool[Tensor, "b h m n"] | None = None,
    drop: nn.Module | None = None,
) -> Float[Tensor, "b h m e"]:
    """The original's lines, its names kept.

    Raises:
        AttributeError: a mask is given; torch's method is called masked_fill, and nobody had ever given one.
    """
    energy = torch.einsum("bhqd,bhkd->bhqk", q, k)
    if mask is not None:
        energy.mask_fill(~mask, torch.finfo(torch.float32).min)  # type: ignore[attr-defined]
    scaling = emb_size ** (1 / 2)
    att = torch.softmax(energy, dim=-1) / scaling
    return torch.einsum("bhal,bhlv->bhav", att if drop is None else drop(att), v)
