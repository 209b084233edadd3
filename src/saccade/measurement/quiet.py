"""Quiet: whether others are at work on the machine, on its processors or on the accelerator."""

from __future__ import annotations

from typing import Any

import torch

from saccade.measurement.machine import BUSY_PERCENT, cores, load_1min, pressure_avg10

# What others may hold of an accelerator whose use torch cannot tell: their contexts, and ours.
IDLE_BYTES = 2_000_000_000


def others_on(device: str) -> dict[str, Any]:
    """What others have of an accelerator now, when nothing of ours runs on it; nothing for a processor.

    Returns:
        `accelerator_used_bytes`, this process's own context among them; `accelerator_percent`, the share of time in
        which it was computing, None where torch cannot tell; and whether it is `accelerator_busy`.
    """
    if torch.device(device).type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(torch.device(device))
    used, percent = total - free, _computing_percent(device)
    return {
        "accelerator_used_bytes": used,
        "accelerator_percent": percent,
        "accelerator_busy": used > IDLE_BYTES if percent is None else percent > BUSY_PERCENT,
    }


def require_quiet(device: str, threads: int) -> None:
    """Checks that nobody else is at work, as far as the system says.

    Args:
        device: on which something is to be timed.
        threads: that it will have.

    Raises:
        ValueError: somebody is.
    """
    if (why := why_busy(device, threads)) is not None:
        raise ValueError(
            f"only a quiet machine is asked for, and this one is busy: {why}; wait, or time without --quiet-only: what "
            "was disturbed is marked"
        )


def why_busy(device: str, threads: int) -> str | None:
    """Who else is at work now, when nothing of ours is; None where nobody is, or where the system does not say.

    Args:
        device: on which something is to be timed.
        threads: that it will have.
    """
    others = others_on(device)
    if others.get("accelerator_busy"):
        percent = others["accelerator_percent"]
        told = "" if percent is None else f", and it computes {percent} % of the time"
        return f"others hold {others['accelerator_used_bytes'] / 1e9:.1f} GB of {device}{told}"
    pressure, load = pressure_avg10(), load_1min()
    if pressure is not None:
        told = f"some process waited for a processor in {pressure:g} % of the last ten seconds"
        return told if pressure > BUSY_PERCENT else None
    if load is not None and load + threads > cores() + 0.5:
        return f"{load:g} processes ran in the last minute, which leaves no room for {threads} on {cores()} cores"
    return None


def _computing_percent(device: str) -> int | None:
    try:
        return int(torch.cuda.utilization(torch.device(device)))
    # Without NVIDIA's library, its driver, or the right to ask it, each raises an error of its own.
    except Exception:
        return None
