"""Ceiling: a budget that a process cannot exceed by much, so that too large a batch takes nothing from anybody else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")

# Memory that is asked for counts for a limit, written or not: 2 % of a performer's step
# never are. Whether a budget was kept is for the peak to say.
_UNWRITTEN = 1 / 32


@contextmanager
def ceiling(device: torch.device, budget_bytes: int) -> Iterator[None]:
    """Inside, this process can have hardly more than a budget, what it already has included; afterwards it can again.

    On Linux the limit is on private writable memory, mapped or not (RLIMIT_DATA): what is mapped of it now, and the
    budget's rest above what is resident, with a thirty-second of it for what is never written. Stacks of threads, which
    are mapped and hardly used, are thereby as free as they are resident. On CUDA torch's allocator is given what the
    context has left of the budget. Where there is no such limit, as on macOS, only a look at the peak tells whether the
    budget was kept.

    Args:
        device: whose memory it is.
        budget_bytes: resident, or on CUDA of the whole card.
    """
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        rest = max(0, budget_bytes - outside_bytes(device))
        torch.cuda.set_per_process_memory_fraction(min(1.0, rest / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    elif device.type == "cpu" and sys.platform == "linux":
        import resource

        before, most = resource.getrlimit(resource.RLIMIT_DATA)
        rest = max(0, budget_bytes - status_bytes("VmRSS"))
        limit = status_bytes("VmData") + int(rest * (1 + _UNWRITTEN))
        resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))
        try:
            yield
        finally:
            # Whoever has run out of memory needs a little to say so.
            resource.setrlimit(resource.RLIMIT_DATA, (before, most))
    else:
        yield


def outside_bytes(device: torch.device) -> int:
    """What of a CUDA device is neither free nor torch's in this process: its context, and whatever others hold."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def status_bytes(name: str) -> int:
    """A line of /proc/self/status that counts memory."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
