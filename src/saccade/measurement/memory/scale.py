"""Scale: what weighs the memory of this process, or of its tensors on an accelerator."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from saccade.measurement.allocator import return_freed, trim

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

# proc(5): sets the highest resident size back to the present one.
_FORGET_PEAK = "5"


@runtime_checkable
class Scale(Protocol):
    """Weighs what is in memory.

    Attributes:
        method: how, as records name it.
    """

    method: str

    def start(self) -> int:
        """Bytes now, from where the peak is looked for."""
        ...

    def peak(self) -> int:
        """Most bytes since."""
        ...

    def counts(self) -> dict[str, int]:
        """The device's own counts."""
        ...


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


def scale_for(device: torch.device) -> Scale:
    """The most exact scale that works here."""
    if device.type != "cpu":
        return Accelerator(device)
    try:
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:
        return Highest()
    return Resident()


def emptied(scale: Scale) -> int:
    """Bytes of a process that has let go of whatever it can; what comes is weighed against them."""
    gc.collect()
    trim()
    return scale.start()
