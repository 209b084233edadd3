"""Facts of the machine that a number was taken on; no user, host or path among them."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Above this share of time, in percent, in which somebody waits for a processor, times say more about the others.
BUSY_PERCENT = 5.0

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_CPUINFO = Path("/proc/cpuinfo")
_PRESSURE = Path("/proc/pressure/cpu")
_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")

# Settings from outside that change how fast or how large the same code is, by how their names begin.
_ALLOCATOR_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
_SETTINGS = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
    *_ALLOCATOR_SETTINGS,
)


def machine_facts() -> dict[str, Any]:
    """What the machine is, and how busy it is now."""
    return {**_lasting_facts(), "load_1min": load_1min(), "pressure_avg10": pressure_avg10()}


def load_1min() -> float | None:
    """Processes that ran or waited, averaged over a minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def pressure_avg10() -> float | None:
    """Percent of the last ten seconds in which some process waited for a processor; None where Linux does not say."""
    try:
        first = _PRESSURE.read_text(encoding="ascii").splitlines()[0]
        return float(first.split("avg10=")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return None


def stalled_seconds() -> float | None:
    """For how long, since the machine started, some process waited for a processor; None where Linux does not say."""
    try:
        return int(_PRESSURE.read_text(encoding="ascii").splitlines()[0].split("total=")[1]) / 1e6
    except (OSError, IndexError, ValueError):
        return None


def settings() -> dict[str, str]:
    """Environment variables that change how fast or how large the same code is, paths cut to file names.

    The numbers of threads are not among them: a measuring process is given its own.
    """
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)}
    found = {name: value for name, value in found.items() if name not in THREAD_SETTINGS}
    return {name: " ".join(Path(word).name for word in value.split()) for name, value in found.items()}


def allocator_changed() -> bool:
    """Whether the environment sets or replaces the system's allocator."""
    return any(name.startswith(_ALLOCATOR_SETTINGS) for name in os.environ)


@cache
def _lasting_facts() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "accelerator": accelerator(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "saccade": version("saccade"),
        "commit": commit(),
    }


def processor() -> str:
    """The processor as it calls itself."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Main memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def free_bytes(device: str) -> int | None:
    """Memory that a new process could have, on an accelerator its own; None where the system does not say."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    known = [size for size in (_available_bytes(), _container_bytes()) if size is not None]
    return min(known, default=None)


def _available_bytes() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return memory_bytes()


def _container_bytes() -> int | None:
    """What a container still has of its limit, with what it keeps of files and would give back."""
    try:
        limit, taken = (int((_CONTAINER / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        lines = (_CONTAINER / "memory.stat").read_text(encoding="ascii").splitlines()
        files = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, limit - taken + files)
    # Most often the limit is the word "max".
    except (OSError, StopIteration, ValueError):
        return None


def accelerator() -> str | None:
    """Name of the accelerator that torch would use; None where there is none."""
    import torch

    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return None
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type


def commit() -> str | None:
    """Commit of the checkout that this saccade runs from; None for an installed one.

    With "-dirty" behind it where files differ, other than the records in results/: what is written there, runs nothing.
    """
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists():
        return None
    git = ("git", "-C", str(checkout))
    name = _said(*git, "rev-parse", "HEAD")
    changed = _said(*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    return f"{name}-dirty" if name and changed else name


def _said(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
