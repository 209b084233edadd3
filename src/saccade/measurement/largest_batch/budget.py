"""Budget: the memory for a batch, as its user writes it or the machine says, and what no model can have of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from saccade.measurement.isolate import Worker
from saccade.measurement.largest_batch.gpus import Gpu, gpu_named
from saccade.measurement.machine import free_bytes
from saccade.measurement.memory.baseline import Baselines

UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


_NOTHING = Baselines(0, 0)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Memory for one process.

    Attributes:
        device: whose memory it is, as torch writes it.
        total_bytes: all of it; None for a GPU of which only a process on it can tell (`weighed`).
        margin: share of it that is kept free.
        asked: as its user wrote it; None for what is there.
        gpu: that it is the memory of, where that need not be there.
        taken: what no model can have, in training and in inference: of a GPU what is not torch's, on a CPU a process
            that has let go of the smallest model.
    """

    device: str
    total_bytes: int | None = None
    margin: float = 0.0
    asked: str | None = None
    gpu: Gpu | None = None
    taken: Baselines = _NOTHING

    @property
    def allowed_bytes(self) -> int:
        """That a process may have."""
        assert self.total_bytes is not None
        return int(self.total_bytes * (1 - self.margin))

    def require_here(self) -> None:
        """Checks that what fits into it can be tried on this machine.

        Raises:
            ValueError: a GPU that need not be there, or more memory than is free.
        """
        if self.gpu is not None:
            raise ValueError(f"--confirm --for {self.gpu.name}: only what is there can be tried; leave one of them out")
        free = None if self.device.startswith("cuda") else free_bytes(self.device)
        if free is not None and self.total_bytes is not None and self.total_bytes > free:
            raise ValueError(
                f"--confirm with {gigabytes(self.total_bytes)} of memory: {gigabytes(free)} are free here; ask for "
                "less, or leave out --confirm"
            )

    def weighed(self, on_cpu: Baselines | None) -> Budget:
        """The same with what no model can have of it, which on a GPU takes a process.

        Args:
            on_cpu: what stays in one on the CPU, where it is for that.

        Raises:
            ValueError: nothing is left for a model.
        """
        if self.gpu is not None:
            found = replace(self, taken=Baselines(self.gpu.reserve_bytes, self.gpu.reserve_bytes))
        elif self.device.startswith("cuda"):
            with Worker(
                "saccade.measurement.largest_batch.batch_worker:Card", {"device": self.device}, threads=1
            ) as worker:
                worker.ready()
                card = worker.ask("measure")
            total = card["total_bytes"] if self.total_bytes is None else self.total_bytes
            found = replace(self, total_bytes=total, taken=Baselines(card["outside_bytes"], card["outside_bytes"]))
        else:
            assert on_cpu is not None
            found = replace(self, taken=on_cpu)
        if found.allowed_bytes <= found.taken.inference:
            raise ValueError(
                f"{gigabytes(found.allowed_bytes)} of memory: {gigabytes(found.taken.inference)} are taken before "
                "there is any model; give more"
            )
        return found


def budget_of(memory: str | None, for_gpu: str | None, device: str, margin: float = 0.0) -> Budget:
    """The budget that a user asks for, or what is free on a device.

    Args:
        memory: with its unit, as in "24GB"; None for what is free.
        for_gpu: a name of the catalogue; None for this machine.
        device: as torch writes it.
        margin: share that is kept free.

    Raises:
        ValueError: no amount, an unknown GPU, both of them, a device without a memory of its own, or no share.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin={margin}: must be a share of the memory, from 0 to below 1")
    if for_gpu is not None and memory is not None:
        raise ValueError(f"--memory {memory} --for {for_gpu}: give one of the two")
    if for_gpu is not None:
        gpu = gpu_named(for_gpu)
        return Budget(device="cuda", total_bytes=gpu.total_bytes, margin=margin, gpu=gpu)
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device {device}: memory is neither predicted nor limited there; use cpu or cuda")
    if memory is not None:
        return Budget(device=device, total_bytes=bytes_of(memory), margin=margin, asked=memory)
    if device.startswith("cuda"):
        return Budget(device=device, margin=margin)
    free = free_bytes(device)
    if free is None:
        raise ValueError("this system does not say how much memory is free: write it, as in --memory 24GB")
    return Budget(device=device, total_bytes=free, margin=margin)


def bytes_of(text: str) -> int:
    """ "24GB" as 24,000,000,000.

    Raises:
        ValueError: no number with one of `UNITS`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    size = units.get(found[2].lower()) if found else None
    if found is None or size is None or not float(found[1]):
        said = ", ".join(f"{unit} ({count:,} bytes)" for unit, count in UNITS.items())
        raise ValueError(f"--memory {text}: write a number above 0 and its unit, as in 24GB; units are {said}")
    return int(float(found[1]) * size)


def gigabytes(count: int) -> str:
    """1234567890 as "1.23 GB"."""
    return f"{count / 1e9:.2f} GB"
