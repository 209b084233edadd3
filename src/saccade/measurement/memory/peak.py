"""Peak: the bytes that a training step needs, in a fresh process, where nothing but this model can be counted."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saccade.measurement.allocator import return_freed, trim
from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.machine import machine_facts
from saccade.measurement.memory.own import Own, handed_over, taken_over
from saccade.measurement.memory.predict import CannotPredict, predicted_own, predicted_step
from saccade.measurement.memory.tracked import STEPS, Memory, track_training
from saccade.measurement.step import Step, inference, training_step
from saccade.measurement.subject import Subject
from saccade.record import Record

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

# proc(5): sets the highest resident size back to the present one.
_FORGET_PEAK = "5"

# What any process has in it that has trained a model.
_SMALLEST = Subject(model="vit_nano_patch1_8", batch_size=1)


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


class Baselines(NamedTuple):
    """Resident bytes of a process that has let go of the smallest model: what a budget holds besides.

    Attributes:
        training: after two training steps.
        inference: after a forward pass, for which torch loads less.
    """

    training: int
    inference: int


@cache
def baselines(threads: int = 1) -> Baselines:
    """Measured once, in a fresh process.

    Raises:
        WorkerFailed: there was none.
    """
    with Worker("saccade.measurement.memory.peak:Peak", {"subject": asdict(_SMALLEST)}, threads=threads) as worker:
        worker.ready()
        inference = worker.ask("inference_baseline")
        return Baselines(worker.ask("baseline"), inference)


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
        # Of somebody's module it is not known how to make it smaller.
        small = taken if isinstance(taken, Subject) else replace(_SMALLEST, device=terms.device, dtype=terms.dtype)
        self.small = replace(small, batch_size=1)
        self.scale = scale_for(torch.device(terms.device))

    def baseline(self) -> int:
        """Bytes after two steps on one image, for what any step leaves behind in a process."""
        train(self.small)
        return self._left()

    def inference_baseline(self) -> int:
        """Bytes after a forward pass of one image, as long as nothing was trained."""
        assert isinstance(self.small, Subject)
        inference(self.small.built(), self.small)()
        return self._left()

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

    def _left(self) -> int:
        """Bytes of a process that has let go of everything; what comes is weighed against them."""
        gc.collect()
        trim()
        return self.scale.start()

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


def _step(subject: Subject | Own, model: Any) -> Step:
    return subject.step_of(model) if isinstance(subject, Own) else training_step(model, subject)


class Resident:
    """The process's resident memory, whose highest value Linux forgets on request."""

    def __init__(self) -> None:
        self.method = "VmHWM" if return_freed() else "VmHWM, allocator as it is"

    def start(self) -> int:
        """Bytes now."""
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
        return self.peak()

    def peak(self) -> int:
        """Most bytes since."""
        line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def counts(self) -> dict[str, int]:
        """Nobody else counts."""
        return {}


class Highest:
    """The process's highest resident memory since it started, where nothing better is known."""

    method = "ru_maxrss"

    def start(self) -> int:
        """The highest so far."""
        return self.peak()

    def peak(self) -> int:
        """The highest so far; Linux counts in KiB, macOS in bytes."""
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def counts(self) -> dict[str, int]:
        """Nobody else counts."""
        return {}


class Accelerator:
    """The tensors on an accelerator, by torch's count."""

    method = "max_memory_allocated"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> int:
        """Bytes now."""
        torch.accelerator.synchronize(self.device)
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(self.device)
        return torch.accelerator.memory_allocated(self.device)

    def peak(self) -> int:
        """Most bytes since."""
        torch.accelerator.synchronize(self.device)
        return torch.accelerator.max_memory_allocated(self.device)

    def counts(self) -> dict[str, int]:
        """Most bytes of tensors, and most that torch had taken from the device to hold them: all in the process."""
        return {
            "allocated_bytes": torch.accelerator.max_memory_allocated(self.device),
            "reserved_bytes": torch.accelerator.max_memory_reserved(self.device),
        }


Scale = Resident | Highest | Accelerator
"""Weighs what is in memory: `start()` gives the bytes now, `peak()` the most since, `counts()` the device's own."""


def scale_for(device: torch.device) -> Scale:
    """The most exact scale that works here."""
    if device.type != "cpu":
        return Accelerator(device)
    try:
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:
        return Highest()
    return Resident()
