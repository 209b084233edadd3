"""Terms: the conditions on which anything is measured, be it a model or a single layer; equal for all rivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from saccade.measurement.allocator import Allocator
from saccade.measurement.machine import allocator_changed, settings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What rivals share.

    Attributes:
        batch_size: images of one call.
        dtype: of the weights, "fp32" or "bf16" (with float32 master weights in the optimiser).
        amp_dtype: "bf16" for autocast over float32 weights; None for none.
        device: as torch writes it.
        threads: processor threads.
        clock: "wall" (on CUDA: the device's own events), or "cpu" for processor time, where others use the machine.
        allocator: "default", or "keep" for a process that gives no memory back.
        checkpointing: blocks keep only their input for the backward pass, and run again in it.
        compile: by torch.compile.

    Raises:
        ValueError: a word or number that is not allowed, or processor time of an accelerator.
    """

    batch_size: int = 64
    dtype: str = "fp32"
    amp_dtype: str | None = None
    device: str = "cpu"
    threads: int = 1
    clock: str = "wall"
    allocator: Allocator = "default"
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        require_positive(batch_size=self.batch_size, threads=self.threads)
        _check_word("dtype", self.dtype, tuple(DTYPES))
        _check_word("amp_dtype", self.amp_dtype, (None, "bf16"))
        _check_word("clock", self.clock, get_args(Clock))
        _check_word("allocator", self.allocator, get_args(Allocator))
        if self.dtype == "bf16" and self.amp_dtype:
            raise ValueError('dtype="bf16" with amp_dtype="bf16": autocast has nothing to cast; give one of the two')
        if self.clock == "cpu" and torch.device(self.device).type != "cpu":
            raise ValueError(f'clock="cpu" on {self.device}: processor time says nothing there; use clock="wall"')

    @property
    def mixing_dtype(self) -> torch.dtype:
        """Of the queries, keys and values that an attention is given."""
        return DTYPES[self.amp_dtype or self.dtype]

    def conditions(self) -> dict[str, Any]:
        """The terms, as a record names them."""
        changed = self.allocator == "default" and allocator_changed()
        return {
            "device": self.device,
            "dtype": self.dtype,
            "amp_dtype": self.amp_dtype,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "clock": self.clock,
            "allocator": "changed" if changed else self.allocator,
            "checkpointing": self.checkpointing,
            "compile": self.compile,
            "environment": settings(),
        }


def require_positive(**numbers: int) -> None:
    """Checks that numbers are at least 1.

    Raises:
        ValueError: one is not.
    """
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")


def _check_word(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}")
