"""Peak: the bytes that a training step needs, in a fresh process, where nothing but this model can be counted."""

from __future__ import annotations

import gc
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from saccade.measurement.allocator import return_freed, trim
from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.machine import machine_facts
from saccade.measurement.step import Step, random_images
from saccade.measurement.subject import Subject
from saccade.measurement.work import work_of
from saccade.record import Record

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

# AdamW's moments are there from the end of the first step on: only the second has them beside all gradients.
STEPS = 2

# proc(5): sets the highest resident size back to the present one.
_FORGET_PEAK = "5"


def measure_peak(subject: Subject, *, patience_seconds: float = PATIENCE_SECONDS) -> Record:
    """Measures the peak of two training steps in a fresh process; AdamW's moments come with the first.

    Returns:
        A record. Values: `peak_bytes`, above what was there before the model; `baseline_bytes`, what was (the
        interpreter, torch, what a first small step loads); `method`, how it was counted: "VmHWM" (exact to a page, with
        larger tensors mapped one by one), "VmHWM, allocator as it is", "ru_maxrss" (an upper bound that fragments
        widen), or "max_memory_allocated" (tensors on the accelerator); and `optimiser_steps`. `error` instead where the
        process failed.
    """
    values, error = {}, None
    with Worker(
        "saccade.measurement.peak:Peak",
        {"subject": asdict(subject)},
        threads=subject.threads,
        patience_seconds=patience_seconds,
    ) as worker:
        try:
            worker.ready()
            values = worker.ask("measure")
        except WorkerFailed as failed:
            error = str(failed)
    return Record(
        kind="memory",
        **subject.about(),
        values=values,
        conditions={**subject.conditions(), "process": worker.process},
        machine=machine_facts(),
        error=error,
    )


class Peak:
    """The other end of a worker: a subject whose training step is weighed."""

    def __init__(self, subject: dict[str, Any]) -> None:
        self.subject = Subject(**subject)
        self.scale = scale_for(torch.device(self.subject.device))

    def measure(self) -> dict[str, Any]:
        """Two steps on one image first, for what any step leaves behind in a process; then the two that count."""
        train(replace(self.subject, batch_size=1))
        gc.collect()
        trim()
        baseline = self.scale.start()
        train(self.subject)
        return {
            "peak_bytes": self.scale.peak() - baseline,
            "baseline_bytes": baseline,
            "method": self.scale.method,
            "optimiser_steps": STEPS,
        }


def train(subject: Subject) -> None:
    """Builds the subject and trains it for `STEPS` steps."""
    model = subject.built()
    step = Step(model, random_images(model, subject.batch_size), subject, work_of(model).loss)
    for _ in range(STEPS):
        step()


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


class Accelerator:
    """The tensors on an accelerator, by torch's count."""

    method = "max_memory_allocated"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> int:
        """Bytes now."""
        torch.accelerator.synchronize(self.device)
        torch.accelerator.reset_peak_memory_stats(self.device)
        return torch.accelerator.memory_allocated(self.device)

    def peak(self) -> int:
        """Most bytes since."""
        torch.accelerator.synchronize(self.device)
        return torch.accelerator.max_memory_allocated(self.device)


Scale = Resident | Highest | Accelerator
"""Weighs what is in memory: `start()` gives the bytes now, `peak()` the most since then."""


def scale_for(device: torch.device) -> Scale:
    """The most exact scale that works here."""
    if device.type != "cpu":
        return Accelerator(device)
    try:
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:
        return Highest()
    return Resident()
