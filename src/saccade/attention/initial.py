"""Initial values: what a parameter starts from is a function of the seed and of its name, and of nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

GeneratorOf = Callable[[str], torch.Generator]


def seeded(seed: int, prefix: str = "") -> GeneratorOf:
    """Generators by name: f(seed, prefix + name), on the CPU, so that equal names start equal on every device."""

    def generator_of(name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{seed}:{prefix}{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    return generator_of


def within(generator_of: GeneratorOf, prefix: str) -> GeneratorOf:
    """The generators of a submodule: `name` there is `prefix.name` here."""
    return lambda name: generator_of(f"{prefix}.{name}")


def unseeded(name: str) -> torch.Generator:
    """Torch's global generator for every name: what a layer built by hand starts from, as torch users expect."""
    return torch.default_generator


@torch.no_grad()
def fill_normal(tensor: Tensor, generator: torch.Generator, std: float = 0.02) -> None:
    """Fills with a normal of `std`, cut off at two absolute units as timm's trunc_normal_ is."""
    fill_with(tensor, lambda values: torch.nn.init.trunc_normal_(values, std=std, generator=generator))


@torch.no_grad()
def fill_xavier(tensor: Tensor, generator: torch.Generator, matrices: int = 1) -> None:
    """Fills the weight of a projection so that it keeps the size of what passes, whatever its width.

    Uniform in ±√(6 / (inputs + outputs)), as the first ViT and MAE start (Glorot and Bengio 2010). A constant 0.02, as
    in timm, is that for a width of about 2,500; at width 32 nothing gets through for the first epochs.

    Args:
        tensor: (outputs, inputs).
        generator: of its name.
        matrices: how many projections lie above each other in the tensor, as q, k and v do.
    """
    outputs, inputs = tensor.shape
    fill_uniform(tensor, generator, (6 / (inputs + outputs // matrices)) ** 0.5)


@torch.no_grad()
def fill_uniform(tensor: Tensor, generator: torch.Generator, bound: float) -> None:
    """Fills with values uniform in -bound..bound."""
    fill_with(tensor, lambda values: values.uniform_(-bound, bound, generator=generator))


@torch.no_grad()
def fill_with(tensor: Tensor, draw: Callable[[Tensor], object]) -> None:
    """Draws in float32 on the CPU and copies, so that device and dtype do not change what was drawn."""
    if tensor.is_meta:
        return
    values = torch.empty(tensor.shape, dtype=torch.float32)
    draw(values)
    tensor.copy_(values)
