"""Fourier mixing: the real part of a Fourier transform over tokens and channels, with nothing to learn."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.flops import fft_flops
from saccade.attention.initial import GeneratorOf, fill_xavier, unseeded
from saccade.attention.parts import at_least_float32, coordinates, off_grid, onto_grid, visible_ids, without_autocast
from saccade.attention.tokens import Tokens

Norm = Literal["ortho", "backward", "forward"]


class Fourier(Attention):
    """The real part of a Fourier transform over tokens and channels: Re(F_tokens(F_channels(X))), nothing to learn.

    The whole sequence is transformed, prefix tokens first and like any other, with zeros where a patch is hidden; so a
    token's place is its own and not that among the visible ones, and on the whole grid this is FNet.

    Args:
        two_d: transforms over rows, columns and channels of the grid (as VisionXformer's FNet2D); prefix tokens stand
            beside it and get the transform over their channels only.
        per_head: each head's channels are transformed alone (as in xFormers); `num_heads` means nothing without.
        out_proj: a projection with bias after the transform (as in xFormers).
        norm: "ortho" divides by the root of the transform's size, "backward" by nothing, which is FNet's and lets the
            values grow by that root, and "forward" by the size.
    """

    paper = "Lee-Thorp et al. 2021, https://arxiv.org/abs/2105.03824"
    cost = "N D log(N D)"
    any_length = True
    free_of_order = False
    needs_grid = False
    exact_when = "never"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        two_d: bool = False,
        per_head: bool = False,
        out_proj: bool = False,
        norm: Norm = "ortho",
    ) -> None:
        if norm not in ("ortho", "backward", "forward"):
            raise ValueError(f'fourier(norm={norm!r}): norm must be "ortho", "backward" or "forward"')
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.two_d = two_d
        self.groups = num_heads if per_head else 1
        self.norm = norm
        self.proj = nn.Linear(dim, dim) if out_proj else nn.Identity()
        self.reset_parameters(unseeded)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """Scatters the visible patches, transforms, gathers, and projects where asked; float32 at least."""
        with without_autocast(x.device):
            y = self._mix(at_least_float32(x), patches).to(x.dtype)
        return self.proj(y if outputs is None else y[:, outputs])

    def _mix(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None) -> Float[Tensor, "b n w"]:
        prefix, visible = x.tensor_split([self.tokens.prefix], dim=1)
        whole = onto_grid(visible, patches, self.tokens)
        if self.two_d:
            # torch transforms nothing of nothing.
            if self.tokens.prefix:
                prefix = self._transform(prefix.flatten(0, 1)[:, None]).view_as(prefix)
            whole = self._transform(whole.unflatten(1, self.tokens.grid)).flatten(1, 2)
        else:
            y = self._transform(torch.cat([prefix, whole], dim=1))
            prefix, whole = y.tensor_split([self.tokens.prefix], dim=1)
        return torch.cat([prefix, off_grid(whole, patches)], dim=1)

    def _transform(self, x: Float[Tensor, "b *places w"]) -> Float[Tensor, "b *places w"]:
        """Over all places together with the channels of each group."""
        places = tuple(range(1, x.ndim - 1))
        return _RealPart.apply(x.unflatten(-1, (self.groups, -1)), places, self.norm).flatten(-2)

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """The transform by its definition: matrices of e^(-2πi nm / N), of the visible tokens and of the channels."""
        channel = torch.arange(self.dim // self.groups, device=x.device).to(x)
        along = [place[:, :, None] * place[:, None] / side for place, side in self._places(x, patches)]
        turns = torch.stack(along).sum(0)
        mixed = self.reach(None if patches is None else patches[0]).to(x).expand_as(turns)
        over_tokens = torch.polar(mixed, -2 * math.pi * turns)
        over_channels = torch.polar(torch.ones(()).to(x), -2 * math.pi * channel[:, None] * channel / len(channel))
        groups = x.unflatten(-1, (self.groups, -1)).to(over_tokens)
        y = torch.einsum("bij,bjgd,dc->bigc", over_tokens, groups, over_channels).real.flatten(2)
        exponent = {"ortho": 0.5, "backward": 0.0, "forward": 1.0}[self.norm]
        return self.proj(y / (self._sizes(x) * len(channel)) ** exponent)

    def _places(
        self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None
    ) -> list[tuple[Float[Tensor, "b n"], int]]:
        """Where each token stands, along each side of what is transformed, and how long the side is."""
        ids = visible_ids(self.tokens, patches, x.device)
        ids, prefix = ids.expand(len(x), -1), self.tokens.prefix
        if self.two_d:
            sides = zip(coordinates(self.tokens, ids), self.tokens.grid, strict=True)
            return [(nn.functional.pad(place, (prefix, 0)).to(x), side) for place, side in sides]
        first = torch.arange(prefix, device=x.device).expand(len(x), -1)
        return [(torch.cat([first, prefix + ids], dim=1).to(x), self.tokens.count)]

    def _sizes(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "n 1"]:
        """How many places the transform of each token has."""
        sizes = x.new_full((x.shape[1], 1), self.tokens.patches if self.two_d else self.tokens.count)
        if self.two_d:
            sizes[: self.tokens.prefix] = 1
        return sizes

    def flops(self, patches: int, rows: int | None = None) -> int:
        """A real transform over the channels and a complex one over the places, of the whole grid; the projection."""
        wanted = self.tokens.prefix + patches if rows is None else rows
        width = self.dim // self.groups
        places = self.tokens.patches if self.two_d else self.tokens.count
        over_channels = fft_flops(self.tokens.count * self.dim, [width], real=True)
        over_places = fft_flops(places * self.groups * (width // 2 + 1), [places])
        return over_channels + over_places + (2 * wanted * self.dim**2 if isinstance(self.proj, nn.Linear) else 0)

    def reach(self, patches: Int[Tensor, " p"] | None = None, part: str = "all") -> Bool[Tensor, "n n"]:
        """Everywhere; beside a 2-D transform each prefix token reaches itself alone."""
        reach = super().reach(patches, part)
        if self.two_d:
            prefix = self.tokens.prefix
            reach[:prefix] = reach[:, :prefix] = False
            reach.fill_diagonal_(True)
        return reach

    @property
    def order_free(self) -> bool:
        """Only where there is one place."""
        return self.tokens.patches == 1

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """The projection, where there is one, as MultiHead starts it."""
        if isinstance(self.proj, nn.Linear):
            fill_xavier(self.proj.weight, generator_of("proj.weight"))
            nn.init.zeros_(self.proj.bias)


class _RealPart(torch.autograd.Function):
    """The real part of the Fourier transform of real numbers, over `places` and the last dimension.

    As a matrix it is cos(2π Σ n m / N), which is symmetric: the backward pass is the same transform.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "b *places g c"], places: tuple[int, ...], norm: str
    ) -> Float[Tensor, "b *places g c"]:
        ctx.places, ctx.norm = places, norm
        return real_part(x, places, norm)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "b *places g c"]) -> tuple[Tensor, None, None]:
        return _RealPart.apply(gradient, ctx.places, ctx.norm), None, None


def real_part(x: Float[Tensor, "b *places g c"], places: tuple[int, ...], norm: str) -> Float[Tensor, "b *places g c"]:
    """Half of the channels by transform; the others are the same numbers at the opposite places.

    The transform F of real numbers has F[-n, -c] equal to the conjugate of F[n, c], so their real parts are equal.
    """
    width = x.shape[-1]
    half = torch.fft.fftn(torch.fft.rfft(x, norm=norm), dim=places, norm=norm).real
    others = half[..., 1 : (width + 1) // 2].flip((*places, -1)).roll([1] * len(places), places)
    return torch.cat([half, others], dim=-1)
