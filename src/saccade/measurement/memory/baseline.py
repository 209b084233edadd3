"""Baseline: what stays in a process that has let go of its model: the interpreter, torch, code that was read in."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import NamedTuple

import torch

from saccade.measurement.memory.peak import answer, train
from saccade.measurement.memory.scale import emptied, scale_for
from saccade.measurement.subject import Subject
from saccade.models.sizes import is_masked_autoencoder

_SMALLEST = {False: "vit_nano_patch1_8", True: "mae_nano_patch1_8"}


class Baselines(NamedTuple):
    """Resident bytes of a process that has let go of its model: what a budget holds besides.

    Attributes:
        training: after two training steps.
        inference: after a forward pass, for which torch loads less.
    """

    training: int
    inference: int


_NOTHING = Baselines(0, 0)


class Emptied:
    """This process, on the CPU, without a model: the smallest is run on one image, and let go.

    What a mechanism's kernels are, is read in when it first runs: 8 MB for lambda's convolution, 2 MB for a Fourier
    transform. Kernels that another one has brought in by then count to that one.
    """

    def __init__(self) -> None:
        self._scale = scale_for(torch.device("cpu"))
        self._added: dict[str, Baselines] = {}

    def by_softmax(self, subject: Subject) -> Baselines:
        """What stays of softmax on these terms, whatever the model's size and its batch: all that there is."""
        before = torch.get_num_threads()
        torch.set_num_threads(subject.threads)
        try:
            return self._run(_smallest(subject, "softmax"))
        finally:
            torch.set_num_threads(before)

    def added(self, subject: Subject) -> Baselines:
        """What this subject's attention adds to that; found once.

        Nothing is known, and 0 said, of a mechanism that makes no sense at the smallest size, or of a class that does
        not work.
        """
        if not self._added:
            self._run(_smallest(subject, "softmax"))
            self._added["softmax"] = _NOTHING
            # What is there now stays, and nobody need look through it again for what can go.
            gc.freeze()
        if subject.attention not in self._added:
            self._added[subject.attention] = self._above_softmax(subject)
        return self._added[subject.attention]

    def _above_softmax(self, subject: Subject) -> Baselines:
        before = emptied(self._scale)
        try:
            after = self._run(_smallest(subject, subject.attention))
        # Whatever somebody's class raises, the model will raise as well.
        except Exception:
            return _NOTHING
        return Baselines(max(0, after.training - before), max(0, after.inference - before))

    def _run(self, least: Subject) -> Baselines:
        answer(least)
        inference = emptied(self._scale)
        train(least)
        return Baselines(emptied(self._scale), inference)


def _smallest(subject: Subject, attention: str) -> Subject:
    """The smallest model of the subject's kind, on its terms."""
    model = _SMALLEST[is_masked_autoencoder(subject.model)]
    return replace(subject, model=model, options={}, attention=attention, batch_size=1, device="cpu")
