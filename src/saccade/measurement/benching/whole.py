"""Whole: a model as a bench sees it, its training step and its inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from saccade.attention import fitting, parse_layers
from saccade.attention.parts import faster_kernel
from saccade.measurement.benching.entrant import PROCESS_BYTES, Served, Weighed
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.memory.predict import CannotPredict, predicted_step
from saccade.measurement.memory.tracked import Memory
from saccade.measurement.operations import operations_record
from saccade.measurement.rivals import rivals_of
from saccade.measurement.subject import Subject
from saccade.measurement.terms import Terms
from saccade.measurement.work import Model, Stack, work_of
from saccade.models.sizes import create_model
from saccade.record import Record

WHAT = ("model",)


@dataclass(frozen=True, kw_only=True)
class WholeSubject:
    """One model on these terms, among those it is measured beside.

    Attributes:
        attention: as its user wrote it; the subject's own has options that fit where none was written and the defaults
            are refused.
        subject: what is built. Images of an inference call are as many as of a training step.
        encoder: of the same model with softmax: tokens, width, heads.
        rival: its name, where it is softmax in another model; empty for those that differ in the attention alone.
        beside_tokens: of the models that a rival stands beside.
    """

    attention: str
    subject: Subject
    encoder: Stack
    rival: str = ""
    beside_tokens: int | None = None

    acts: ClassVar[tuple[str, ...]] = ("step", "inference")

    @property
    def terms(self) -> Terms:
        """What rivals share."""
        return self.subject.terms

    def lacks(self, what: str) -> str | None:
        """A model is there as a whole."""
        return None if what in WHAT else f"no {what}: a model is measured as a whole"

    def refusal(self) -> str | None:
        """Why it makes no sense at this size; None where it does."""
        try:
            self._require_sense()
        except ValueError as error:
            return str(error)
        return None

    def needed_bytes(self, what: str) -> int | None:
        """Predicted for a training step, all that is there at its peak; None where that cannot be told.

        Raises:
            ValueError: it makes no sense at this size.
        """
        self._require_sense()
        return None if self._predicted is None else self._predicted.peak_bytes

    def resting_bytes(self, what: str) -> int:
        """What its process holds between its turns: on an accelerator, all that torch has once reserved."""
        if self._predicted is None:
            return PROCESS_BYTES
        if not self.subject.device.startswith("cpu"):
            return PROCESS_BYTES + self._predicted.peak_bytes
        kept = self._predicted
        return PROCESS_BYTES + kept.weights_bytes + kept.optimiser_bytes + kept.inputs_bytes

    def declared(self) -> Record | None:
        """What it computes, by declaration."""
        if self.refusal() is not None:
            return None
        return replace(operations_record(self.subject), **self.about("model"), conditions=self.conditions("model"))

    def timed(self, what: Sequence[str]) -> Served:
        """What lives in its timing process."""
        return Served("saccade.measurement.timed:timed_subject", {"subject": asdict(self.subject)})

    def weigh(self, what: str, patience_seconds: float) -> Weighed:
        """The peak of a training step, in a fresh process."""
        record = measure_peak(self.subject, patience_seconds=patience_seconds)
        return Weighed(record.values, record.conditions, record.error)

    def act_prefix(self, what: str) -> str:
        """A timing process of models has one thing to do."""
        return ""

    def conditions(self, what: str) -> dict[str, Any]:
        """The terms and the size, as a record names them."""
        tokens, seen = self.encoder.tokens, self.encoder.count
        beside = {} if self.beside_tokens is None else {"beside_tokens": self.beside_tokens}
        return {
            **self.terms.conditions(),
            "inference_batch": self.subject.inference_batch,
            "what": what,
            "tokens": tokens.count,
            "grid": list(tokens.grid),
            "prefix": tokens.prefix,
            "width": self.encoder.width,
            "heads": self.encoder.heads,
            "head_width": self.encoder.width // self.encoder.heads,
            "options_chosen": not self.rival and self.attention != self.subject.attention,
            # A masked autoencoder is trained on some of them.
            **({"visible_tokens": seen} if seen != tokens.count else {}),
            **({"rival": self.rival, **beside} if self.rival else {}),
        }

    def about(self, what: str) -> dict[str, Any]:
        """The fields of a record that say what was measured."""
        return {**self.subject.about(), "attention": self.subject.attention if self.rival else self.attention}

    def _require_sense(self) -> None:
        with torch.device("meta"):
            made = create_model(self.subject.model, self.subject.attention, **self.subject.options)
        made.set_grad_checkpointing(self.subject.checkpointing)

    @cached_property
    def _predicted(self) -> Memory | None:
        try:
            return predicted_step(replace(self.subject, compile=False))
        except CannotPredict:
            return None


def softmaxes(subject: Subject) -> tuple[str, str]:
    """The baseline of a model: softmax as it chooses its kernel, and by the one that it has not chosen."""
    chosen = faster_kernel(subject.terms.mixing_dtype, torch.device(subject.device))
    return "softmax", f'softmax(kernel="{"explicit" if chosen == "sdpa" else "sdpa"}")'


def planned(model: str, options: Mapping[str, Any]) -> Model:
    """The model with softmax, of which nothing is allocated.

    Raises:
        ValueError: what create_model refuses.
    """
    with torch.device("meta"):
        return create_model(model, "softmax", **options)


def whole_subjects(attentions: Iterable[str], subject: Subject) -> list[WholeSubject]:
    """A model with each attention, softmax first.

    Args:
        attentions: as their users wrote them.
        subject: the model and the terms, with any attention.

    Raises:
        ValueError: no such model, attention or option.
    """
    encoder = work_of(planned(subject.model, subject.options)).stacks[0]
    wanted = dict.fromkeys([*softmaxes(subject), *(one.strip() for one in attentions)])
    return [
        WholeSubject(attention=one, subject=replace(subject, attention=_fit(one, encoder)), encoder=encoder)
        for one in wanted
    ]


def rivals_beside(subjects: Sequence[WholeSubject], softmax: Subject) -> list[WholeSubject]:
    """Softmax in cheaper models, with about as many declared FLOPs as each attention that saves some; each once.

    Args:
        subjects: a model with each attention.
        softmax: the model with softmax.

    Raises:
        ValueError: a masked autoencoder.
    """
    usual = planned(softmax.model, softmax.options)
    whole, tokens = sum(usual.flops().values()), usual.tokens.count
    found: dict[str, dict[str, Any]] = {}
    for one in subjects:
        share = _flops(one) / whole
        if 0 < share < 1:
            found |= dict(rivals_of(softmax.model, softmax.options, share))
    return [
        WholeSubject(
            attention=label,
            subject=replace(softmax, attention="softmax", options=options),
            encoder=work_of(planned(softmax.model, options)).stacks[0],
            rival=label,
            beside_tokens=tokens,
        )
        for label, options in found.items()
    ]


def _flops(one: WholeSubject) -> int:
    """Declared ones of a forward pass; 0 where it makes no sense."""
    if one.refusal() is not None:
        return 0
    with torch.device("meta"):
        made = create_model(one.subject.model, one.subject.attention, **one.subject.options)
    return sum(made.flops().values())


def _fit(attention: str, encoder: Stack) -> str:
    """The attention, with options where its user wrote none and the defaults are refused."""
    (written, *others) = dict.fromkeys(parse_layers(attention, len(encoder.blocks)))
    if others or written.options:
        return attention
    try:
        with torch.device("meta"):
            return fitting(written.name, encoder.width, encoder.heads, encoder.tokens, patches=encoder.patches)
    except ValueError:
        # Who is asked to build it says why it cannot be.
        return attention
