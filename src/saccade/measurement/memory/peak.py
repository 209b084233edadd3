"""Peak: the bytes that a training step needs, in a fresh process, where nothing but this model can be counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.machine import machine_facts
from saccade.measurement.memory.own import Own, handed_over, taken_over
from saccade.measurement.memory.predict import CannotPredict, predicted_own, predicted_step
from saccade.measurement.memory.scale import emptied, scale_for
from saccade.measurement.memory.tracked import STEPS, Memory, track_training
from saccade.measurement.step import Step, inference, training_step
from saccade.measurement.subject import Subject
from saccade.measurement.terms import DTYPES
from saccade.record import Record

# Of somebody's module it is not known how to make it smaller.
_ANOTHER = Subject(model="vit_nano_patch1_8", batch_size=1)


def measure_peak(subject: Subject, *, patience_seconds: float = PATIENCE_SECONDS) -> Record:
    """Measures the peak of two training steps in a fresh process, says what it is made of, and what was predicted.

    Returns:
        A record. Values: `peak_bytes`, above what was there before the model; `baseline_bytes`, what was (the
        interpreter, torch, what a first small step loads); `method`, how it was counted: "VmHWM" (exact to a page, with
        larger tensors mapped one by one), "VmHWM, allocator as it is", "ru_maxrss" (an upper bound that fragments
        widen), or "max_memory_allocated" (tensors on the accelerator; `allocated_bytes` and `reserved_bytes` are its
        own counts); `optimiser_steps`. `tracked_bytes`, the tensors of two more steps when they were most, and what was
        there then: the fields of `tracked.Memory`. `predicted_bytes`, told without running, which should be right
        `within` a share; without it, `unpredicted` says why. `error` where the process failed, beside what is
        predicted.
    """
    values = _predicted(lambda: predicted_step(subject))
    values, process, error = _measured(values, {"subject": asdict(subject)}, subject.threads, patience_seconds)
    return Record(
        kind="memory",
        **subject.about(),
        values=values,
        conditions={**subject.conditions(), "process": process},
        machine=machine_facts(),
        error=error,
    )


def measure_own_peak(own: Own, *, patience_seconds: float = PATIENCE_SECONDS) -> Record:
    """As `measure_peak`, of somebody's own module; it has no attention that saccade could name.

    Raises:
        ValueError: the module cannot be handed to another process.
    """
    values = _predicted(lambda: predicted_own(own), CannotPredict)
    with handed_over(own) as file:
        options = {"own": file, "path": sys.path}
        values, process, error = _measured(values, options, own.terms.threads, patience_seconds)
    return Record(
        kind="memory",
        attention="its own",
        attention_resolved="its own",
        model=own.name,
        values=values,
        conditions={**own.terms.conditions(), "process": process},
        machine=machine_facts(),
        error=error,
    )


def _predicted(predict: Callable[[], Memory], told: type[ValueError] = ValueError) -> dict[str, Any]:
    """What a record says of a prediction; an error that the measuring process will tell as well is no end of it."""
    try:
        memory = predict()
    except told as error:
        return {"predicted_bytes": None, "unpredicted": str(error)}
    return {"predicted_bytes": memory.peak_bytes, "within": memory.within, **memory.parts()}


def _measured(
    values: Mapping[str, Any], options: Mapping[str, Any], threads: int, patience_seconds: float
) -> tuple[dict[str, Any], str, str | None]:
    """The values with what a fresh process measures, the name of the process, and how it failed."""
    measured = dict(values)
    with Worker(
        "saccade.measurement.memory.peak:Peak", options, threads=threads, patience_seconds=patience_seconds
    ) as worker:
        try:
            worker.ready()
            measured |= worker.ask("measure")
            measured |= worker.ask("track")
        except WorkerFailed as failed:
            return measured, worker.process, str(failed)
    return measured, worker.process, None


class Peak:
    """The other end of a worker: a training step that is weighed.

    Args:
        subject: one of our models.
        own: or a file with somebody's module, as `handed_over` wrote it.
        path: where that one's classes are found.
    """

    def __init__(self, subject: dict[str, Any] | None = None, own: str | None = None, path: Sequence[str] = ()) -> None:
        self._subject, self._own, self._path = subject, own, path
        taken = self._taken()
        terms = taken.terms
        small = taken if isinstance(taken, Subject) else replace(_ANOTHER, device=terms.device, dtype=terms.dtype)
        self.small = replace(small, batch_size=1)
        self.scale = scale_for(torch.device(terms.device))

    def baseline(self) -> int:
        """Bytes after two steps on one image, for what any step leaves behind in a process."""
        train(self.small)
        return emptied(self.scale)

    def measure(self) -> dict[str, Any]:
        """The steps that count, after small ones."""
        baseline = self.baseline()
        train(self._taken())
        return {
            "peak_bytes": self.scale.peak() - baseline,
            "baseline_bytes": baseline,
            "method": self.scale.method,
            "optimiser_steps": STEPS,
            **self.scale.counts(),
        }

    def track(self) -> dict[str, Any]:
        """The tensors of such steps, one by one."""
        taken = self._taken()
        memory = track_training(taken.built(), lambda model: _step(taken, model))
        return {"tracked_bytes": memory.tensors_bytes, **memory.parts()}

    def _taken(self) -> Subject | Own:
        if self._own is not None:
            return taken_over(self._own, self._path)
        assert self._subject is not None
        return Subject(**self._subject)


def train(subject: Subject | Own) -> None:
    """Builds the subject and trains it for `STEPS` steps."""
    step = _step(subject, subject.built())
    for _ in range(STEPS):
        step()


def answer(subject: Subject) -> None:
    """Builds the subject and lets it answer as often, in eval mode."""
    forward = inference(subject.built().to(DTYPES[subject.dtype]), subject)
    for _ in range(STEPS):
        forward()


def _step(subject: Subject | Own, model: Any) -> Step:
    return subject.step_of(model) if isinstance(subject, Own) else training_step(model, subject)
