"""Subject: what a measuring process builds, and the terms on which it is measured; plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from saccade.attention import resolved_text
from saccade.measurement.allocator import Allocator
from saccade.measurement.terms import Terms, require_positive
from saccade.measurement.work import Model
from saccade.models.sizes import create_model, model_defaults
from saccade.training.device import choose_device


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model with one attention, on these terms.

    Attributes:
        model: a name of `list_models()`.
        attention: its written form; in a masked autoencoder the encoder's, and the decoder's where `options` name none.
        options: overrides of the model, as given to create_model.
        batch_size: images of a training step and of a forward pass.
        inference_batch: images of an inference call that is measured for its throughput.
        dtype: of the weights, "fp32" or "bf16" (with float32 master weights in the optimiser).
        amp_dtype: "bf16" for autocast over float32 weights; None for none.
        device: as torch writes it.
        threads: processor threads.
        clock: "wall" (on CUDA: the device's own events), or "cpu" for processor time, where others use the machine.
        allocator: "default", or "keep" for a process that gives no memory back.
        checkpointing: blocks keep only their input for the backward pass, and run again in it.
        compile: by torch.compile.

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
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        require_positive(inference_batch=self.inference_batch)
        # Whatever is wrong with them is found when they are made.
        self.terms  # noqa: B018

    @property
    def terms(self) -> Terms:
        """The terms, apart from what is measured on them."""
        return Terms(
            batch_size=self.batch_size,
            dtype=self.dtype,
            amp_dtype=self.amp_dtype,
            device=self.device,
            threads=self.threads,
            clock=self.clock,
            allocator=self.allocator,
            checkpointing=self.checkpointing,
            compile=self.compile,
        )

    @property
    def attention_resolved(self) -> str:
        """The attention with every option of every layer."""
        return resolved_text(self.attention, (model_defaults(self.model) | dict(self.options))["depth"])

    def built(self) -> Model:
        """The model on its device, in float32."""
        model = create_model(self.model, self.attention, **self.options).to(self.device)
        model.set_grad_checkpointing(self.checkpointing)
        return model

    def conditions(self) -> dict[str, Any]:
        """The terms, as a record names them."""
        return self.terms.conditions()

    def about(self) -> dict[str, Any]:
        """The fields of a record that say what was measured."""
        return {
            "attention": self.attention,
            "attention_resolved": self.attention_resolved,
            "model": self.model,
            "model_options": dict(self.options),
        }


def subject_of(
    model: str | Model,
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
        threads=torch.get_num_threads() if threads is None else threads,
        **terms,
    )


def _differences(model: Model) -> dict[str, Any]:
    """The options in which a model differs from what its name stands for; the attention is told apart from them."""
    assert model.name is not None
    with torch.device("meta"):
        # A decoder has the encoder's attention where none is named.
        usual = create_model(model.name, model.attention).config
    changed = {key: value for key, value in model.config.items() if value != usual[key]}
    # As JSON will give them back.
    return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}
