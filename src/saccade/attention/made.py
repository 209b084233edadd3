"""What the clauses of the contract run on: layers of one attention, with weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from saccade.attention import attention_class, resolve
from saccade.attention.base import Attention, MultiHead
from saccade.attention.initial import seeded
from saccade.attention.tokens import Tokens
from saccade.attention.written import Written

# Neither square nor prime; the larger ones serve options that the smaller are too small for.
_GRIDS = ((4, 5), (6, 8), (12, 15))

# Tokens and visible patches: a lone token; cls and one patch; 112 x 112 pixels in patches of 16, three quarters of them
# hidden, and none; 224 x 224 pixels.
COUNTS = (
    (Tokens((1, 1)), 1),
    (Tokens((1, 1), prefix=1), 1),
    (Tokens((7, 7), prefix=1), 12),
    (Tokens((7, 7), prefix=1), 49),
    (Tokens((14, 14), prefix=1), 196),
)


# bf16 keeps 8 bits: 0.4 % a rounding, and a layer rounds a handful of times.
HALF_TOLERANCES = {"output": 0.02, "gradient": 0.04}

Mixing = Callable[[Tensor, Tensor | None], Tensor]


class Broken(AssertionError):  # noqa: N818
    """A layer does not keep a clause; the message says what was expected and what was seen."""


@dataclass(frozen=True)
class Made:
    """Makes layers of one attention: float64, in eval mode, the same at each call.

    Args:
        written: the attention; where its user wrote no option and the defaults are refused, `options_for` fills in.
        dim: width D of a token.
        num_heads: heads H.

    Raises:
        ValueError: no such attention or option.
    """

    written: Written
    dim: int = 16
    num_heads: int = 2

    def __post_init__(self) -> None:
        resolve(self.written)

    @cached_property
    def tokens(self) -> Tokens:
        """The sequence most clauses run on: the smallest that the attention does not refuse.

        Raises:
            ValueError: it refuses all of them.
        """
        for grid in _GRIDS:
            tokens = Tokens(grid, prefix=1)
            reason = self.refusal(tokens, tokens.patches) or self.refusal(tokens, _visible(tokens))
            if reason is None:
                return tokens
        raise ValueError(
            f"{self.written} cannot be checked, it refuses every grid up to {grid[0]} x {grid[1]}: {reason}"
        )

    @property
    def visible(self) -> int:
        """How many patches are visible where a clause hides some."""
        return _visible(self.tokens)

    def options(self, tokens: Tokens, patches: int) -> dict[str, Any]:
        """As written, or what the class proposes for this size."""
        cls, options = attention_class(self.written.name), dict(self.written.options)
        if options or cls(self.dim, self.num_heads, tokens).refusal(patches) is None:
            return options
        return cls.options_for(tokens, patches)

    def refusal(self, tokens: Tokens, patches: int) -> str | None:
        """Why the layer is refused on so many visible patches."""
        return self.build(tokens, patches).refusal(patches)

    def build(self, tokens: Tokens, patches: int, **options: Any) -> Attention:
        """The layer as its class makes it; `options` go before its own."""
        cls = attention_class(self.written.name)
        return cls(self.dim, self.num_heads, tokens, **{**self.options(tokens, patches), **options})

    def layer(self, tokens: Tokens | None = None, patches: int | None = None, **options: Any) -> Attention:
        """The layer with lively weights."""
        tokens = tokens or self.tokens
        patches = tokens.patches if patches is None else patches
        return enlivened(self.build(tokens, patches, **options), patches)

    def images(self, tokens: Tokens | None = None, patches: int | None = None, batch: int = 2, seed: int = 0) -> Tensor:
        """Normal numbers (batch, n, D), float64."""
        tokens = tokens or self.tokens
        count = tokens.prefix + (tokens.patches if patches is None else patches)
        return torch.randn(batch, count, self.dim, dtype=torch.float64, generator=seeded(seed)("images"))

    def ids(self, tokens: Tokens | None = None, patches: int | None = None, batch: int = 2) -> Tensor:
        """Ascending ids of visible patches (batch, patches), others for each image."""
        tokens = tokens or self.tokens
        patches = _visible(tokens) if patches is None else patches
        generator = seeded(0)("ids")
        drawn = [torch.randperm(tokens.patches, generator=generator)[:patches] for _ in range(batch)]
        return torch.stack(drawn).sort().values

    def cases(self) -> Iterator[tuple[Tokens, Tensor | None]]:
        """Sequences and visible ids that the attention does not refuse: 0 to 2 prefix tokens, 4 to 197 tokens."""
        sizes = [(self.tokens, self.tokens.patches), (self.tokens, self.visible), (Tokens((1, 4)), 4)]
        sizes += [(Tokens((2, 8)), 16), (Tokens((7, 7)), 49), (Tokens((5, 4), prefix=2), 11), *COUNTS[2:]]
        for tokens, patches in sizes:
            if self.refusal(tokens, patches) is None:
                yield tokens, None if patches == tokens.patches else self.ids(tokens, patches)


@torch.no_grad()
def enlivened(layer: Attention, patches: int) -> Attention:
    """The layer in float64 with weights of order one: at its start scores are flat, and flat scores hide faults.

    One step in training mode moves running statistics away from their start.
    """
    layer.double().reset_parameters(seeded(0))
    for name, parameter in layer.named_parameters():
        size = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=seeded(1)(name))
        parameter.add_((size * noise).to(parameter.dtype))
    x = torch.randn(2, layer.tokens.prefix + patches, layer.dim, dtype=torch.float64, generator=seeded(1)("x"))
    layer.train()(x, None if patches == layer.tokens.patches else torch.arange(patches).expand(2, -1))
    return layer.eval()


def require_near(seen: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Checks shape and values.

    Raises:
        Broken: they differ by more than `tolerance` of the largest expected value, or one is not finite.
    """
    if seen.shape != expected.shape:
        raise Broken(f"{what}: expected the shape {tuple(expected.shape)}, saw {tuple(seen.shape)}")
    error = distance(seen, expected)
    if not error <= tolerance:
        raise Broken(f"{what}: expected equal within {tolerance:g} of the largest value, saw {error:.2g} of it")


def distance(seen: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    if not expected.numel():
        return 0.0
    # What the clauses look at is of order one; a gradient far below is the rounding of one that is zero.
    scale = expected.abs().max().clamp_min(1e-3)
    return float(((seen.to(expected) - expected).abs().max() / scale).detach())


def norm_distance(seen: Tensor, expected: Tensor, least: float = 0.0) -> float:
    """Norm of the difference, relative to that of the expected values, or to `least` where that is more."""
    return float(((seen.to(expected) - expected).norm() / expected.norm().clamp_min(least)).detach())


def outcome(layer: nn.Module, y: Tensor, x: Tensor) -> dict[str, Tensor]:
    """The output y, and the gradients of a fixed weighted sum of it by the input x and by every parameter, by name.

    Raises:
        Broken: the output has no gradient.
    """
    if not y.requires_grad:
        raise Broken("the output has no gradient: something is detached, or runs under no_grad")
    weights = torch.randn(y.shape, generator=seeded(2)("weights"), dtype=torch.float64).to(y)
    leaves = {"the input": x, **dict(layer.named_parameters())}
    slopes = torch.autograd.grad(
        (y * weights).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True, retain_graph=True
    )
    return {"output": y, **{f"gradient by {name}": slope for name, slope in zip(leaves, slopes, strict=True)}}


def rounded(layer: Attention, x: Tensor) -> Tensor:
    """What half precision is checked on: the images, or the projections of a layer that chooses tokens.

    From rounded queries it may choose others, and then nothing is near; from the same it chooses the same.
    """
    return layer.qkv(x).detach() if isinstance(layer, MultiHead) and layer.chooses else x


def on_rounded(layer: Attention) -> tuple[Mixing, Mixing]:
    """`forward` and `reference` as functions of what `rounded` gives, and of the ids."""
    if not (isinstance(layer, MultiHead) and layer.chooses):
        return layer, layer.reference

    def between(mix: Callable[..., Tensor]) -> Mixing:
        def on_projections(qkv: Tensor, ids: Tensor | None) -> Tensor:
            q, k, v = (y.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for y in qkv.chunk(3, dim=-1))
            return mix(q, k, v, ids).transpose(1, 2).flatten(2)

        return on_projections

    return between(layer.mix), between(layer.reference_mix)


def _visible(tokens: Tokens) -> int:
    return tokens.patches * 3 // 5
