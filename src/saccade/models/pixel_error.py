"""The error of predicted pixels, a few images at a time: what was to be predicted is made for these alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.attention.elsewhere import in_turn
from saccade.attention.parts import at_least_float32

# What is made of so many predicted values stays in the processor's cache; fresh pages would cost more than the sums.
TILE_BYTES = 2**20

Targets = Callable[[slice], Float[Tensor, "c m p"]]
"""The true values of a slice of the images, in float32 at least."""


def tiled_error(predicted: Float[Tensor, "b m p"], targets: Targets, absolute: bool) -> Float[Tensor, ""]:
    """The mean squared or absolute error, in float32 at least; differentiable once.

    Neither the true values nor the differences are ever there for all images: of the batch only the prediction's
    gradient is kept, in the prediction's own dtype.

    Args:
        predicted: for every image.
        targets: of some of them.
        absolute: the mean absolute error, not the squared one.
    """
    error: Tensor = _TiledError.apply(predicted, targets, absolute)
    return error


class _TiledError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Float[Tensor, "b m p"], targets: Targets, absolute: bool) -> Float[Tensor, ""]:
        slope = torch.empty_like(predicted) if ctx.needs_input_grad[0] else None
        images = max(1, TILE_BYTES // max(1, predicted[0].nbytes))
        errors = predicted.new_empty(len(predicted), dtype=torch.promote_types(predicted.dtype, torch.float32))
        every = (slice(start, start + images) for start in range(0, len(predicted), images))
        for few in in_turn(every, predicted, (errors,) if slope is None else (errors, slope)):
            difference = at_least_float32(predicted[few]) - targets(few)
            errors[few] = (difference.abs() if absolute else difference.square()).sum((1, 2))
            if slope is not None:
                one = difference.sign_() if absolute else difference.mul_(2)
                slope[few] = one.div_(predicted.numel())
        ctx.save_for_backward(slope)
        return errors.sum() / predicted.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return slope * gradient.to(slope.dtype), None, None
