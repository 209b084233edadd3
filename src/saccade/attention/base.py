"""The contract of an attention mechanism: `Attention`, and `MultiHead` for those with the usual projections."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.initial import GeneratorOf, fill_xavier, within
from saccade.attention.parts import rotary_angles, rotate
from saccade.attention.renormed import product, project
from saccade.attention.separate import SeparateProjections
from saccade.attention.tokens import Tokens


class Attention(nn.Module, ABC):
    """A layer that mixes tokens: (B, N, D) to (B, N, D).

    It is built for the whole grid of `tokens`. Each call says which patches are present, by id; no parameter depends on
    how many are. The facts below are literals in the class body: the listing reads them without importing torch, and
    the contract compares them with what the layer does at its default options.

    Args:
        dim: width D of a token.
        num_heads: heads H.
        tokens: prefix and grid of the whole sequence.
        layer: index of the layer in its model, from 0.

    Raises:
        ValueError: heads that do not divide the width, or an option that is wrong at any size.
    """

    paper: ClassVar[str]
    """Authors, year and address of what defines it."""
    cost: ClassVar[str]
    """Multiplications of the mixing, inside O()."""
    any_length: ClassVar[bool]
    """It works on every number of tokens from 1."""
    free_of_order: ClassVar[bool]
    """`order_free` at the default options."""
    needs_grid: ClassVar[bool]
    """Its output depends on the shape of the patch grid, not on the number of patches alone."""
    exact_when: ClassVar[str]
    """Where it equals softmax: "always", "never", or the condition."""

    def __init__(self, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"{num_heads} heads on width {dim}: the number of heads must divide the width")
        self.dim = dim
        self.num_heads = num_heads
        self.tokens = tokens
        self.layer = layer

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Mixes the tokens.

        Args:
            x: prefix tokens, then the patches that `patches` names, in its order.
            patches: ids of the visible patches, ascending unless the layer is order_free; None means all, in raster
                order.
            outputs: the rows that are wanted; None means all.
        """

    @abstractmethod
    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """The paper's formula on the same weights, at any cost: what `forward` is held against."""

    @abstractmethod
    def flops(self, patches: int, rows: int | None = None) -> int:
        """Floating-point operations of one image's forward pass; a multiply and an add are two.

        Args:
            patches: how many are visible; exact on the whole grid, an upper bound on a subset.
            rows: how many rows of the output are wanted; None means all.
        """

    @property
    @abstractmethod
    def order_free(self) -> bool:
        """Whether, with patches=None, permuting the patch tokens (prefix in place) permutes the output."""

    @abstractmethod
    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Refills every parameter and buffer; `generator_of(name)` is the generator for the parameter of that name."""

    def refusal(self, patches: int) -> str | None:
        """Why this layer makes no sense on so many visible patches, in one sentence; None where it does."""
        return None

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """The summands of the output, by name: a part that reaches every token would hide one that does not."""
        return {"all": self(x, patches)}

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Which token j (column) may influence output i (row) through one of `parts`."""
        count = self.tokens.count if patches is None else self.tokens.prefix + len(patches)
        return torch.ones(count, count, dtype=torch.bool)

    def regrid(self, tokens: Tokens) -> Attention:
        """The same layer for another grid: whatever lives on the grid is resampled.

        Raises:
            ValueError: the prefix differs, or the layer makes no sense on the new grid.
        """
        if tokens.prefix != self.tokens.prefix:
            raise ValueError(f"regrid keeps the prefix of {self.tokens.prefix} tokens, not {tokens.prefix}")
        layer = copy.deepcopy(self)
        layer.tokens = tokens
        layer.resample(self.tokens)
        if reason := layer.refusal(tokens.patches):
            raise ValueError(reason)
        return layer

    def resample(self, old: Tokens) -> None:
        """Brings parameters and buffers that live on the grid from the `old` grid to `self.tokens`; most have none."""

    def advance(self, step: int, generator: torch.Generator) -> None:
        """Runs between optimiser steps, for what is drawn anew in training; most mechanisms draw nothing."""

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """Sensible options for `patches` visible patches of this grid, where the defaults would be refused."""
        return {}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object] | None:
        """Options at which it equals softmax on the whole grid, to be built past refusal; None where there are none."""
        return None


class Shared(TypedDict, total=False):
    """Options that every `MultiHead` mechanism takes; MultiHead's signature holds their defaults."""

    bias: bool
    qkv_bias: bool
    qk_norm: bool
    rope: bool


class MultiHead(Attention):
    """An attention with q, k, v and output projections under timm's names; a subclass writes only `mix`.

    Args:
        bias: biases on all four projections.
        qkv_bias: False drops those of q, k and v alone (timm's word).
        qk_norm: LayerNorm over each head's width on q and k (timm's q_norm and k_norm).
        rope: rotary 2-D positions on the patches' q and k, before any feature map.
    """

    each_query_alone: ClassVar[bool] = False
    """A row of `mix` needs that row of q and all of k and v, so wanted rows cost no more than they are."""

    chooses: ClassVar[bool] = False
    """`mix` chooses some of the tokens, so its output jumps: half precision is checked on the same q, k and v."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        bias: bool = True,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        rope: bool = False,
    ) -> None:
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.head_dim = dim // num_heads
        if rope and self.head_dim % 4:
            raise ValueError(
                f"rope=True with heads of width {self.head_dim} ({dim} / {num_heads}): needs a multiple of 4"
            )
        self.rope = rope
        self.qkv: nn.Linear | SeparateProjections = nn.Linear(dim, 3 * dim, bias=bias and qkv_bias)
        self.q_norm = nn.LayerNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=bias)

    @abstractmethod
    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """What the mechanism does with queries, keys and values (m = n unless `each_query_alone`)."""

    @abstractmethod
    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The paper's formula for `mix`, at any cost."""

    @abstractmethod
    def mix_flops(self, patches: int, rows: int) -> int:
        """Floating-point operations of `mix` for one image; `rows` is how many queries it is given."""

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Projects, mixes, projects back; see `Attention.forward`."""
        if outputs is None or self.each_query_alone:
            return self.merge(self.mix(*self.split(x, patches, outputs), patches))
        return self.merge(self.mix(*self.split(x, patches), patches)[:, :, outputs])

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """The paper's formula between the same projections."""
        return self.merge(self.reference_mix(*self.split(x, patches), patches))

    def split(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None, outputs: slice | None = None
    ) -> tuple[Float[Tensor, "b h m e"], Float[Tensor, "b h n e"], Float[Tensor, "b h n e"]]:
        """Queries of the wanted rows, keys and values of all, by head; normalised and rotated where asked."""
        if outputs is None:
            q, k, v = (self._heads(y) for y in project(self.qkv, x).chunk(3, dim=-1))
        else:
            q, k, v = self._split_rows(x, outputs)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope:
            angles = rotary_angles(self.tokens, patches, self.head_dim, x.device)
            q = rotate(q, angles if outputs is None else angles[:, outputs])
            k = rotate(k, angles)
        return q, k, v

    def separate(self) -> None:
        """Gives queries, keys and values a projection each; what is computed stays the same."""
        if isinstance(self.qkv, nn.Linear):
            self.qkv = SeparateProjections(self.qkv)

    def merge(self, y: Float[Tensor, "b h n e"]) -> Float[Tensor, "b n w"]:
        """Puts the heads side by side and projects."""
        return self.proj(y.transpose(1, 2).flatten(2))

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Four projections and the mixing, queries and output projection only for the rows that are computed."""
        n = self.tokens.prefix + patches
        merged = n if rows is None else rows
        queries = merged if self.each_query_alone else n
        return 2 * self.dim**2 * (queries + 2 * n + merged) + self.mix_flops(patches, queries)

    @property
    def order_free(self) -> bool:
        """As the mixing is, unless rotary positions tell the patches apart."""
        return self.mix_order_free and not self.rope

    @property
    @abstractmethod
    def mix_order_free(self) -> bool:
        """Whether `mix` itself does not look at the order of the patches."""

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Xavier's uniform for each of the four projections, zeros for biases, ones for norms (MAE's start)."""
        for name, matrices in (("qkv", 3), ("proj", 1)):
            linear = getattr(self, name)
            if isinstance(linear, SeparateProjections):
                linear.reset_parameters(within(generator_of, name))
                continue
            fill_xavier(linear.weight, generator_of(f"{name}.weight"), matrices)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        for norm in (self.q_norm, self.k_norm):
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()

    def _heads(self, y: Float[Tensor, "b n w"]) -> Float[Tensor, "b h n e"]:
        return y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _split_rows(
        self, x: Float[Tensor, "b n w"], outputs: slice
    ) -> tuple[Float[Tensor, "b h m e"], Float[Tensor, "b h n e"], Float[Tensor, "b h n e"]]:
        """As `split`, without computing the queries of the other rows."""
        sizes = (self.dim, 2 * self.dim)
        weight_q, weight_kv = self.qkv.weight.split(sizes)
        bias_q, bias_kv = (None, None) if self.qkv.bias is None else self.qkv.bias.split(sizes)
        q = product(x, weight_q, bias_q, outputs)
        k, v = product(x, weight_kv, bias_kv).chunk(2, dim=-1)
        return self._heads(q), self._heads(k), self._heads(v)
