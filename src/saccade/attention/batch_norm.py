"""BatchNorm of tokens: statistics never below float32, and counted once where checkpointing runs a layer twice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.parts import at_least_float32


class BatchNorm(nn.Module):
    """Normalises each channel over the tokens of all images, and in eval mode by the running statistics.

    Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, with torch's defaults.

    Args:
        width: channels.

    Raises:
        ValueError: forward in training on a single token, whose deviation is 0.
    """

    EPSILON = 1e-5
    MOMENTUM = 0.1

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        """Normalises; in training it also moves the running statistics."""
        if self.training and x.shape[:2].numel() == 1:
            raise ValueError(
                'norm="batch" in training needs at least 2 tokens in a batch, and saw one image of one token: '
                'take a larger batch, or norm="layer"'
            )
        statistics = self.running_mean, self.running_var
        if self.training and repeated():
            # Moved in vain: checkpointing wants the same tensors saved as the first time.
            statistics = statistics[0].clone(), statistics[1].clone()
        y = nn.functional.batch_norm(
            at_least_float32(x).flatten(0, 1),
            *statistics,
            at_least_float32(self.weight),
            at_least_float32(self.bias),
            self.training,
            self.MOMENTUM,
            self.EPSILON,
        )
        return y.to(x.dtype).view_as(x)

    def reference(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        """The formula, moving nothing."""
        mean = x.mean((0, 1)) if self.training else self.running_mean
        variance = (x - mean).square().mean((0, 1)) if self.training else self.running_var
        return (x - mean) / (variance + self.EPSILON).sqrt() * self.weight + self.bias

    def reset_parameters(self) -> None:
        """Ones and zeros, statistics too."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.running_mean)
        nn.init.ones_(self.running_var)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BatchNorm:
        """As any module is moved and cast, except that the statistics stay float32 at least."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            if buffer.dtype.itemsize < 4:
                kept = buffer if before[name].is_meta else before[name]
                setattr(self, name, kept.to(buffer.device, torch.float32))
        return self


def repeated() -> bool:
    """Whether this forward pass runs inside a backward pass: activation checkpointing repeats what was not kept."""
    # A compiler sees each pass once, and traces no look at autograd's inside.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
