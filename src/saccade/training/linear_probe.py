"""The linear probe: the best linear classifier of frozen features, to its optimum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

# From strong to weak; for features of unit variance.
PENALTIES = tuple(10.0**-exponent for exponent in range(1, 8))

# As the BatchNorm before MAE's linear head.
_EPSILON = 1e-6

_MOST_STEPS = 500
_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier.

    Attributes:
        weight: a row a class.
        bias: of each class.
        penalty: what it was fitted with.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    penalty: float

    def classify(self, x: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
        """The most likely class of each row."""
        return torch.cat([self._logits(rows).argmax(dim=1).to(x.device) for rows in x.split(_ROWS)])

    def loss(self, x: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> float:
        """Mean cross entropy."""
        parts = zip(x.split(_ROWS), labels.split(_ROWS), strict=True)
        losses = (_cross_entropy(self._logits(rows), some.to(self.weight.device)).item() for rows, some in parts)
        return sum(losses) / len(x)

    def _logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return x.to(self.weight.device).to(self.weight.dtype) @ self.weight.T + self.bias


def fitted(
    x: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    *,
    batch_norm: bool,
    penalties: Sequence[float] = PENALTIES,
) -> Iterator[Linear]:
    """The minimum of mean cross entropy + penalty / 2 · ‖W‖² over W and b, for each penalty, from strong to weak.

    With `batch_norm` W acts on features that have each its own mean and deviation taken out, as by the affine-free
    BatchNorm of MAE's linear probe, here of the whole training part at once; without, on the features over one number,
    the root of their mean variance, so that a penalty means the same at any scale. The bias is free.

    The objective is convex: there is one minimum, and neither seed nor learning rate nor batch enters the result, as
    they do where a probe is trained for so many epochs (MAE's 90 of LARS at batch 16,384 are 270 steps on 50,000
    images). L-BFGS, with a penalty chosen on a validation part, is how CLIP was probed (Radford et al. 2021, appendix
    A.3, https://arxiv.org/abs/2103.00020). It runs along the principal axes of the features, each scaled by Böhning's
    bound on the curvature there (1992, https://doi.org/10.1007/BF00048682), so that badly scaled features converge,
    too; in float64, and for each penalty from where the one before arrived.

    Args:
        x: features of the training images.
        labels: their classes.
        classes: how many there are.
        batch_norm: whether each feature is brought to unit variance.
        penalties: above 0.

    Raises:
        ValueError: no penalty, or one that is not above 0.
    """
    if not penalties or not all(penalty > 0 for penalty in penalties):
        raise ValueError(f"penalties={tuple(penalties)}: give one or more numbers above 0")
    # Apple's GPUs have no float64.
    x, labels = (part.to("cpu") if part.device.type == "mps" else part for part in (x, labels))
    x = x.double()
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    scale = (variance + _EPSILON if batch_norm else variance.mean().clamp_min(1e-30).expand_as(variance)).rsqrt()
    x = (x - mean) * scale
    curvature, axes = torch.linalg.eigh(x.T @ x / len(x))
    x = x @ axes
    weight = x.new_zeros(classes, x.shape[1])
    bias = x.new_zeros(classes)
    for penalty in sorted(penalties, reverse=True):
        weight, bias = _minimum(x, labels, weight, bias, penalty, curvature.clamp_min(0) / 2)
        in_features = weight @ axes.T * scale
        yield Linear(in_features, bias - in_features @ mean, penalty)


def _minimum(
    x: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    weight: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"],
    penalty: float,
    curvature: Float[Tensor, " d"],
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """L-BFGS from the given weights, in units in which the curvature is about one in every direction."""
    unit = (curvature + penalty).rsqrt()
    u, b = (weight / unit).requires_grad_(), bias.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [u, b],
        max_iter=_MOST_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        """Its value; gradients of a few rows at a time, so that no table of images x classes is held."""
        optimiser.zero_grad()
        total = penalty / 2 * (u * unit).square().sum()
        total.backward()
        for rows, some in zip(x.split(_ROWS), labels.split(_ROWS), strict=True):
            part = _cross_entropy(rows @ (u * unit).T + b, some) / len(x)
            part.backward()
            total = total + part.detach()
        return total.detach()

    with torch.enable_grad():
        optimiser.step(objective)
    return (u * unit).detach(), b.detach()


def _cross_entropy(logits: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    return nn.functional.cross_entropy(logits, labels, reduction="sum")
