"""The layer between two attentions: `Mlp`, computed tile by tile where that is faster, and `SwiGLU`."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from saccade.attention.elsewhere import device_type, in_turn
from saccade.attention.initial import GeneratorOf, fill_normal, fill_xavier
from saccade.attention.renormed import Origin, again, origin_of

# A tile's hidden values stay in the processor's cache, and below the size at which glibc maps fresh pages for every
# tensor. Fewer rows than these would slow the matrix products of wide models.
TILE_BYTES = 4 * 2**20
TILE_ROWS = 2048
# Of fewer hidden values the plain formula keeps little, and is faster than an own backward.
PLAIN_BYTES = 2**20


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))), under timm's names.

    On a CPU the rows are computed in tiles, 1.4 x faster than in one piece, and of the hidden values only those before
    the GELU are kept for backward, half the memory. Elsewhere, below `PLAIN_BYTES` of hidden values, where dropout
    acts, under torch.compile (which keeps what it likes), and for gradients in eval mode (of any order) it is the plain
    formula.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
        """Widens, bends, narrows."""
        if self._in_tiles(x):
            return tiled_mlp(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        return self.drop(self.fc2(self.drop(nn.functional.gelu(self.fc1(x)))))

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """Xavier's uniform, zero biases."""
        reset_linear(self.fc1, generator_of, "fc1")
        reset_linear(self.fc2, generator_of, "fc2")

    def flops(self, rows: int) -> int:
        """Two matrix products."""
        return 2 * rows * (self.fc1.weight.numel() + self.fc2.weight.numel())

    def _in_tiles(self, x: Tensor) -> bool:
        if device_type(x.device) != "cpu" or torch.compiler.is_compiling():
            return False
        if x.shape[:-1].numel() * self.fc1.out_features * x.element_size() < PLAIN_BYTES:
            return False
        return self.drop.p == 0 if self.training else not torch.is_grad_enabled()


class SwiGLU(nn.Module):
    """fc2(SiLU(fc1_g(x)) · fc1_x(x)), under timm's names (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(dim, hidden)
        self.fc1_x = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
        """Widens twice, gates, narrows."""
        return self.drop(self.fc2(self.drop(nn.functional.silu(self.fc1_g(x)) * self.fc1_x(x))))

    def reset_parameters(self, generator_of: GeneratorOf) -> None:
        """As Mlp, but the gate starts open: weights near zero and a bias of one, as timm's does."""
        for name in ("fc1_g", "fc1_x", "fc2"):
            reset_linear(getattr(self, name), generator_of, name)
        fill_normal(self.fc1_g.weight, generator_of("fc1_g.weight"), std=1e-6)
        nn.init.ones_(self.fc1_g.bias)

    def flops(self, rows: int) -> int:
        """Three matrix products."""
        return 2 * rows * (self.fc1_g.weight.numel() + self.fc1_x.weight.numel() + self.fc2.weight.numel())


def tiled_mlp(
    x: Float[Tensor, "*n w"],
    weight1: Float[Tensor, "h w"],
    bias1: Float[Tensor, " h"],
    weight2: Float[Tensor, "w h"],
    bias2: Float[Tensor, " w"],
) -> Float[Tensor, "*n w"]:
    """weight2 · GELU(weight1 · x + bias1) + bias2, a tile of rows at a time; differentiable once.

    Where x was made by `normed`, it is computed again in backward and not kept.
    """
    origin, shape = origin_of(x), x.shape
    given: tuple[Tensor, ...] = (x.reshape(-1, shape[-1]), weight1, bias1, weight2, bias2)
    if torch.is_autocast_enabled(x.device.type):
        given = tuple(tensor.to(torch.get_autocast_dtype(x.device.type)) for tensor in given)
    y = _TiledMlp.apply(origin, *given) if torch.is_grad_enabled() else _forward_tiles(None, *given)
    return y.view(shape)


class _TiledMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        origin: Origin | None,
        x: Float[Tensor, "n w"],
        weight1: Float[Tensor, "h w"],
        bias1: Float[Tensor, " h"],
        weight2: Float[Tensor, "w h"],
        bias2: Float[Tensor, " w"],
    ) -> Float[Tensor, "n w"]:
        kept: list[Tensor] = []
        y = _forward_tiles(kept, x, weight1, bias1, weight2, bias2)
        of_x = (x, None, None) if origin is None else (origin.x, origin.weight, origin.bias)
        ctx.save_for_backward(*of_x, weight1, weight2, *kept)
        ctx.eps = None if origin is None else origin.eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Float[Tensor, "n w"]) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, norm_weight, norm_bias, weight1, weight2, *kept = ctx.saved_tensors
        x = x.reshape(-1, x.shape[-1])
        dx = torch.empty_like(dy)
        dweight1: Any = None
        dweight2: Any = None
        dbias1 = []
        rows = len(kept[0])
        # One for all tiles and for all that passes through it: the system maps fresh pages slowly.
        space = torch.empty_like(kept[0])
        for hidden, x_tile, dy_tile, dx_tile in zip(kept, x.split(rows), dy.split(rows), dx.split(rows), strict=True):
            dhidden = space[: len(hidden)]
            dweight2 = _with_product(dweight2, dy_tile.t(), torch.ops.aten.gelu.out(hidden, out=dhidden))
            torch.mm(dy_tile, weight2, out=dhidden)
            torch.ops.aten.gelu_backward.grad_input(dhidden, hidden, grad_input=dhidden)
            if ctx.eps is not None:
                x_tile = again(x_tile, norm_weight, norm_bias, ctx.eps).to(weight1.dtype)
            dweight1 = _with_product(dweight1, dhidden.t(), x_tile)
            dbias1.append(dhidden.sum(0))
            torch.mm(dhidden, weight1, out=dx_tile)
        return None, dx, dweight1.to(dx.dtype), torch.stack(dbias1).sum(0), dweight2.to(dx.dtype), dy.sum(0)


def _forward_tiles(
    kept: list[Tensor] | None,
    x: Float[Tensor, "n w"],
    weight1: Float[Tensor, "h w"],
    bias1: Float[Tensor, " h"],
    weight2: Float[Tensor, "w h"],
    bias2: Float[Tensor, " w"],
) -> Float[Tensor, "n w"]:
    """Computes the output; the hidden values before the GELU are appended to `kept`, a tensor a tile."""
    tiles = math.ceil(len(x) / max(TILE_ROWS, TILE_BYTES // (len(weight1) * x.element_size())))
    rows = math.ceil(len(x) / max(tiles, 1))
    y, bent = torch.empty_like(x), x.new_empty(rows, len(weight1))
    every = [slice(start, start + rows) for start in range(0, max(len(x), 1), max(rows, 1))]
    for few in in_turn(every, x, (y,)) if kept is None else every:
        hidden = torch.addmm(bias1, x[few], weight1.t())
        bent_tile = torch.ops.aten.gelu.out(hidden, out=bent[: len(hidden)])
        torch.addmm(bias2, bent_tile, weight2.t(), out=y[few])
        if kept is not None:
            kept.append(hidden)
    return y


def _with_product(
    total: Float[Tensor, "i k"] | None, left: Float[Tensor, "i j"], right: Float[Tensor, "j k"]
) -> Float[Tensor, "i k"]:
    """total + left · right; the products of many tiles are summed in float32 at least."""
    if total is None:
        return left @ right
    if torch.finfo(left.dtype).bits >= 32:
        return total.addmm_(left, right)
    return total.float().add_(left @ right)


def reset_linear(linear: nn.Linear, generator_of: GeneratorOf, name: str) -> None:
    """Xavier's uniform, zero bias: the start of the first ViT and of MAE."""
    fill_xavier(linear.weight, generator_of(f"{name}.weight"))
    nn.init.zeros_(linear.bias)
