"""What lives in the processes of a search for the largest batch: a foreteller, a card, and a trial of one batch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch

from saccade.attention.elsewhere import kernels_of
from saccade.measurement.largest_batch.ceiling import ceiling, outside_bytes
from saccade.measurement.largest_batch.largest import FIRST, Line, largest
from saccade.measurement.memory.baseline import Baselines, baselines_here
from saccade.measurement.memory.peak import answer, train
from saccade.measurement.memory.predict import CannotPredict, Planned
from saccade.measurement.memory.scale import emptied, scale_for
from saccade.measurement.memory.tracked import STEPS
from saccade.measurement.subject import Subject


class Foreteller:
    """Says what would fit, without running the model."""

    def __init__(self) -> None:
        self._last: dict[bool, int] = {}

    def baselines(self, subjects: list[dict[str, Any]]) -> list[Baselines]:
        """What stays in a process on the CPU that has let go of each of these; to be asked first."""
        return baselines_here([Subject(**one) for one in subjects])

    def foretell(self, subject: dict[str, Any], training: bool, allowed_bytes: int, taken_bytes: int) -> dict[str, Any]:
        """The largest batch of a subject.

        Args:
            subject: its batch size does not matter; on CUDA it may be for a GPU that is not there.
            training: or inference.
            allowed_bytes: for the whole process; on a GPU for the whole card.
            taken_bytes: of these what no model can have.

        Returns:
            The fields of `Largest` and `within`; or the sentence by which the model is `refused`, or why nothing can be
            told beforehand, as `cannot`.
        """
        made = Subject(**subject)
        away = torch.device(made.device).type == "cuda" and not torch.cuda.is_available()
        terms = replace(made, device="cpu") if away else made
        with kernels_of("cuda") if away else nullcontext():
            try:
                planned = Planned(terms, training=training)
            except CannotPredict as why:
                return {"cannot": str(why)}
            except ValueError as refusal:
                return {"refused": str(refusal)}
            try:
                return self._found(planned, training, allowed_bytes - taken_bytes)
            except CannotPredict as why:
                return {"cannot": str(why)}

    def _found(self, planned: Planned, training: bool, model_bytes: int) -> dict[str, Any]:
        within: dict[int, float] = {}

        def predict(batch: int) -> Line:
            told = planned.predicted(batch)
            within[batch] = told.within
            fixed = told.weights_bytes + told.gradients_bytes + told.optimiser_bytes
            return Line(batch, told.peak_bytes, (told.peak_bytes - fixed) / batch)

        # What fits of one mechanism is not far from what fits of the last.
        found = largest(predict, model_bytes, near=self._last.get(training, FIRST))
        self._last[training] = found.batch_size
        # Of the prediction nearest to the answer, which mostly is of the answer itself.
        nearest = min(within, key=lambda batch: abs(batch - found.batch_size))
        return {**asdict(found), "within": within[nearest]}


class Card:
    """A CUDA device, as a process finds it that computes on it."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def measure(self) -> dict[str, int]:
        """All of its memory, and what of it no tensor of this process can have."""
        # Libraries are loaded when they are first used.
        square = torch.randn(64, 64, device=self.device, requires_grad=True)
        (square @ square).sum().backward()
        torch.cuda.synchronize(self.device)
        _, total = torch.cuda.mem_get_info(self.device)
        return {"total_bytes": total, "outside_bytes": outside_bytes(self.device)}


class Trial:
    """One batch, in a process that can hardly have more than the budget.

    Args:
        subject: with the batch size to try.
        training: or inference.
        budget_bytes: for the whole process; on a GPU for the whole card.
    """

    def __init__(self, subject: dict[str, Any], training: bool, budget_bytes: int) -> None:
        self.subject, self.training, self.budget_bytes = Subject(**subject), training, budget_bytes
        self.device = torch.device(self.subject.device)
        self.scale = scale_for(self.device)

    def run(self) -> dict[str, int]:
        """Two steps, or forward passes, on one image first, for what any leaves behind; then the two that count.

        Returns:
            `peak_bytes` of the whole process, `baseline_bytes` before the batch, and `optimiser_steps`.
        """
        with ceiling(self.device, self.budget_bytes):
            self._act(replace(self.subject, batch_size=1))
        baseline = emptied(self.scale)
        with ceiling(self.device, self.budget_bytes):
            self._act(self.subject)
        outside = outside_bytes(self.device) if self.device.type == "cuda" else 0
        return {
            "peak_bytes": self.scale.peak() + outside,
            "baseline_bytes": baseline + outside,
            "optimiser_steps": STEPS if self.training else 0,
        }

    def _act(self, subject: Subject) -> None:
        act = train if self.training else answer
        act(subject)
