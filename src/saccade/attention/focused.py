"""Focused linear attention: features that sharpen a token's direction, and a convolution of the values beside them."""

from __future__ import annotations

from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.attention.base import MultiHead, Shared
from saccade.attention.initial import GeneratorOf, fill_uniform, unseeded
from saccade.attention.parts import (
    at_least_float32,
    coordinates,
    off_grid,
    onto_grid,
    pairs_are_fewer,
    require_whole,
    resize,
    visible_ids,
    without_autocast,
)
from saccade.attention.tokens import Tokens

# FLatten's flatten_pvt.py, both under the power and in the denominator.
EPSILON = 1e-6


class Focused(MultiHead):
    """Linear attention with features that sharpen directions, and a convolution of V: f(Q)(f(K)ᵀV) / (f(Q)·Σf(K)) + CV.

    f(x) = u^p ‖u‖/‖u^p‖ with u = (relu(x) + 1e-6) / s: the norms run over all channels of a token, before it is split
    into heads, and s = softplus(σ) is learned, one a channel. Every token adds a learned position to its key, patches
    by id; rotary positions, where asked for, turn the key before. C is a depthwise convolution over the whole grid,
    zeros where a patch is hidden, with one kernel a channel of a head, the same for all heads; prefix tokens stay
    outside it.

    Args:
        power: p, the paper's focusing factor.
        convolution: side of C's kernel; odd, or 0 for no C.
    """

    paper = "Han et al. 2023, https://arxiv.org/abs/2308.00442"
    cost = "N D² / H + c² N D"
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
        power: int = 3,
        convolution: int = 5,
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("focused", 1, power=power)
        require_whole("focused", 0, convolution=convolution)
        if convolution and convolution % 2 == 0:
            raise ValueError(f"focused(convolution={convolution}): must be odd, or 0 for none")
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.power = power
        self.convolution = convolution
        self.scale = nn.Parameter(torch.empty(dim))
        self.positions = nn.Parameter(torch.empty(tokens.count, dim))
        width = self.head_dim
        self.conv = (
            nn.Conv2d(width, width, convolution, padding=convolution // 2, groups=width) if convolution else None
        )
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """The sum of the parts."""
        y = self._linear(q, k, v, patches)
        return y if self.conv is None else y + self._convolved(v, patches)

    def _linear(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        k = k + self._heads(self._positions(patches)).to(k.dtype)
        return focused_attention(q, k, v, self._scale(), self.power)

    def _positions(self, patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "#b n w"]:
        """The learned positions of the prefix and of the visible patches."""
        if patches is None:
            return self.positions[None]
        prefix, grid = self.positions.tensor_split([self.tokens.prefix])
        return torch.cat([prefix.expand(len(patches), -1, -1), grid[patches]], dim=1)

    def _scale(self) -> Float[Tensor, "h 1 e"]:
        """s = softplus(σ), by head."""
        return nn.functional.softplus(at_least_float32(self.scale)).view(self.num_heads, 1, self.head_dim)

    def _convolved(self, v: Float[Tensor, "b h n e"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "b h n e"]:
        """Each head an image of its own, on the whole grid; zeros for the prefix."""
        assert self.conv is not None
        prefix = self.tokens.prefix
        whole = onto_grid(v[:, :, prefix:].transpose(1, 2).flatten(2), patches, self.tokens)
        maps = whole.mT.reshape(-1, self.head_dim, *self.tokens.grid)
        near = off_grid(self.conv(maps).reshape(len(v), self.dim, -1).mT, patches)
        return self._heads(nn.functional.pad(near, (0, 0, prefix, 0)))

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Every weight, by means over the visible tokens; the convolution as a sum over pairs of patches."""
        k = (k.transpose(1, 2).flatten(2) + self._positions(patches)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        features = []
        for x in (q, k):
            u = (x.relu() + EPSILON) / self._scale()
            sharp = u**self.power
            sizes = [y.square().sum((1, 3), keepdim=True).sqrt() for y in (u, sharp)]
            features.append(sharp * sizes[0] / sizes[1])
        weights = torch.einsum("bhie,bhje->bhij", *features) / k.shape[2]
        y = torch.einsum("bhij,bhje->bhie", weights / (weights.sum(-1, keepdim=True) + EPSILON), v)
        if self.conv is None:
            return y
        down, right, near = self._offsets(visible_ids(self.tokens, patches, q.device))
        half = self.convolution // 2
        kernel = self.conv.weight[:, 0, (down + half).clamp(0, 2 * half), (right + half).clamp(0, 2 * half)]
        assert self.conv.bias is not None
        visible = v[:, :, self.tokens.prefix :]
        summed = torch.einsum("ebij,bhje->bhie", kernel * near, visible.expand(max(len(near), len(v)), -1, -1, -1))
        return y + nn.functional.pad(summed + self.conv.bias, (0, 0, self.tokens.prefix, 0))

    def _offsets(
        self, ids: Int[Tensor, "b p"]
    ) -> tuple[Int[Tensor, "b p p"], Int[Tensor, "b p p"], Bool[Tensor, "b p p"]]:
        """Rows and columns from patch i to patch j (last dimension), and whether the kernel reaches as far."""
        down, right = (place[:, None] - place[:, :, None] for place in coordinates(self.tokens, ids))
        half = self.convolution // 2
        return down, right, (down.abs() <= half) & (right.abs() <= half)

    def mix_flops(self, patches: int, rows: int) -> int:
        """Of the cheaper order, and the convolution over the whole grid."""
        n, e = self.tokens.prefix + patches, self.head_dim
        linear = 4 * n**2 if pairs_are_fewer(n, n, e) else 4 * n * e + 2 * n
        return self.dim * (linear + 2 * self.convolution**2 * self.tokens.patches)

    def parts(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None
    ) -> dict[str, Float[Tensor, "b n w"]]:
        """The linear attention, and beside it the convolution."""
        q, k, v = self.split(x, patches)
        parts = {"linear": self.merge(self._linear(q, k, v, patches))}
        if self.conv is not None:
            parts["convolution"] = self._convolved(v, patches).transpose(1, 2).flatten(2) @ self.proj.weight.T
        return parts

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Everywhere through the linear attention; half the kernel to each side through the convolution."""
        reach = super().reach(patches)
        if part != "convolution":
            return reach
        ids = torch.arange(self.tokens.patches) if patches is None else patches.cpu()
        reach.zero_()
        reach[self.tokens.prefix :, self.tokens.prefix :] = self._offsets(ids[None])[2][0]
        return reach

    @property
    def mix_order_free(self) -> bool:
        """Each patch has a position of its own."""
        return self.tokens.patches == 1

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; σ and the positions 0; the convolution's kernel as torch's own, its bias 0."""
        super().reset_parameters(generator_of)
        nn.init.zeros_(self.scale)
        nn.init.zeros_(self.positions)
        if self.conv is not None:
            assert self.conv.bias is not None
            fill_uniform(self.conv.weight, generator_of("conv.weight"), 1 / self.convolution)
            nn.init.zeros_(self.conv.bias)

    @torch.no_grad()
    def resample(self, old: Tokens) -> None:
        """Positions of patches between the old ones; those of prefix tokens stay."""
        prefix, grid = self.positions.tensor_split([self.tokens.prefix])
        maps = resize(grid.T.unflatten(1, old.grid), self.tokens.grid)
        positions = torch.cat([prefix, maps.flatten(1).T])
        self.positions = nn.Parameter(positions, requires_grad=self.positions.requires_grad)


def focused_attention(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    scale: Float[Tensor, "h 1 e"] | float = 1.0,
    power: int = 3,
) -> Float[Tensor, "b h m e"]:
    """f(Q)(f(K)ᵀV / N) / (f(Q)·mean f(K) + 1e-6), the linear part alone, float32 at least; `scale` is s.

    The backward pass computes it again: the steps of f would be kept otherwise, five times what q, k and v take.
    """
    # A compiler decides by itself what to keep.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _sums(q, k, v, scale, power)
    y: Tensor = checkpoint(_sums, q, k, v, scale, power, use_reentrant=False, preserve_rng_state=False)
    return y


def _sums(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    scale: Float[Tensor, "h 1 e"] | float,
    power: int,
) -> Float[Tensor, "b h m e"]:
    rows, (n, e) = q.shape[2], k.shape[2:]
    with without_autocast(q.device):
        wide = at_least_float32(v)
        q, k = feature(q, scale, power), feature(k, scale, power)
        # Both means are over N tokens, so N stands in the epsilon alone.
        if pairs_are_fewer(rows, n, e):
            weights = q @ k.mT
            return (weights @ wide / (weights.sum(-1, keepdim=True) + n * EPSILON)).to(v.dtype)
        total = q @ k.sum(-2).unsqueeze(-1)
        return (q @ (k.mT @ wide) / (total + n * EPSILON)).to(v.dtype)


def feature(x: Float[Tensor, "b h n e"], scale: Float[Tensor, "h 1 e"] | float, power: int) -> Float[Tensor, "b h n e"]:
    """f(x) = u^p ‖u‖/‖u^p‖ with u = (relu(x) + 1e-6) / s, norms over the channels of all heads; float32 at least."""
    u = (at_least_float32(x).relu() + EPSILON) / scale
    # A factor of u changes nothing in u^p / ‖u^p‖. With the largest entry 1 no power leaves the range of float32.
    sharp = (u / u.detach().amax((1, 3), keepdim=True)) ** power
    return sharp * (_norm(u) / _norm(sharp))


def _norm(x: Float[Tensor, "b h n e"]) -> Float[Tensor, "b 1 n 1"]:
    """Of each token, over the channels of all heads."""
    return x.norm(dim=(1, 3), keepdim=True)
