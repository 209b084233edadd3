"""What lives in a timing process: one subject, checked against its reference, then timed call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import torch

from saccade.attention import parse_layers
from saccade.attention.contract import gate
from saccade.measurement.clock import lap, warm_up
from saccade.measurement.step import Forward, Step
from saccade.measurement.subject import Subject
from saccade.models.vit import VisionTransformer


@runtime_checkable
class ChoosesKernel(Protocol):
    """An attention that computes one function by several kernels."""

    kernel: str

    def kernel_for(self, dtype: torch.dtype, device: torch.device) -> str:
        """The kernel that runs for tensors of this kind."""
        ...


class Timed:
    """A subject in its own process: `Worker` makes one and calls its methods.

    Raises:
        Broken: an attention whose output or gradients are not its reference's is not timed.
    """

    def __init__(self, subject: dict[str, Any]) -> None:
        self.subject = Subject(**subject)
        self.device = torch.device(self.subject.device)
        step = Step(self.subject)
        pass_the_gate(step.model, self.subject)
        self.kernels = kernels(step.model, self.subject)
        self.acts: dict[str, Callable[[], None]] = {
            "forward": Forward(step.model, self.subject, self.subject.batch_size),
            "step": step,
            "latency": Forward(step.model, self.subject, 1),
            "inference": Forward(step.model, self.subject, self.subject.inference_batch),
        }
        self.calls: dict[str, int] = {}

    def facts(self) -> dict[str, Any]:
        """Conditions that only this process knows."""
        return self.kernels

    def warm_up(self, what: str) -> dict[str, Any]:
        """Laps until steady, and how many calls a repeat will have."""
        warm = warm_up(self.acts[what], self.device, self.subject.clock)
        self.calls[what] = warm.calls
        return asdict(warm)

    def repeat(self, what: str) -> dict[str, float]:
        """One lap."""
        return asdict(lap(self.acts[what], self.calls[what], self.device, self.subject.clock))


def pass_the_gate(model: VisionTransformer, subject: Subject) -> None:
    """Holds each kind of layer against its reference, output and gradients, at the shape that will be timed."""
    passed = set()
    for layer, written in enumerate(parse_layers(subject.attention, len(model.blocks))):
        if written not in passed:
            gate(
                written,
                model.embed_dim,
                model.config["num_heads"],
                model.tokens,
                dtype=subject.mixing_dtype,
                device=subject.device,
                layer=layer,
            )
        passed.add(written)


def kernels(model: VisionTransformer, subject: Subject) -> dict[str, str | None]:
    """The kernels that were asked for and that run, of the layers that have a choice; the others run "eager"."""
    device = torch.device(subject.device)
    asked: dict[str, None] = {}
    ran: dict[str, None] = {}
    for layer in (block.attn for block in model.blocks):
        if isinstance(layer, ChoosesKernel):
            asked[layer.kernel] = None
            ran[layer.kernel_for(subject.mixing_dtype, device)] = None
        else:
            ran["eager"] = None
    return {"kernel_asked": ", ".join(asked) or None, "kernel_run": ", ".join(ran)}
