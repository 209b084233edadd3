"""How a layer is compared with code that is not ours: outputs, and the gradients of everything both can learn."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saccade.attention import Tokens, build
from saccade.attention.base import Attention


def lively(attention: str, dim: int, num_heads: int, tokens: Tokens) -> Attention:
    """A layer in float64 with weights of order one: scores that are flat hide faults."""
    layer = build(attention, dim, num_heads, tokens).double()
    enliven(layer)
    return layer


@torch.no_grad()
def enliven(module: nn.Module, std: float = 0.3) -> None:
    for number, parameter in enumerate(module.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def images(batch: int, count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def visible(batch: int, tokens: Tokens, patches: int) -> Tensor:
    """Ascending ids of visible patches, others for each image."""
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randperm(tokens.patches, generator=generator)[:patches] for _ in range(batch)]).sort()[0]


def slopes(y: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a weighted sum of y."""
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return torch.autograd.grad((y * weights).sum(), leaves)
