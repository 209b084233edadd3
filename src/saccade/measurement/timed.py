"""What lives in a timing process: one subject, checked against its reference, then timed call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from saccade.attention import parse_layers
from saccade.attention.contract import gate
from saccade.measurement.clock import lap, warm_up
from saccade.measurement.step import Forward, Step
from saccade.measurement.subject import Subject
from saccade.models.vit import VisionTransformer


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
    for written in dict.fromkeys(parse_layers(subject.attention, len(model.blocks))):
        gate(
            str(written),
            model.embed_dim,
            model.config["num_heads"],
            model.tokens,
            dtype=subject.mixing_dtype,
            device=torch.device(subject.device),
        )


def kernels(model: VisionTransformer, subject: Subject) -> dict[str, str | None]:
    """The kernels that were asked for and that run, of the layers that have a choice; the others run "eager"."""
    layers = [block.attn for block in model.blocks]
    choosing = [layer for layer in layers if hasattr(layer, "kernel_for")]
    ran = [layer.kernel_for(subject.mixing_dtype, torch.device(subject.device)) for layer in choosing]
    asked = [layer.kernel for layer in choosing]
    return {
        "kernel_asked": ", ".join(dict.fromkeys(asked)) or None,
        "kernel_run": ", ".join(dict.fromkeys([*ran, *(["eager"] if len(choosing) < len(layers) else [])])),
    }
