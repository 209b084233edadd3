"""Baseline: what stays in a process that has let go of its model: the interpreter, torch, code that was read in."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from saccade.measurement.memory.forks import in_forks
from saccade.measurement.memory.peak import answer, train
from saccade.measurement.memory.scale import Resident, Scale, emptied, scale_for
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

    def plus(self, more: Baselines) -> Baselines:
        """Both together."""
        return Baselines(self.training + more.training, self.inference + more.inference)


def baselines_here(subjects: Sequence[Subject]) -> list[Baselines]:
    """What stays in this process of each subject's kind and attention, by the smallest model on one image; on the CPU.

    What a mechanism's kernels are, is read in when it first runs: 8 MB for lambda's convolution, 2 MB for a Fourier
    transform. Each mechanism is therefore run in a fork of this process, which the others' have never been in, and
    counts as softmax where it makes no sense at the smallest size or is a class that does not work, or where no process
    can tell its resident memory from its highest.

    Args:
        subjects: on the same terms, softmax first; the process has computed nothing before, with one thread.
    """
    scale = scale_for(torch.device("cpu"))
    least = [_smallest(subject) for subject in subjects]
    inference = _answered(least[0], scale)
    plain = Baselines(_trained(least[0], scale), inference)
    # What is there now stays, and nobody need look through it again for what can go.
    gc.freeze()
    if not isinstance(scale, Resident):
        return [plain] * len(subjects)
    softmax, *others = in_forks([partial(_more, least[0], one, scale) for one in least], otherwise=(0, 0))
    plain = plain.plus(Baselines(*softmax))
    return [plain, *(plain.plus(Baselines(*more)) for more in others)]


def _smallest(subject: Subject) -> Subject:
    """The smallest model of the subject's kind, with its attention on its terms."""
    model = _SMALLEST[is_masked_autoencoder(subject.model)]
    return replace(subject, model=model, options={}, batch_size=1, device="cpu")


def _answered(subject: Subject, scale: Scale) -> int:
    answer(subject)
    return emptied(scale)


def _trained(subject: Subject, scale: Scale) -> int:
    train(subject)
    return emptied(scale)


def _more(softmax: Subject, subject: Subject, scale: Scale) -> tuple[int, int]:
    """What a subject adds to softmax; where it is softmax itself, what its other threads add to one."""
    before = max(_answered(softmax, scale), _trained(softmax, scale))
    if subject == softmax:
        torch.set_num_threads(subject.threads)
    inference = _answered(subject, scale)
    return max(0, _trained(subject, scale) - before), max(0, inference - before)
