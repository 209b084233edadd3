"""Ceiling: a budget that a process cannot exceed, so that too large a batch runs out of memory where it would."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def set_ceiling(device: torch.device, budget_bytes: int) -> bool:
    """Lets this process have no more than a budget, all that it has already included.

    On Linux the limit is on private writable memory, mapped or not (RLIMIT_DATA): what is mapped of it now, and the
    budget's rest above what is resident. Stacks of threads and code, which are mapped and hardly used, are thereby as
    free as they are resident. On CUDA torch's allocator is given what the context has left of the budget.

    Args:
        device: whose memory it is.
        budget_bytes: resident, or on CUDA of the whole card.

    Returns:
        Whether there is such a limit here; without one only a look at the peak tells whether the budget was kept.
    """
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        rest = max(0, budget_bytes - outside_bytes(device))
        torch.cuda.set_per_process_memory_fraction(min(1.0, rest / total), device)
        return True
    if device.type != "cpu" or sys.platform != "linux":
        return False
    import resource

    limit = status_bytes("VmData") + max(0, budget_bytes - status_bytes("VmRSS"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return True


def outside_bytes(device: torch.device) -> int:
    """What of a CUDA device is neither free nor torch's in this process: its context, and whatever others hold."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def status_bytes(name: str) -> int:
    """A line of /proc/self/status that counts memory."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
