"""Norms that are computed again in backward: a product keeps a norm's input, kept in any case, and not its output.

`normed(norm, x)` is norm(x), and remembers how it was made. Whoever multiplies it by weights through `product` (the
projections of a `MultiHead`, the MLP) has the same output and gradients as ever; whoever does anything else with it
sees a tensor like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from saccade.attention.elsewhere import device_type
from saccade.attention.parts import without_autocast

_NAME = "saccade_origin"

# Less than this is kept: to compute it again would take longer than it is worth.
KEPT_BYTES = 2**18


@dataclass(frozen=True, eq=False)
class Origin:
    """How a normalised tensor was made.

    Attributes:
        x: the norm's input.
        weight: of the norm.
        bias: of the norm.
        eps: of the norm.
        version: of the tensor that was made: who changes it in place ends what is known of it.
    """

    x: Float[Tensor, "b n w"]
    weight: Float[Tensor, " w"] | None
    bias: Float[Tensor, " w"] | None
    eps: float
    version: int


def normed(norm: nn.Module, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
    """norm(x); in training on a CPU it remembers x.

    Elsewhere, below `KEPT_BYTES`, under torch.compile (which chooses what it keeps) and in eval mode (where gradients
    of any order work) it is nothing but norm(x). Transforms of torch.func (grad, vmap) are not for training mode on
    a CPU, where products have a backward of their own: put the model into eval mode for them.
    """
    y: Tensor = norm(x)
    if type(norm) is not nn.LayerNorm or _heard(norm) or torch.compiler.is_compiling():
        return y
    if y.nbytes < KEPT_BYTES:
        return y
    if norm.training and y.requires_grad and device_type(y.device) == "cpu":
        vars(y)[_NAME] = Origin(x, norm.weight, norm.bias, norm.eps, y._version)
    return y


def origin_of(y: Tensor) -> Origin | None:
    """How it was made, if `normed` made it and nobody has changed it since."""
    origin: Origin | None = getattr(y, _NAME, None)
    return origin if origin is not None and torch.is_grad_enabled() and origin.version == y._version else None


def again(
    x: Float[Tensor, "*n w"], weight: Float[Tensor, " w"] | None, bias: Float[Tensor, " w"] | None, eps: float
) -> Float[Tensor, "*n w"]:
    """The norm of these rows once more."""
    return nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def project(linear: nn.Module, y: Float[Tensor, "b n w"]) -> Float[Tensor, "b n o"]:
    """linear(y), by `product` where that is nothing else than a product."""
    if type(linear) is not nn.Linear or _heard(linear):
        z: Tensor = linear(y)
        return z
    return product(y, linear.weight, linear.bias)


def product(
    y: Float[Tensor, "b n w"], weight: Float[Tensor, "o w"], bias: Float[Tensor, " o"] | None, rows: slice | None = None
) -> Float[Tensor, "b m o"]:
    """weight · y + bias for the wanted rows (None: all); what `normed` made is not kept for backward."""
    origin = origin_of(y)
    y = y if rows is None else y[:, rows]
    if origin is None:
        return nn.functional.linear(y, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    x = origin.x if rows is None else origin.x[:, rows]
    z: Tensor = _Product.apply(y, weight, bias, x, origin.weight, origin.bias, origin.eps)
    return z


def _heard(layer: nn.Module) -> bool:
    """Whether somebody listens to a layer, or changes what goes in and out."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


class _Product(torch.autograd.Function):
    """weight · y + bias, differentiable once; of y = norm(x), x is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Float[Tensor, "b n w"],
        weight: Float[Tensor, "o w"],
        bias: Float[Tensor, " o"] | None,
        x: Float[Tensor, "b n w"],
        norm_weight: Float[Tensor, " w"] | None,
        norm_bias: Float[Tensor, " w"] | None,
        eps: float,
    ) -> Float[Tensor, "b n o"]:
        # The gradient of y goes on to the norm: x and the norm's weights have none from here.
        ctx.save_for_backward(weight, x, norm_weight, norm_bias)
        ctx.eps, ctx.biased = eps, bias is not None
        with without_autocast(y.device):
            return nn.functional.linear(y.to(weight.dtype), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Float[Tensor, "b n o"]) -> tuple[Tensor | float | None, ...]:  # type: ignore[override]
        weight, x, norm_weight, norm_bias = ctx.saved_tensors
        with without_autocast(dz.device):
            dz = dz.reshape(-1, dz.shape[-1])
            dy = (dz @ weight).view(x.shape).to(x.dtype)
            dweight = None
            if ctx.needs_input_grad[1]:
                y = again(x, norm_weight, norm_bias, ctx.eps)
                dweight = dz.t() @ y.flatten(0, 1).to(weight.dtype)
            return dy, dweight, dz.sum(0) if ctx.biased else None, None, None, None, None
