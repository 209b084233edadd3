"""Lambda layer: the tokens are summarised as one small linear function, which every query is put through."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.batch_norm import BatchNorm
from saccade.attention.initial import GeneratorOf, fill_normal, unseeded
from saccade.attention.parts import coordinates, off_grid, onto_grid, require_whole, resize, visible_ids
from saccade.attention.tokens import Tokens

Position = Literal["conv", "table", "none"]
Norm = Literal["batch", "layer", "none"]


class Lambda(Attention):
    """Every query is put through one small linear function of all tokens and one of its surroundings: (λᶜ + λᵖ)ᵀ q.

    λᶜ = softmax(K)ᵀ V over the tokens, k x D/H, and λᵖ of patch n is Σ E_nm V_m over the patches m, where E_nm depends
    on how far m lies from n. Keys and values are shared by the heads, and there is no output projection. A visible
    subset is put on the grid, zeros elsewhere. A prefix token has no place there: its λᵖ is 0.

    Args:
        k: width of a query and of a key.
        u: keys and values a token ("intra-depth").
        position: "conv" knows E within the r x r surroundings, and has a bias; "table" over the whole grid; "none" has
            no λᵖ.
        r: side of the surroundings; odd.
        norm: of queries and values: "batch" (the paper's), "layer", "none".
        qkv_bias: a bias on queries, keys and values.
    """

    paper = "Bello 2021, https://arxiv.org/abs/2102.08602"
    cost = "N k D (1 + r² / H)"
    any_length = True
    free_of_order = False
    needs_grid = True
    exact_when = "never"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        k: int = 16,
        u: int = 1,
        position: Position = "conv",
        r: int = 9,
        norm: Norm = "batch",
        qkv_bias: bool = True,
    ) -> None:
        require_whole("lambda", 1, k=k, u=u, r=r)
        if r % 2 == 0:
            raise ValueError(f"lambda(r={r}): r must be odd, so that a patch is in the middle of its surroundings")
        if position not in ("conv", "table", "none"):
            raise ValueError(f'lambda(position={position!r}): position must be "conv", "table" or "none"')
        if norm not in ("batch", "layer", "none"):
            raise ValueError(f'lambda(norm={norm!r}): norm must be "batch", "layer" or "none"')
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.k, self.u, self.r, self.position = k, u, r, position
        self.head_dim = dim // num_heads
        self.widths = (num_heads * k, u * k, u * self.head_dim)
        self.qkv = nn.Linear(dim, sum(self.widths), bias=qkv_bias)
        self.norm_q, self.norm_v = (_norm(norm, width) for width in (self.widths[0], self.widths[2]))
        sides = [2 * margin + 1 for margin in self.margin]
        self.E = None if position == "none" else nn.Parameter(torch.empty(k, u, *sides))
        self.E_bias = nn.Parameter(torch.empty(k)) if position == "conv" else None
        self.reset_parameters(unseeded)

    @property
    def margin(self) -> tuple[int, int]:
        """How many rows and columns away E is known."""
        if self.position == "conv":
            return self.r // 2, self.r // 2
        return self.tokens.grid[0] - 1, self.tokens.grid[1] - 1

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """The sum of the parts."""
        content, *position = self.parts(x, patches).values()
        y = content + position[0] if position else content
        return y if outputs is None else y[:, outputs]

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """What the content lambda makes of the queries, and what the position lambdas make of them."""
        q, k, v = self.qkv(x).split(self.widths, dim=-1)
        q = self.norm_q(q).unflatten(-1, (self.num_heads, self.k))
        k = k.softmax(1).unflatten(-1, (self.u, self.k))
        v = self.norm_v(v).unflatten(-1, (self.u, self.head_dim))
        parts = {"content": self._content(q, k, v)}
        if self.E is not None:
            prefix = self.tokens.prefix
            of_patches = self._position(q[:, prefix:], v[:, prefix:], patches)
            parts["position"] = nn.functional.pad(of_patches, (0, 0, prefix, 0))
        return parts

    def _content(
        self, q: Float[Tensor, "b n h k"], k: Float[Tensor, "b n u k"], v: Float[Tensor, "b n u e"]
    ) -> Float[Tensor, "b n w"]:
        """One lambda for all tokens."""
        content = k.flatten(1, 2).mT @ v.flatten(1, 2)
        return (q.flatten(1, 2) @ content).view(*q.shape[:2], -1)

    def _position(
        self, q: Float[Tensor, "b p h k"], v: Float[Tensor, "b p u e"], patches: Int[Tensor, "b p"] | None
    ) -> Float[Tensor, "b p w"]:
        """A lambda for each patch, by one convolution; no table of pairs of patches is ever made."""
        whole = onto_grid(v.flatten(2), patches, self.tokens).unflatten(2, (self.u, self.head_dim))
        maps = whole.permute(0, 3, 2, 1).reshape(-1, self.u, *self.tokens.grid)
        lambdas = off_grid(self._lambdas(maps).reshape(len(q), -1, self.tokens.patches).mT, patches)
        return torch.einsum("bphk,bpek->bphe", q, lambdas.unflatten(2, (self.head_dim, self.k))).flatten(2)

    def _lambdas(self, maps: Float[Tensor, "m u y x"]) -> Float[Tensor, "m k y x"]:
        """Σ_m E_nm V_m at every place n, for each channel of each image."""
        assert self.E is not None
        if self.position == "conv":
            return nn.functional.conv2d(maps, self.E, self.E_bias, padding=self.margin)
        # Of a table as large as two grids and a kernel as large as one only the overlap is computed; place n comes out
        # where the kernel lies n from the end.
        return nn.functional.conv2d(self.E, maps).flip(2, 3).transpose(0, 1)

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """Dense sums: a k x e matrix for every token, over E_nm of every pair."""
        q, k, v = self.qkv(x).split(self.widths, dim=-1)
        q, v = (n.reference(y) if isinstance(n, BatchNorm) else n(y) for n, y in ((self.norm_q, q), (self.norm_v, v)))
        q = q.unflatten(-1, (self.num_heads, self.k))
        k = (k.exp() / k.exp().sum(1, keepdim=True)).unflatten(-1, (self.u, self.k))
        v = v.unflatten(-1, (self.u, self.head_dim))
        lambdas = torch.einsum("bmuk,bmue->bke", k, v)[:, None]
        if self.E is not None:
            of_patches = torch.einsum("bnmku,bmue->bnke", self._pairs(patches), v[:, self.tokens.prefix :])
            if self.E_bias is not None:
                of_patches = of_patches + self.E_bias[:, None]
            lambdas = lambdas + nn.functional.pad(of_patches, (0, 0, 0, 0, self.tokens.prefix, 0))
        return torch.einsum("bnhk,bnke->bnhe", q, lambdas).flatten(2)

    def _pairs(self, patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "#b p p k u"]:
        """E_nm of every pair of visible patches, by their coordinates; 0 where it is not known."""
        assert self.E is not None
        ids = visible_ids(self.tokens, patches, self.E.device)
        down, right, known = self._offsets(ids)
        E = self.E[:, :, down.clamp(0, 2 * self.margin[0]), right.clamp(0, 2 * self.margin[1])]
        return torch.where(known, E, 0.0).permute(2, 3, 4, 0, 1)

    def _offsets(
        self, ids: Int[Tensor, "b p"]
    ) -> tuple[Int[Tensor, "b p p"], Int[Tensor, "b p p"], Bool[Tensor, "b p p"]]:
        """Row and column of E for patch m (last dimension) seen from patch n, and whether E has such."""
        down, right = (
            place[:, None] - place[:, :, None] + margin
            for place, margin in zip(coordinates(self.tokens, ids), self.margin, strict=True)
        )
        known = ((down - self.margin[0]).abs() <= self.margin[0]) & ((right - self.margin[1]).abs() <= self.margin[1])
        return down, right, known

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Projections, content lambda, position lambdas of the whole grid, and both applied to all queries."""
        n = self.tokens.prefix + patches
        content = n * self.u * self.k * self.head_dim + n * self.k * self.dim
        known = self.r**2 if self.position == "conv" else self.tokens.patches
        position = self.tokens.patches * known * self.u * self.k * self.head_dim + patches * self.k * self.dim
        return 2 * (n * self.dim * sum(self.widths) + content + (0 if self.E is None else position))

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Everywhere through the content; between patches whose distance E knows through the position."""
        reach = super().reach(patches, part)
        if part != "position":
            return reach
        ids = torch.arange(self.tokens.patches) if patches is None else patches.cpu()
        reach.zero_()
        reach[self.tokens.prefix :, self.tokens.prefix :] = self._offsets(ids[None])[2][0]
        return reach

    @property
    def order_free(self) -> bool:
        """Only without positions."""
        return self.position == "none"

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As timm's: truncated normals of D^-½ (projections), k^-½ (convolution), 0.02 (table); biases 0."""
        fill_normal(self.qkv.weight, generator_of("qkv.weight"), self.dim**-0.5)
        if self.E is not None:
            fill_normal(self.E, generator_of("E"), self.k**-0.5 if self.position == "conv" else 0.02)
        for bias in (self.qkv.bias, self.E_bias):
            if bias is not None:
                nn.init.zeros_(bias)
        for norm in (self.norm_q, self.norm_v):
            if not isinstance(norm, nn.Identity):
                norm.reset_parameters()

    @torch.no_grad()
    def resample(self, old: Tokens) -> None:
        """The table between its old distances, times old / new patches: a sum over the grid keeps its size."""
        if self.E is not None and self.position == "table":
            rows, columns = (2 * margin + 1 for margin in self.margin)
            maps = resize(self.E.flatten(0, 1), (rows, columns)) * (old.patches / self.tokens.patches)
            self.E = nn.Parameter(maps.unflatten(0, (self.k, self.u)), requires_grad=self.E.requires_grad)


def _norm(norm: Norm, width: int) -> BatchNorm | nn.LayerNorm | nn.Identity:
    if norm == "none":
        return nn.Identity()
    return BatchNorm(width) if norm == "batch" else nn.LayerNorm(width)
