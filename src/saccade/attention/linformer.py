"""Linformer: every token looks at k learned sums of the patches instead of at the patches."""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, fill_uniform, unseeded
from saccade.attention.parts import require_whole, resize, softmax_attention
from saccade.attention.tokens import Tokens


class Linformer(MultiHead):
    """Every token looks at k learned sums of the patches: softmax(Q (EK)ᵀ / √e) FV.

    E and F have a column for each patch of the whole grid, the same for all heads and images; a visible subset uses the
    columns of its ids. The keys and values of prefix tokens are no part of the sums, but are looked at as they are.

    Args:
        k: sums, that is rows of E and F.
        share_kv: E = F (the paper's "key-value sharing").
        rescale: multiplies the sums over a visible subset by √(all patches / visible patches), which keeps their size.
            Ours: the paper knows no subsets.
    """

    paper = "Wang et al. 2020, https://arxiv.org/abs/2006.04768"
    cost = "N k D"
    any_length = False
    free_of_order = False
    needs_grid = False
    exact_when = "E = F = I"
    each_query_alone: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        k: int = 8,
        share_kv: bool = False,
        rescale: bool = True,
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("linformer", 1, k=k)
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.k = k
        self.rescale = rescale
        self.E = nn.Parameter(torch.empty(k, tokens.patches))
        self.F = None if share_kv else nn.Parameter(torch.empty(k, tokens.patches))
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """Softmax attention whose keys and values are the prefix and the sums."""
        E = self._columns(self.E, patches)
        F = E if self.F is None else self._columns(self.F, patches)
        return softmax_attention(q, self._summed(E, k), self._summed(F, v))

    def _columns(self, weights: Float[Tensor, "k l"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "#b k p"]:
        """The columns of the visible patches, image by image, scaled to their number."""
        if patches is None:
            return weights[None]
        scale = (self.tokens.patches / patches.shape[1]) ** 0.5 if self.rescale else 1.0
        return (weights * scale).T[patches].mT

    def _summed(self, columns: Float[Tensor, "#b k p"], y: Float[Tensor, "b h n e"]) -> Float[Tensor, "b h s e"]:
        """The prefix's rows of y, then the sums over the rows of the patches; all heads in one product."""
        tokens = y.transpose(1, 2).flatten(2)
        prefix, patches = tokens.tensor_split([self.tokens.prefix], dim=1)
        sums = columns.expand(len(y), -1, -1) @ patches
        return torch.cat([prefix, sums], dim=1).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Sums over the whole grid, on which hidden patches are zero."""
        grid = torch.arange(self.tokens.patches, device=q.device)
        ids = grid[None] if patches is None else patches
        places = (ids[:, :, None] == grid).to(q.dtype)
        if self.rescale:
            places = places * (places.shape[2] / places.shape[1]) ** 0.5
        looked_at = []
        for weights, y in ((self.E, k), (self.E if self.F is None else self.F, v)):
            prefix, visible = y[:, :, : self.tokens.prefix], y[:, :, self.tokens.prefix :]
            sums = torch.einsum("kl,bpl,bhpe->bhke", weights, places.expand(len(y), -1, -1), visible)
            looked_at.append(torch.cat([prefix, sums], dim=2))
        scores = torch.einsum("bhie,bhke->bhik", q, looked_at[0]) / self.head_dim**0.5
        return torch.einsum("bhik,bhke->bhie", scores.softmax(-1), looked_at[1])

    def mix_flops(self, patches: int, rows: int) -> int:
        """E K and F V over the patches, then two products of rows x (prefix + k) x D."""
        return 4 * self.dim * (self.k * patches + rows * (self.tokens.prefix + self.k))

    def refusal(self, patches: int) -> str | None:
        """As many sums as patches are more work than softmax."""
        if self.k < patches:
            return None
        allowed = f"must be 1..{patches - 1}" if patches > 1 else "needs at least 2 patches"
        return (
            f"linformer(k={self.k}) on {self.tokens.prefix + patches} tokens, {patches} of them patches: k {allowed}; "
            "more would be more work than softmax"
        )

    @property
    def mix_order_free(self) -> bool:
        """Each patch has its own column."""
        return False

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; E and F uniform in ±1/√k, as in the package of lucidrains."""
        super().reset_parameters(generator_of)
        for name, weights in (("E", self.E), ("F", self.F)):
            if weights is not None:
                fill_uniform(weights, generator_of(name), self.k**-0.5)

    @torch.no_grad()
    def resample(self, old: Tokens) -> None:
        """Columns between the old ones, times old / new patches: a sum over the grid keeps its size."""
        for name, weights in (("E", self.E), ("F", self.F)):
            if weights is not None:
                columns = resize(weights.unflatten(1, old.grid), self.tokens.grid).flatten(1)
                scaled = columns * (old.patches / self.tokens.patches)
                setattr(self, name, nn.Parameter(scaled, requires_grad=weights.requires_grad))

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """A quarter of the patches, eight at most."""
        return {"k": max(1, min(8, patches // 4))}
