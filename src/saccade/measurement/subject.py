"""Subject: what a measuring process builds, and the terms on which it is measured; plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from saccade.attention import resolved_text
from saccade.measurement.allocator import Allocator
from saccade.measurement.machine import allocator_changed, settings
from saccade.models.sizes import create_model, model_defaults
from saccade.models.vit import VisionTransformer
from saccade.training.device import choose_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model with one attention, on these terms.

    Attributes:
        model: a name of `list_models()`.
        attention: its written form.
        options: overrides of the model, as given to create_model.
        batch_size: images of a training step and of a forward pass.
        inference_batch: images of an inference call that is measured for its throughput.
        dtype: of the weights, "fp32" or "bf16" (with float32 master weights in the optimiser).
        amp_dtype: "bf16" for autocast over float32 weights; None for none.
        device: as torch writes it.
        threads: processor threads.
        clock: "wall" (on CUDA: the device's own events), or "cpu" for processor time, where others use the machine.
        allocator: "default", or "keep" for a process that gives no memory back.

    Raises:
        ValueError: a word or number that is not allowed, or processor time of an accelerator.
    """

    model: str
    attention: str = "softmax"
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    inference_batch: int = 64
    dtype: str = "fp32"
    amp_dtype: str | None = None
    device: str = "cpu"
    threads: int = 1
    clock: str = "wall"
    allocator: Allocator = "default"

    def __post_init__(self) -> None:
        for name in ("batch_size", "inference_batch", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        _check_word("dtype", self.dtype, tuple(DTYPES))
        _check_word("amp_dtype", self.amp_dtype, (None, "bf16"))
        _check_word("clock", self.clock, get_args(Clock))
        _check_word("allocator", self.allocator, get_args(Allocator))
        if self.dtype == "bf16" and self.amp_dtype:
            raise ValueError('dtype="bf16" with amp_dtype="bf16": autocast has nothing to cast; give one of the two')
        if self.clock == "cpu" and torch.device(self.device).type != "cpu":
            raise ValueError(f'clock="cpu" on {self.device}: processor time says nothing there; use clock="wall"')

    @property
    def attention_resolved(self) -> str:
        """The attention with every option of every layer."""
        return resolved_text(self.attention, (model_defaults(self.model) | dict(self.options))["depth"])

    @property
    def mixing_dtype(self) -> torch.dtype:
        """Of the queries, keys and values that an attention is given."""
        return DTYPES[self.amp_dtype or self.dtype]

    def built(self) -> VisionTransformer:
        """The model on its device, in float32."""
        return create_model(self.model, self.attention, **self.options).to(self.device)

    def conditions(self) -> dict[str, Any]:
        """The terms, as a record names them."""
        changed = self.allocator == "default" and allocator_changed()
        return {
            "device": self.device,
            "dtype": self.dtype,
            "amp_dtype": self.amp_dtype,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "clock": self.clock,
            "allocator": "changed" if changed else self.allocator,
            "checkpointing": False,
            "compile": False,
            "environment": settings(),
        }

    def about(self) -> dict[str, Any]:
        """The fields of a record that say what was measured."""
        return {
            "attention": self.attention,
            "attention_resolved": self.attention_resolved,
            "model": self.model,
            "model_options": dict(self.options),
        }


def subject_of(
    model: str | VisionTransformer,
    attention: str | None,
    options: Mapping[str, Any],
    *,
    device: str,
    threads: int | None,
    **terms: Any,
) -> Subject:
    """The subject that a name or a model stands for.

    Args:
        model: a name of `list_models()`, or a model that create_model made.
        attention: its written form; None for the model's own.
        options: overrides of the model.
        device: as `--device` takes it.
        threads: None for torch's number.
        terms: the other fields of `Subject`.

    Raises:
        ValueError: a model without a name, a device that is not there, or terms that contradict each other.
    """
    if not isinstance(model, str):
        if model.name is None:
            raise ValueError("a model that create_model has not made cannot be built again in a fresh process")
        attention = attention or model.attention
        options = _differences(model) | dict(options)
        model = model.name
    return Subject(
        model=model,
        attention=attention or model_defaults(model)["attention"],
        options=options,
        device=str(choose_device(device)),
        threads=threads or torch.get_num_threads(),
        **terms,
    )


def _differences(model: VisionTransformer) -> dict[str, Any]:
    """The options in which a model differs from what its name stands for; the attention is told apart from them."""
    assert model.name is not None
    with torch.device("meta"):
        usual = create_model(model.name).config
    changed = {key: value for key, value in model.config.items() if value != usual[key] and key != "attention"}
    # As JSON will give them back.
    return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}


def _check_word(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}")
