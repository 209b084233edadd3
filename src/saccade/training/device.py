"""The device of a run, and what makes two runs on it give the same bits."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# A module that is no module to a type checker: its one attribute is a property of its class.
_deterministic: Any = torch.utils.deterministic


def choose_device(asked: str) -> torch.device:
    """The device that `--device` names; "auto" is the machine's accelerator, or the CPU where there is none.

    Raises:
        ValueError: no such device here; the message names those that are.
    """
    here = [*_accelerators(), "cpu"]
    wanted = {"auto": here[0], "cuda": "cuda:0"}.get(asked, asked)
    if wanted not in here:
        raise ValueError(f"--device {asked}: this machine has {', '.join(here)}; take one of them, or --device auto")
    return torch.device(wanted)


def peak_bytes(device: torch.device) -> int:
    """The most memory there was in use so far: the GPU's by torch's count, else the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak(device: torch.device) -> None:
    """Lets `peak_bytes` begin anew, where the device can: a process's resident memory keeps its peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def same_bits(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Inside, the same seed gives the same bits; afterwards torch's settings and generators are as they were.

    Args:
        device: where the work is done.
        threads: how many torch uses; None leaves that as it is.

    Raises:
        ValueError: fewer than one thread.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads}: must be at least 1")
    # cuBLAS reads it when its first handle is made, and is only then free of races between streams.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    warn, fill = torch.get_deterministic_debug_mode(), _deterministic.fill_uninitialized_memory
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(threads or threads_before)
            # An operation that cannot keep the promise says so in a warning: another's mechanism still trains on a GPU.
            torch.set_deterministic_debug_mode("warn")
            # Else every torch.empty is filled, for the sake of programs that read what nobody wrote.
            _deterministic.fill_uninitialized_memory = False
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.set_deterministic_debug_mode(warn)
            _deterministic.fill_uninitialized_memory = fill


def _accelerators() -> list[str]:
    """The accelerators of this machine, by the names that torch.device takes."""
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    if kind.type == "mps":
        return ["mps"]
    return [f"{kind.type}:{index}" for index in range(torch.accelerator.device_count())]
