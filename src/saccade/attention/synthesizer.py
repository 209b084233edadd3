"""Synthesizer: attention weights that no pair of tokens is compared for, made of one token or of none."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.attention.base import Attention
from saccade.attention.initial import GeneratorOf, fill_uniform, fill_with, fill_xavier, unseeded, within
from saccade.attention.parts import at_least_float32, require_whole, resize, without_autocast
from saccade.attention.tokens import Tokens

Kind = Literal["dense", "factorized_dense", "random", "factorized_random"]


class Synthesizer(Attention):
    """Weights made without comparing tokens, from each query's token or learned outright: softmax(S) V, no Q, no K.

    S has a row and a column for each token of the whole grid; a visible subset takes those of its ids before the
    softmax, which is as if all others were hidden by a mask.

    Args:
        kind: what S_ij is, for each head. "dense": column j of W₂ ReLU(W₁ xᵢ). "factorized_dense": f[j mod a] g[j // a]
            with f = xᵢ W_f of width a = ⌈√N⌉ and g = xᵢ W_g of width ⌈N / a⌉. "random": a learned number, which no
            image changes. "factorized_random": likewise, as the product R₁ R₂.
        rank: of R₁ R₂.
    """

    paper = "Tay et al. 2020, https://arxiv.org/abs/2005.00743"
    cost = "N² D"
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
        kind: Kind = "factorized_dense",
        rank: int = 8,
    ) -> None:
        if kind not in ("dense", "factorized_dense", "random", "factorized_random"):
            raise ValueError(
                f'synthesizer(kind={kind!r}): kind must be "dense", "factorized_dense", "random" or "factorized_random"'
            )
        require_whole("synthesizer", 1, rank=rank)
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.kind, self.rank = kind, rank
        self.head_dim = dim // num_heads
        self.v = nn.Linear(dim, dim)
        self.logits: Logits
        if kind == "dense":
            self.logits = Dense(dim, num_heads, tokens.count)
        elif kind == "factorized_dense":
            self.logits = FactorizedDense(dim, num_heads, tokens.count)
        elif kind == "random":
            self.logits = Random(num_heads, tokens.count)
        else:
            self.logits = FactorizedRandom(num_heads, tokens.count, rank)
        self.proj = nn.Linear(dim, dim)
        self.reset_parameters(unseeded)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        patches: Int[Tensor, "b p"] | None = None,
        outputs: slice | None = None,
    ) -> Float[Tensor, "b m w"]:
        """The wanted rows of S, their softmax, and what it makes of the values."""
        rows = slice(None) if outputs is None else outputs
        logits = self.logits.wanted(x[:, rows], rows, None if patches is None else self._ids(patches))
        return self.proj(synthesized(logits, self._values(x)).transpose(1, 2).flatten(2))

    def reference(self, x: Float[Tensor, "b n w"], patches: Int[Tensor, "b p"] | None = None) -> Float[Tensor, "b n w"]:
        """All columns of S, those of hidden tokens masked; the values of hidden tokens are zero."""
        if patches is None:
            patches = torch.arange(self.tokens.patches, device=x.device).expand(len(x), -1)
        places = nn.functional.one_hot(self._ids(patches), self.tokens.count).to(x.dtype)
        hidden = places.sum(1)[:, None, None] == 0
        weights = self.logits.reference(x, places).masked_fill(hidden, float("-inf")).softmax(-1)
        values = torch.einsum("bjc,bhje->bhce", places, self._values(x))
        return self.proj(torch.einsum("bhic,bhce->bihe", weights, values).flatten(2))

    def _ids(self, patches: Int[Tensor, "b p"]) -> Int[Tensor, "b n"]:
        """Places in the whole sequence, of the prefix tokens too."""
        prefix = self.tokens.prefix
        first = torch.arange(prefix, device=patches.device).expand(len(patches), -1)
        return torch.cat([first, patches + prefix], dim=1)

    def _values(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b h n e"]:
        return self.v(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def flops(self, patches: int, rows: int | None = None) -> int:
        """Two projections, S, and its product with the values."""
        n = self.tokens.prefix + patches
        rows = n if rows is None else rows
        return 2 * self.dim**2 * (n + rows) + self.logits.flops(rows, n) + 2 * rows * n * self.dim

    def refusal(self, patches: int) -> str | None:
        """A product of a rank as high as its size is any matrix."""
        count = self.tokens.count
        if self.kind != "factorized_random" or self.rank < count:
            return None
        allowed = f"must be 1..{count - 1}" if count > 1 else "needs at least 2 tokens"
        return (
            f'synthesizer(kind="factorized_random", rank={self.rank}) on {count} tokens: rank {allowed}; '
            'more would be kind="random" under another name'
        )

    @property
    def order_free(self) -> bool:
        """Each token has its own column."""
        return False

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Xavier's uniform for what is multiplied with tokens, zeros for biases, logits near normal where learned."""
        for name, linear in (("v", self.v), ("proj", self.proj)):
            fill_xavier(linear.weight, generator_of(f"{name}.weight"))
            nn.init.zeros_(linear.bias)
        self.logits.reset_parameters(within(generator_of, "logits"))

    @torch.no_grad()
    def resample(self, old: Tokens) -> None:
        """Rows and columns between the old ones, the prefix's as they are."""
        self.logits.resample(old, self.tokens)


def synthesized(logits: Float[Tensor, "#b h m n"], v: Float[Tensor, "b h n e"]) -> Float[Tensor, "b h m e"]:
    """softmax(S) V; where S is of no image, one matrix for all of them."""
    return torch.einsum("bhij,bhje->bhie", logits.softmax(-1).to(v.dtype), v)


class Logits(nn.Module, ABC):
    """What S is made of."""

    @abstractmethod
    def wanted(
        self, x: Float[Tensor, "b m w"], rows: slice, ids: Int[Tensor, "b n"] | None
    ) -> Float[Tensor, "#b h m n"]:
        """Wanted rows of S.

        Args:
            x: the tokens of the wanted rows.
            rows: which of the tokens that are there they are.
            ids: places of the tokens that are there; None means all.
        """

    @abstractmethod
    def reference(self, x: Float[Tensor, "b n w"], places: Float[Tensor, "b n c"]) -> Float[Tensor, "b h n c"]:
        """Rows of the tokens that are there, all columns; `places` has a one where each token belongs."""

    @abstractmethod
    def flops(self, rows: int, n: int) -> int:
        """Of `wanted` for one image."""

    @abstractmethod
    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Refills every parameter."""

    @abstractmethod
    def resample(self, old: Tokens, new: Tokens) -> None:
        """Brings every parameter to another grid."""


class Dense(Logits):
    """S_i = W₂ ReLU(W₁ xᵢ): a row is made of its own token."""

    def __init__(self, dim: int, num_heads: int, count: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.empty(num_heads, count, dim))
        self.bias = nn.Parameter(torch.empty(num_heads, count))

    def wanted(
        self, x: Float[Tensor, "b m w"], rows: slice, ids: Int[Tensor, "b n"] | None
    ) -> Float[Tensor, "b h m n"]:
        """Only the columns of tokens that are there are computed."""
        hidden = self.hidden(x).relu()
        if ids is None:
            return _by_head(hidden, self.weight, self.bias)
        weight, bias = (parameter[:, ids].transpose(0, 1) for parameter in (self.weight, self.bias))
        return hidden[:, None] @ weight.mT + bias[:, :, None]

    def reference(self, x: Float[Tensor, "b n w"], places: Float[Tensor, "b n c"]) -> Float[Tensor, "b h n c"]:
        """One sum for each head and column."""
        hidden = self.hidden(x).clamp_min(0)
        return torch.einsum("bnd,hcd->bhnc", hidden, self.weight) + self.bias[:, None]

    def flops(self, rows: int, n: int) -> int:
        """The hidden layer and the columns."""
        heads, _, dim = self.weight.shape
        return 2 * rows * dim * (dim + heads * n)

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Each head is a projection of its own."""
        fill_xavier(self.hidden.weight, generator_of("hidden.weight"))
        nn.init.zeros_(self.hidden.bias)
        _reset(self.weight, self.bias, generator_of("weight"))

    def resample(self, old: Tokens, new: Tokens) -> None:
        """Each column of the finer grid lies between old ones."""
        self.weight = _like(self.weight, _along(self.weight.mT, old, new).mT)
        self.bias = _like(self.bias, _along(self.bias, old, new))


class FactorizedDense(Logits):
    """S_ij = f[j mod a] g[j // a]: a row is the outer product of two short ones, made of its own token."""

    def __init__(self, dim: int, num_heads: int, count: int) -> None:
        super().__init__()
        self.count = count
        a, b = factors(count)
        self.weight_f = nn.Parameter(torch.empty(num_heads, a, dim))
        self.bias_f = nn.Parameter(torch.empty(num_heads, a))
        self.weight_g = nn.Parameter(torch.empty(num_heads, b, dim))
        self.bias_g = nn.Parameter(torch.empty(num_heads, b))

    def wanted(
        self, x: Float[Tensor, "b m w"], rows: slice, ids: Int[Tensor, "b n"] | None
    ) -> Float[Tensor, "b h m n"]:
        """The products of the columns that are there."""
        f, g = _by_head(x, self.weight_f, self.bias_f), _by_head(x, self.weight_g, self.bias_g)
        with without_autocast(x.device):
            return outer_logits(at_least_float32(f), at_least_float32(g), self.count, ids)

    def reference(self, x: Float[Tensor, "b n w"], places: Float[Tensor, "b n c"]) -> Float[Tensor, "b h n c"]:
        """Column by column."""
        f = torch.einsum("bnd,had->bhna", x, self.weight_f) + self.bias_f[:, None]
        g = torch.einsum("bnd,had->bhna", x, self.weight_g) + self.bias_g[:, None]
        a = f.shape[-1]
        return torch.stack([f[..., j % a] * g[..., j // a] for j in range(self.count)], dim=-1)

    def flops(self, rows: int, n: int) -> int:
        """Of f and g; their products are elementwise."""
        return 2 * rows * (self.weight_f.numel() + self.weight_g.numel())

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Each head's f and g are projections of their own."""
        _reset(self.weight_f, self.bias_f, generator_of("weight_f"))
        _reset(self.weight_g, self.bias_g, generator_of("weight_g"))

    def resample(self, old: Tokens, new: Tokens) -> None:
        """f and g each between their old values: bilinear on a square grid without prefix, else only near to it."""
        self.count = new.count
        for letter, length in zip("fg", factors(new.count), strict=True):
            weight, bias = self.get_parameter(f"weight_{letter}"), self.get_parameter(f"bias_{letter}")
            setattr(self, f"weight_{letter}", _like(weight, _stretched(weight.mT, length).mT))
            setattr(self, f"bias_{letter}", _like(bias, _stretched(bias[None], length)[0]))


class Random(Logits):
    """S is learned, and the same for every image."""

    def __init__(self, num_heads: int, count: int) -> None:
        super().__init__()
        self.S = nn.Parameter(torch.empty(num_heads, count, count))

    def wanted(
        self, x: Float[Tensor, "b m w"], rows: slice, ids: Int[Tensor, "b n"] | None
    ) -> Float[Tensor, "#b h m n"]:
        """Rows and columns of the tokens that are there."""
        if ids is None:
            return self.S[None, :, rows]
        return self.S[:, ids[:, rows, None], ids[:, None]].transpose(0, 1)

    def reference(self, x: Float[Tensor, "b n w"], places: Float[Tensor, "b n c"]) -> Float[Tensor, "b h n c"]:
        """The row of each token's place."""
        return torch.einsum("bnr,hrc->bhnc", places, self.S)

    def flops(self, rows: int, n: int) -> int:
        """It is looked up."""
        return 0

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Normal numbers."""
        fill_with(self.S, partial(nn.init.normal_, generator=generator_of("S")))

    def resample(self, old: Tokens, new: Tokens) -> None:
        """Columns first, then rows."""
        self.S = _like(self.S, _along(_along(self.S, old, new).mT, old, new).mT)


class FactorizedRandom(Logits):
    """S = R₁ R₂ is learned, and the same for every image."""

    def __init__(self, num_heads: int, count: int, rank: int) -> None:
        super().__init__()
        self.R1 = nn.Parameter(torch.empty(num_heads, count, rank))
        self.R2 = nn.Parameter(torch.empty(num_heads, rank, count))

    def wanted(
        self, x: Float[Tensor, "b m w"], rows: slice, ids: Int[Tensor, "b n"] | None
    ) -> Float[Tensor, "#b h m n"]:
        """Rows of R₁ and columns of R₂ of the tokens that are there."""
        if ids is None:
            return (self.R1[:, rows] @ self.R2)[None]
        return (self.R1[:, ids[:, rows]] @ self.R2.mT[:, ids].mT).transpose(0, 1)

    def reference(self, x: Float[Tensor, "b n w"], places: Float[Tensor, "b n c"]) -> Float[Tensor, "b h n c"]:
        """The row of each token's place."""
        return torch.einsum("bnr,hrk,hkc->bhnc", places, self.R1, self.R2)

    def flops(self, rows: int, n: int) -> int:
        """The product, which one image needs as much as a batch does."""
        heads, _, rank = self.R1.shape
        return 2 * heads * rows * n * rank

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Normal numbers of rank^-¼, so that the logits deviate by 1; of 1, as published, by √rank."""
        for name, factor in (("R1", self.R1), ("R2", self.R2)):
            std = self.R1.shape[2] ** -0.25
            fill_with(factor, partial(nn.init.normal_, std=std, generator=generator_of(name)))

    def resample(self, old: Tokens, new: Tokens) -> None:
        """Rows of R₁ and columns of R₂."""
        self.R1 = _like(self.R1, _along(self.R1.mT, old, new).mT)
        self.R2 = _like(self.R2, _along(self.R2, old, new))


def factors(count: int) -> tuple[int, int]:
    """Widths a = ⌈√N⌉ and b = ⌈N / a⌉ of the two factors of a row of N logits."""
    a = math.isqrt(count - 1) + 1
    return a, -(-count // a)


def outer_logits(
    f: Float[Tensor, "b h m a"], g: Float[Tensor, "b h m c"], count: int, ids: Int[Tensor, "b n"] | None
) -> Float[Tensor, "b h m n"]:
    """f[j mod a] g[j // a] for the columns j of `ids`, or for all `count` of them."""
    if ids is None:
        return (g[..., :, None] * f[..., None, :]).flatten(-2)[..., :count]
    a, shape = f.shape[-1], (*f.shape[:3], ids.shape[1])
    columns = ids[:, None, None]
    return f.gather(-1, (columns % a).expand(shape)) * g.gather(-1, (columns // a).expand(shape))


def _by_head(
    x: Float[Tensor, "b m w"], weight: Float[Tensor, "h k w"], bias: Float[Tensor, "h k"]
) -> Float[Tensor, "b h m k"]:
    """A projection for each head, all in one product."""
    return nn.functional.linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, bias.shape).transpose(1, 2)


def _reset(weight: Float[Tensor, "h k w"], bias: Float[Tensor, "h k"], generator: torch.Generator) -> None:
    """Xavier's uniform for each head."""
    _, outputs, inputs = weight.shape
    fill_uniform(weight, generator, (6 / (inputs + outputs)) ** 0.5)
    nn.init.zeros_(bias)


def _along(values: Float[Tensor, "h *r n"], old: Tokens, new: Tokens) -> Float[Tensor, "h *r m"]:
    """The last dimension, which is the tokens of the old grid, brought to the new one; the prefix stays."""
    prefix, patches = values.tensor_split([old.prefix], dim=-1)
    maps = patches.flatten(0, -2).unflatten(-1, old.grid)
    return torch.cat([prefix, resize(maps, new.grid).reshape(*patches.shape[:-1], -1)], dim=-1)


def _stretched(values: Float[Tensor, "h r n"], length: int) -> Float[Tensor, "h r m"]:
    """The last dimension brought to another length, linearly."""
    return resize(values, (values.shape[1], length))


def _like(old: nn.Parameter, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=old.requires_grad)
