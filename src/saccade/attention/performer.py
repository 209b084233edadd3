"""Performer attention: softmax's kernel as a product of random features, which are summed once over the keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.attention.base import MultiHead, Shared
from saccade.attention.elsewhere import device_type, in_turn
from saccade.attention.initial import GeneratorOf, fill_with, unseeded
from saccade.attention.parts import at_least_float32, by_token, require_whole, without_autocast
from saccade.attention.tokens import Tokens

Kernel = Literal["softmax", "relu"]

# Added to every feature, as in the authors' code (google-research/performer/fast_attention).
EPSILONS: dict[Kernel, float] = {"softmax": 1e-4, "relu": 1e-3}

# Features of a tile on a CPU: half a megabyte, which stays in a core's cache.
_TILE_FEATURES = 2**17


class Performer(MultiHead):
    """Random features stand for the exponential: φ(Q)(φ(K)ᵀV) / (φ(Q)·Σφ(K)), φ(x) = exp(ωx̂ - ‖x̂‖²/2 - c) + ε.

    x̂ = x e^-¼. The rows of ω are random and orthogonal in blocks of e, one ω for all heads and images of a layer; it is
    part of the state. c is the largest ωx̂, of a query's own or of all keys, and a constant for the gradient; ε = 1e-4.
    The weights are right on average over ω. With one ω a row of them is far from softmax's: a model trained with
    softmax has to be trained further.

    Args:
        features: rows of ω; 128 as in WhatTransformerToFavor, for ViTs.
        kernel: "softmax", or "relu" for φ(x) = max(ωx̂, 0) + 1e-3 (the paper's generalised attention).
        scaling: lengths of the rows of ω: 0 for those of normal vectors, 1 for √e each.
        redraw: training steps until ω is drawn anew; 0 for never.
    """

    paper = "Choromanski et al. 2021, https://arxiv.org/abs/2009.14794"
    cost = "N M D"
    any_length = True
    free_of_order = True
    needs_grid = False
    exact_when = "features → ∞"
    each_query_alone: ClassVar[bool] = True

    omega: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        features: int = 128,
        kernel: Kernel = "softmax",
        scaling: int = 0,
        redraw: int = 1000,
        **shared: Unpack[Shared],
    ) -> None:
        require_whole("performer", 1, features=features)
        require_whole("performer", 0, redraw=redraw)
        if kernel not in EPSILONS:
            raise ValueError(f'performer(kernel={kernel!r}): kernel must be "softmax" or "relu"')
        if type(scaling) is not int or scaling not in (0, 1):
            raise ValueError(f"performer(scaling={scaling!r}): scaling must be 0 or 1")
        super().__init__(dim, num_heads, tokens, layer=layer, **shared)
        self.features = features
        self.kernel = kernel
        self.scaling = scaling
        self.redraw = redraw
        self.register_buffer("omega", torch.empty(features, self.head_dim, dtype=torch.float32))
        self.reset_parameters(unseeded)

    def mix(
        self,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h m e"]:
        """By the features of this layer's ω."""
        return performer_attention(q, k, v, self.omega, self.kernel)

    def reference_mix(
        self,
        q: Float[Tensor, "b h n e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        patches: Int[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Every weight φ(q_i)·φ(k_j), divided by the sum of its row."""
        features = []
        for x, over in ((q, (-1,)), (k, (-2, -1))):
            scaled = x / self.head_dim**0.25
            projected = torch.einsum("bhne,me->bhnm", scaled, self.omega.to(x.dtype))
            if self.kernel == "relu":
                features.append(projected.clamp(min=0) + EPSILONS["relu"])
                continue
            half = scaled.square().sum(-1, keepdim=True) / 2
            largest = projected.amax(over, keepdim=True).detach()
            features.append((torch.exp(projected - half - largest) + EPSILONS["softmax"]) / self.features**0.5)
        weights = torch.einsum("bhim,bhjm->bhij", *features)
        return torch.einsum("bhij,bhje->bhie", weights / weights.sum(-1, keepdim=True), v)

    def mix_flops(self, patches: int, rows: int) -> int:
        """ω on queries and keys, then sums and their reading, which have a column more for the normaliser."""
        n = self.tokens.prefix + patches
        return 2 * (n + rows) * self.features * (2 * self.dim + self.num_heads)

    @property
    def mix_order_free(self) -> bool:
        """A sum has no order."""
        return True

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As MultiHead; ω drawn."""
        super().reset_parameters(generator_of)
        self._draw(generator_of("omega"))

    def advance(self, step: int, generator: torch.Generator) -> None:
        """Draws ω anew every `redraw` steps of training; what it starts with serves the first of them."""
        if self.training and self.redraw and step and step % self.redraw == 0:
            self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        rows, width = self.omega.shape
        fill_with(self.omega, lambda values: values.copy_(random_features(rows, width, self.scaling, generator)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Performer:
        """As any module is moved and cast, except that ω stays float32 at least: rounded, it is another function."""
        before = self.omega
        super()._apply(fn, recurse)
        if self.omega.dtype.itemsize < 4:
            kept = self.omega if before.is_meta else before
            self.omega = kept.to(self.omega.device, torch.float32)
        return self


def random_features(rows: int, width: int, scaling: int, generator: torch.Generator) -> Float[Tensor, "m e"]:
    """ω: rows of random direction, orthogonal to each other in blocks of `width` rows, float32.

    The signs of R make Q's directions uniform (Mezzadri 2007, https://arxiv.org/abs/math-ph/0609050): those of plain QR
    are not, and in heads of small width the kernel is up to 27 % off with them.

    Args:
        rows: features.
        width: of a head.
        scaling: lengths of the rows: 0 for those of independent normal vectors, 1 for √width.
        generator: where all numbers come from.
    """
    blocks = torch.randn(-(-rows // width), width, width, generator=generator, device="cpu")
    Q, R = torch.linalg.qr(blocks)
    signs = torch.where(R.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)
    directions = (Q * signs[:, None]).mT.flatten(0, 1)[:rows]
    if scaling == 1:
        return directions * width**0.5
    return directions * torch.randn(rows, width, generator=generator, device="cpu").norm(dim=1, keepdim=True)


def performer_attention(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n d"],
    omega: Float[Tensor, "f e"],
    kernel: Kernel = "softmax",
) -> Float[Tensor, "b h m d"]:
    """φ(Q)(φ(K)ᵀV) / (φ(Q)·Σφ(K)), sums in float32 at least; `random_features` draws ω.

    No gradient reaches ω.
    """
    with without_autocast(q.device):
        # A compiler fuses the plain formula by itself, and cannot tile a batch whose size it does not know.
        if torch.compiler.is_compiling():
            return _by_features(q, k, v, omega, kernel)
        return _ByFeatures.apply(q, k, v, omega, kernel)


def _by_features(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n d"],
    omega: Float[Tensor, "f e"],
    kernel: Kernel,
) -> Float[Tensor, "b h m d"]:
    """The formula as it stands."""
    q, k = (_features(x, omega, kernel, over) for x, over in ((q, (-1,)), (k, (-2, -1))))
    y = q @ (k.mT @ _with_ones(v))
    return (y[..., :-1] / y[..., -1:]).to(v.dtype)


def _features(
    x: Float[Tensor, "b h n e"], omega: Float[Tensor, "f e"], kernel: Kernel, over: tuple[int, ...]
) -> Float[Tensor, "b h n f"]:
    """φ(x), but for the factor f^-½, which is in numerator and denominator; c is the largest along `over`."""
    x = at_least_float32(x) * x.shape[-1] ** -0.25
    projected = x @ omega.to(x.dtype).T
    if kernel == "relu":
        return projected.relu() + EPSILONS[kernel]
    half = x.square().sum(-1, keepdim=True) / 2
    return (projected - half - projected.amax(over, keepdim=True).detach()).exp() + EPSILONS[kernel]


class _ByFeatures(torch.autograd.Function):
    """`_by_features` a tile at a time: for the backward pass it keeps q, k, v, its output and sums, no feature.

    Per head, with a column of ones at the end of V, S = Vᵀφ(K) and y is φ(Q)Sᵀ divided by its last column d. With
    g = [∂/∂y, -(∂/∂y)·y] / d the gradients are gS for φ(Q), gᵀφ(Q) for S, hence φ(K)(φ(Q)ᵀg) for V and V(gᵀφ(Q)) for
    φ(K). φ is r F + ε (`_raised`), and r and ε are put on the thin side of every product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "b h m e"],
        k: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n d"],
        omega: Float[Tensor, "f e"],
        kernel: Kernel,
    ) -> Float[Tensor, "b h m d"]:
        wide = torch.promote_types(q.dtype, torch.float32)
        y = by_token(q, v.shape[3], v.dtype)
        divisor = q.new_empty(*q.shape[:3], 1, dtype=wide)
        state = v.new_zeros(*v.shape[:2], v.shape[3] + 1, len(omega), dtype=wide)
        largest = k.new_full((*k.shape[:2], 1, 1), -torch.inf, dtype=wide)
        for few in in_turn(_tiles(k, omega), k, ()):
            heads = few[:2]
            raised, top, rest = _raised(k[few], omega, kernel)
            larger = torch.maximum(largest[heads], top.amax(-2, keepdim=True))
            # Earlier tokens were held against a smaller c.
            state[heads] *= (largest[heads] - larger).exp2_()
            largest[heads] = larger
            state[heads] += _summed(raised, (top + rest - larger).exp2_(), _with_ones(v[few]))
        state.add_(_with_ones(v).sum(-2).unsqueeze(-1), alpha=EPSILONS[kernel])
        for few in in_turn(_tiles(q, omega), q, (y, divisor)):
            raised, _, rest = _raised(q[few], omega, kernel)
            mixed, total = state[few[:2]].tensor_split([-1], dim=-2)
            scale = rest.exp2_()
            divisor[few] = _read(raised, scale, total, kernel)
            y[few] = _read(raised, scale, mixed, kernel).div_(divisor[few])
        ctx.save_for_backward(q, k, v, omega, y, divisor, state, largest)
        ctx.kernel = kernel
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "b h m d"]) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, omega, y, divisor, state, largest = ctx.saved_tensors
        kernel = ctx.kernel
        to_q, to_k, to_v = (by_token(x, x.shape[3], x.dtype) for x in (q, k, v))
        to_state = torch.zeros_like(state)
        with without_autocast(q.device):
            for few in in_turn(_tiles(q, omega), q, (to_q,)):
                g = at_least_float32(gradient[few]) / divisor[few]
                g = torch.cat([g, -(g * y[few]).sum(-1, keepdim=True)], dim=-1)
                raised, _, rest = _raised(q[few], omega, kernel)
                scale = rest.exp2_()
                to_state[few[:2]] += _summed(raised, scale, g)
                to_state[few[:2]].add_(g.sum(-2).unsqueeze(-1), alpha=EPSILONS[kernel])
                to_q[few] = _through(q[few], omega, raised, scale, g @ state[few[:2]], kernel)
            for few in in_turn(_tiles(k, omega), k, (to_k, to_v)):
                raised, top, rest = _raised(k[few], omega, kernel)
                scale = (top + rest - largest[few[:2]]).exp2_()
                to_v[few] = _read(raised, scale, to_state[few[:2]][..., :-1, :], kernel)
                to_features = _with_ones(v[few]) @ to_state[few[:2]]
                to_k[few] = _through(k[few], omega, raised, scale, to_features, kernel)
        return to_q, to_k, to_v, None, None


def _tiles(x: Float[Tensor, "b h n e"], omega: Float[Tensor, "f e"]) -> Iterator[tuple[slice, slice, slice]]:
    """Images, heads and tokens at a time: few on a CPU, for its cache; all on anything else, which has to be launched.

    The tokens of a head come one tile after the other.
    """
    images, heads, tokens = x.shape[:3]
    at_once = max(1, _TILE_FEATURES // len(omega)) if device_type(x.device) == "cpu" else x.shape[:3].numel()
    few_images, few_heads = max(1, at_once // (heads * tokens)), max(1, min(heads, at_once // tokens))
    # Tiles of one size: a short one at the end would cost as many calls as a long one.
    few_tokens = -(-tokens // -(-tokens // at_once))
    for image in range(0, images, few_images):
        for head in range(0, heads, few_heads):
            for token in range(0, tokens, few_tokens):
                yield (
                    slice(image, image + few_images),
                    slice(head, head + few_heads),
                    slice(token, token + few_tokens),
                )


def _raised(
    x: Float[Tensor, "b h n e"], omega: Float[Tensor, "f e"], kernel: Kernel
) -> tuple[Float[Tensor, "b h n f"], Float[Tensor, "b h n 1"], Float[Tensor, "b h n 1"]]:
    """F of φ(x) = r F + ε, and two exponents of 2 that r is made of: the largest ωx̂ of the row, and -‖x̂‖²/2.

    The largest is taken out of F, so a query's r is 2 to the second alone, and a key's 2 to their sum less c. F of the
    "relu" kernel is max(ωx̂, 0), and both exponents are 0.
    """
    x = at_least_float32(x) * x.shape[-1] ** -0.25
    if kernel == "relu":
        return (x @ omega.to(x.dtype).T).relu_(), torch.zeros_like(x[..., :1]), torch.zeros_like(x[..., :1])
    # A CPU raises 2 in a quarter of the time that it takes for e.
    projected = x @ (omega.to(x.dtype) * math.log2(math.e)).T
    top = projected.amax(-1, keepdim=True)
    return projected.sub_(top).exp2_(), top, x.square().sum(-1, keepdim=True) * (-math.log2(math.e) / 2)


def _summed(
    raised: Float[Tensor, "b h n f"], scale: Float[Tensor, "b h n 1"], values: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h d f"]:
    """valuesᵀ φ, without the ε."""
    return (scale * values).mT @ raised


def _read(
    raised: Float[Tensor, "b h n f"], scale: Float[Tensor, "b h n 1"], state: Float[Tensor, "b h d f"], kernel: Kernel
) -> Float[Tensor, "b h n d"]:
    """φ stateᵀ."""
    return (raised @ state.mT).mul_(scale).add_(state.sum(-1).unsqueeze(-2), alpha=EPSILONS[kernel])


def _through(
    x: Float[Tensor, "b h n e"],
    omega: Float[Tensor, "f e"],
    raised: Float[Tensor, "b h n f"],
    scale: Float[Tensor, "b h n 1"],
    to_features: Float[Tensor, "b h n f"],
    kernel: Kernel,
) -> Float[Tensor, "b h n e"]:
    """The gradient for x from that for φ(x), with c constant; overwrites `to_features`."""
    factor = x.shape[-1] ** -0.25
    if kernel == "relu":
        return (to_features.mul_(raised > 0) @ omega.to(raised.dtype)).mul_(factor)
    slopes = to_features.mul_(raised)
    to_scaled = slopes @ omega.to(raised.dtype)
    to_scaled.sub_(slopes.sum(-1, keepdim=True) * (at_least_float32(x) * factor))
    return to_scaled.mul_(scale * factor)


def _with_ones(v: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n c"]:
    """A column of ones at the end: what is summed with it is the normaliser."""
    return torch.nn.functional.pad(at_least_float32(v), (0, 1), value=1.0)
