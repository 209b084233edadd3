"""What lives in a measuring process of a layer: it is checked against its reference, then timed, or weighed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention import build
from saccade.attention.base import Attention
from saccade.attention.contract import gate
from saccade.attention.tokens import Tokens
from saccade.measurement.allocator import trim
from saccade.measurement.benching.layer import WHAT, LayerSubject, kernel, subject_from
from saccade.measurement.compiling import compiled
from saccade.measurement.machine import free_bytes
from saccade.measurement.memory.predict import predicted_bytes
from saccade.measurement.memory.scale import scale_for
from saccade.measurement.step import autocast
from saccade.measurement.terms import Terms
from saccade.measurement.timed import Timed

# The reference may take no more of the free memory than this: the other rivals need some.
GATE_SHARE = 0.4


class Forward:
    """A pass without gradients, in eval mode."""

    def __init__(self, module: nn.Module, inputs: list[Tensor], terms: Terms) -> None:
        self.module, self.inputs, self.terms = module, inputs, terms
        self.run = compiled(module, terms)

    @torch.no_grad()
    def __call__(self) -> None:
        """One pass."""
        self.module.eval()
        with autocast(self.terms):
            self.run(*self.inputs)


class ForwardBackward:
    """A pass and the gradients by every input and weight, in training mode.

    Args:
        module: what is called.
        inputs: what it is given; they become leaves.
        terms: device and autocast.
        shape: of the output; None for that of the first input.
    """

    def __init__(
        self, module: nn.Module, inputs: list[Tensor], terms: Terms, shape: tuple[int, ...] | None = None
    ) -> None:
        self.module, self.inputs, self.terms = module, [one.requires_grad_() for one in inputs], terms
        self.run = compiled(module, terms)
        self.leaves = [*self.inputs, *(weight for weight in module.parameters() if weight.requires_grad)]
        self.dy = normal([shape or tuple(inputs[0].shape)], inputs[0].dtype, terms, seed=1)[0]

    def __call__(self) -> None:
        """One pass and its gradients, which are dropped."""
        self.module.train()
        with autocast(self.terms):
            y = self.run(*self.inputs)
        torch.autograd.grad(y, self.leaves, self.dy.to(y.dtype), allow_unused=True)


def normal(shapes: list[tuple[int, ...]], dtype: torch.dtype, terms: Terms, seed: int = 0) -> list[Tensor]:
    """Normal numbers, the same in every process."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(terms.device, dtype) for shape in shapes]


def timed_layer(subject: dict[str, Any], what: Sequence[str] = WHAT) -> Timed:
    """A subject, checked against its reference: what a bench puts into a process.

    Args:
        subject: a `LayerSubject` as `asdict` made it plain.
        what: of `layer.WHAT`.

    Raises:
        Broken: an attention whose output or gradients are not its reference's is not timed.
    """
    one = subject_from(subject)
    gated = pass_the_gate(one)
    acts: dict[str, Callable[[], None]] = {}
    for part in (part for part in what if one.lacks(part) is None):
        module, inputs = one.module(part), normal(one.shapes(part), one.dtype(part), one.terms)
        for act, made in zip(one.acts, (Forward, ForwardBackward), strict=True):
            acts[f"{one.act_prefix(part)}{act}"] = made(module, inputs, one.terms)
    return Timed(acts, one.terms, {**kernel(one), "gated_tokens": gated})


def pass_the_gate(subject: LayerSubject) -> int:
    """Holds the layer against its reference, output and gradients, at this size or the largest one that memory allows.

    A reference may take N² H numbers where the layer takes N D: a grid on which it would not fit is halved.

    Returns:
        The number of tokens at which it was checked.
    """
    tokens, terms = subject.tokens, subject.terms
    while min(tokens.grid) > 1 and not _reference_fits(subject, tokens):
        tokens = Tokens((tokens.grid[0] // 2, tokens.grid[1] // 2), tokens.prefix)
    gate(subject.written, subject.dim, subject.num_heads, tokens, dtype=terms.mixing_dtype, device=terms.device)
    return tokens.count


def _reference_fits(subject: LayerSubject, tokens: Tokens) -> bool:
    """Whether memory has room for the reference's pass over one image."""
    free = free_bytes(subject.terms.device)
    reference = _Reference(build(subject.written, subject.dim, subject.num_heads, tokens))
    needed = predicted_bytes(reference, [(1, tokens.count, subject.dim)], torch.float32, subject.terms)
    return free is None or needed is None or needed <= GATE_SHARE * free


class _Reference(nn.Module):
    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return self.layer.reference(x)


class LayerPeak:
    """The other end of a worker: a subject whose forward and backward pass is weighed."""

    def __init__(self, subject: dict[str, Any], what: str) -> None:
        self.subject, self.what = subject_from(subject), what
        self.scale = scale_for(torch.device(self.subject.terms.device))

    def measure(self) -> dict[str, Any]:
        """One image first, for what any pass leaves behind in a process; then the batch that counts.

        Weights, inputs and the gradient of the output are there before; what the pass adds is the peak.
        """
        self._act(1)()
        gc.collect()
        trim()
        act = self._act(self.subject.terms.batch_size)
        if self.subject.terms.compile:
            # Compiling takes memory of its own.
            act()
            gc.collect()
            trim()
        baseline = self.scale.start()
        act()
        return {
            "peak_bytes": self.scale.peak() - baseline,
            "input_bytes": self.subject.input_bytes(self.what),
            "baseline_bytes": baseline,
            "method": self.scale.method,
        }

    def facts(self) -> dict[str, Any]:
        """Conditions that only this process knows."""
        return kernel(self.subject)

    def _act(self, batch_size: int) -> Callable[[], None]:
        one = replace(self.subject, terms=replace(self.subject.terms, batch_size=batch_size))
        inputs = normal(one.shapes(self.what), one.dtype(self.what), one.terms)
        return ForwardBackward(one.module(self.what), inputs, one.terms)
