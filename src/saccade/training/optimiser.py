"""AdamW in float32 whatever the weights are, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Devices whose AdamW is one kernel.
_FUSED = ("cpu", "cuda", "mps", "xpu")


class AdamW:
    """torch's fused AdamW over float32 weights.

    Weights of a smaller type get a float32 master copy, which is what the optimiser changes; after each step the model
    is given the copy, rounded. Small updates are then not lost, and the model computes in its own type.

    Args:
        model: its weights as they start, still in float32; `model.to(dtype)` comes afterwards.
        weight_decay: on tensors of two or more axes that `model.no_weight_decay()` does not name.
        betas: of the running means.
    """

    def __init__(self, model: nn.Module, *, weight_decay: float, betas: tuple[float, float]) -> None:
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.weights = list(trained.values())
        # Detached, they share memory with the model's own for as long as those are float32.
        self.masters = [nn.Parameter(weight.detach()) for weight in self.weights]
        device = self.weights[0].device.type
        self.torch = torch.optim.AdamW(
            _groups(trained, self.masters, getattr(model, "no_weight_decay", set)(), weight_decay),
            lr=0.0,
            betas=betas,
            fused=device in _FUSED,
        )

    def take_gradients(self) -> Float[Tensor, ""]:
        """Brings the model's gradients to the masters, in float32; returns the length of all of them together."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        return torch.nn.utils.get_total_norm([master.grad for master in self.masters if master.grad is not None])

    def step(self, rate: float, *, norm: Float[Tensor, ""], longest: float) -> None:
        """One step at learning rate `rate`, gradients of length `norm` scaled down to `longest` unless that is 0."""
        if longest:
            torch.nn.utils.clip_grads_with_norm_(self.masters, longest, norm)
        for group in self.torch.param_groups:
            group["lr"] = rate
        self.torch.step()
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        # A float32 weight is its own master.
        copied = [pair for pair in zip(self.weights, self.masters, strict=True) if pair[0].dtype != pair[1].dtype]
        if copied:
            weights, masters = zip(*copied, strict=True)
            torch._foreach_copy_(weights, masters)


def learning_rate(step: int, *, steps: int, warmup_steps: int, highest: float, lowest: float, schedule: str) -> float:
    """The rate of one step: a linear rise to `highest`, then half a cosine towards `lowest`, or constant.

    Args:
        step: from 0 to steps - 1.
        steps: of the whole run; the cosine would be at `lowest` in the step after the last.
        warmup_steps: the last of them is the first at `highest`.
        highest: the peak.
        lowest: where the cosine goes.
        schedule: "cosine" or "constant".
    """
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    if schedule == "constant":
        return highest
    done = (step - warmup_steps) / (steps - warmup_steps)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * done))


def _groups(
    trained: dict[str, nn.Parameter], masters: list[nn.Parameter], kept: set[str], weight_decay: float
) -> list[dict[str, object]]:
    """Two groups: matrices decay; biases, norms and what the model names do not."""
    free = [weight.ndim < 2 or name in kept for name, weight in trained.items()]
    pairs = list(zip(masters, free, strict=True))
    return [
        {"params": [master for master, is_free in pairs if not is_free], "weight_decay": weight_decay},
        {"params": [master for master, is_free in pairs if is_free], "weight_decay": 0.0},
    ]
