"""What an epoch costs, step by step: seconds at work, seconds waiting for data, peak memory, loss."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TypeVar

T = TypeVar("T")


class Meter:
    """Counts one epoch.

    Args:
        epoch: counted from 0.
        steps: of the epoch.
        epochs: of the run.
    """

    def __init__(self, epoch: int, steps: int, epochs: int) -> None:
        self.epoch, self.steps, self.epochs = epoch, steps, epochs
        self.step_seconds: list[float] = []
        self.data_seconds: list[float] = []
        self.losses: list[float] = []
        self.others: dict[str, list[float]] = {}
        self.told = 0
        self.mark = 0.0

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; a step lasts from asking for one to `add`."""
        self.mark = time.perf_counter()
        for batch in batches:
            self.data_seconds.append(time.perf_counter() - self.mark)
            yield batch

    def add(self, loss: float, beside: Mapping[str, float] = MappingProxyType({})) -> None:
        """The step is done.

        Args:
            loss: of the step.
            beside: other numbers of the step, by name, the same names in each.
        """
        now = time.perf_counter()
        self.step_seconds.append(now - self.mark)
        self.losses.append(loss)
        for name, value in beside.items():
            self.others.setdefault(name, []).append(value)
        self.mark = now

    @property
    def full(self) -> bool:
        """All steps of the epoch are done."""
        return len(self.losses) == self.steps

    @property
    def mean_loss(self) -> float:
        """Over the steps so far."""
        return _mean(self.losses)

    @property
    def means_beside(self) -> dict[str, float]:
        """Of the other numbers, over the steps so far."""
        return {name: _mean(values) for name, values in self.others.items()}

    def line(self, rate: float, peak_bytes: int) -> str:
        """The log's line for the steps since the last line: means, and the MB (2^20 bytes) of the peak."""
        done = len(self.losses)
        since = slice(self.told, done)
        self.told = done
        left = self.steps * (self.epochs - self.epoch) - done
        seconds = _mean(self.step_seconds[since])
        eta = timedelta(seconds=round(left * seconds))
        beside = "".join(f"{name}: {_mean(values[since]):.4f}  " for name, values in self.others.items())
        return (
            f"epoch: [{self.epoch}]  [{done}/{self.steps}]  eta: {eta}  lr: {rate:.3g}  "
            f"loss: {_mean(self.losses[since]):.4f}  {beside}time: {seconds:.4f}  "
            f"data: {_mean(self.data_seconds[since]):.4f}  max mem: {peak_bytes // 2**20}"
        )


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)
