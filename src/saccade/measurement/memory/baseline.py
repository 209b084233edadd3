"""Baseline: what stays in a process that has let go of its model: the interpreter, torch, code that was read in."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from saccade.measurement.memory.peak import answer, train
from saccade.measurement.memory.scale import Scale, emptied, scale_for
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

    def of(self, training: bool) -> int:
        """Those of a process that trains, or that only answers."""
        return self.training if training else self.inference


def baselines_here(subjects: Sequence[Subject]) -> list[Baselines]:
    """What stays in this process of each subject's kind and attention, by the smallest model on one image; on the CPU.

    What a mechanism's kernels are, is read in when it first runs: 8 MB for lambda's convolution, 2 MB for a Fourier
    transform. That counts to the first that needs it, and to nobody where a mechanism makes no sense at the smallest
    size, or is a class that does not work. Threads are this process's own; each further one takes up to 1 MB.

    Args:
        subjects: on the same terms, softmax first; the process has computed nothing before.
    """
    scale = scale_for(torch.device("cpu"))
    plain = _after(subjects[0], scale)
    # What is there now stays, and nobody need look through it again for what can go.
    gc.freeze()
    return [plain, *(_with_more(plain, subject, scale) for subject in subjects[1:])]


def _with_more(plain: Baselines, subject: Subject, scale: Scale) -> Baselines:
    before = emptied(scale)
    try:
        after = _after(subject, scale)
    # Whatever somebody's class raises, the model will raise as well.
    except Exception:
        return plain
    more = [max(0, now - before) for now in after]
    return Baselines(plain.training + more[0], plain.inference + more[1])


def _after(subject: Subject, scale: Scale) -> Baselines:
    model = _SMALLEST[is_masked_autoencoder(subject.model)]
    least = replace(subject, model=model, options={}, batch_size=1, device="cpu")
    answer(least)
    inference = emptied(scale)
    train(least)
    return Baselines(emptied(scale), inference)
