"""Predict: what memory a training step or a forward pass takes, without running it, by tensors that have none."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from saccade.attention.elsewhere import one_for_all
from saccade.measurement.largest_batch.largest import FAR
from saccade.measurement.memory.own import Own
from saccade.measurement.memory.shortcuts import Shortcuts
from saccade.measurement.memory.tally import Tally
from saccade.measurement.memory.tracked import Memory, track_inference, track_step, track_training
from saccade.measurement.step import Forward, Step, autocast, inference, random_images, training_step
from saccade.measurement.subject import Subject
from saccade.measurement.terms import DTYPES, Terms
from saccade.measurement.twin import twin_of
from saccade.models.sizes import create_model

# Whoever listens to modules hears those of every thread.
_ALONE = threading.Lock()

# Tiles are walked one by one: beyond so many images for hours.
MOST_IMAGES = FAR


class CannotPredict(ValueError):  # noqa: N818
    """What a model needs cannot be told without running it; the message says why."""


def predicted_step(subject: Subject, *, training: bool = True) -> Memory:
    """What a training step takes, or a forward pass of what a user of the model runs, above what was there before.

    Nothing is run or allocated: the model is planned, and its operations run on tensors without values. A step of an
    optimiser that has its moments, as all but the first.

    Example:
        predicted_step(Subject(model="vit_base_patch16_224", batch_size=64)).peak_bytes

    Args:
        subject: the model and the terms.
        training: False for a forward pass in eval mode, without gradients.

    Raises:
        CannotPredict: the model reads values, is compiled, or is for a device that this torch knows nothing of; or
            more than `MOST_IMAGES` images.
        ValueError: a model or attention that makes no sense at this size.
    """
    return Planned(subject, training=training).predicted(subject.batch_size)


class Planned:
    """A model without values, of which one batch after the other is predicted, as by `predicted_step`.

    Args:
        subject: the model and the terms; its batch size does not matter.
        training: or a forward pass in eval mode.

    Raises:
        CannotPredict: as `predicted_step`.
        ValueError: as there.
    """

    def __init__(self, subject: Subject, *, training: bool = True) -> None:
        _require_eager(subject.terms)
        with torch.device("meta"):
            planned = create_model(subject.model, subject.attention, **subject.options)
        planned.set_grad_checkpointing(subject.checkpointing)
        self._subject, self._fake = subject, FakeTensorMode(allow_non_fake_inputs=True)
        one = replace(subject, batch_size=1)
        with self._without_values():
            self._twin = twin_of(planned, torch.device(subject.device))
            self._act: Step | Forward
            if training:
                self._act = training_step(self._twin, one)
                self._act.optimiser.make_moments()
            else:
                self._act = inference(self._twin.to(DTYPES[subject.dtype]), one)

    def predicted(self, batch_size: int) -> Memory:
        """What so many images take.

        Raises:
            CannotPredict: as `predicted_step`.
        """
        if batch_size > MOST_IMAGES:
            raise CannotPredict(
                f"batch_size={batch_size}: up to {MOST_IMAGES} images are predicted; beyond, what an image adds "
                "goes on as between two batches below"
            )
        with self._without_values():
            self._act.take(random_images(self._twin, batch_size))
            if isinstance(self._act, Step):
                return track_step(self._twin, self._act)
            return track_inference(self._twin, self._act)

    def _without_values(self) -> AbstractContextManager[None]:
        return _without_values(self._subject.attention, self._fake)


def predicted_own(own: Own) -> Memory:
    """As `predicted_step`, for a training step of somebody's module, which stays as it is.

    Raises:
        CannotPredict: as there.
        ValueError: no loss, or no module.
    """
    _require_eager(own.terms)
    module = own.module if isinstance(own.module, nn.Module) else own.built()
    with _without_values(own.name):
        device = torch.device(own.terms.device)
        twin = twin_of(module, device).float()
        inputs = tuple(torch.empty(one.shape, dtype=one.dtype, device=device) for one in own.inputs)
        return track_training(twin, replace(own, module=twin, inputs=inputs).step_of)


def predicted_bytes(module: nn.Module, shapes: Sequence[Sequence[int]], dtype: torch.dtype, terms: Terms) -> int | None:
    """What a forward and backward pass adds at its peak to weights, inputs and a gradient that comes in.

    Operations run on tensors without values, so that it costs neither memory nor time. What a kernel needs within
    itself is not seen.

    Args:
        module: as it will run, on any device.
        shapes: of its inputs; the output has the shape of the first.
        dtype: of its inputs.
        terms: device and autocast.

    Returns:
        None where the module does what only real tensors can.
    """
    device = torch.device(terms.device)
    try:
        with _without_values(type(module).__name__):
            made = twin_of(module, device)
            inputs = [torch.empty(shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes]
            state = [*made.parameters(), *made.buffers()]
            dy = torch.empty_like(inputs[0])
            with Tally([*inputs, *state, dy]) as tally, autocast(terms):
                y = made(*inputs)
                leaves = [*inputs, *(weight for weight in state if weight.requires_grad)]
                torch.autograd.grad(y, leaves, dy.to(y.dtype), allow_unused=True)
            return tally.peak_bytes
    # A class of somebody's may do what only real tensors can; then nothing is known beforehand.
    except Exception:
        return None


def _require_eager(terms: Terms) -> None:
    if terms.compile:
        raise CannotPredict("compile=True: what a compiler keeps and fuses is not known before it has; measure it")
    device = torch.device(terms.device).type
    # Autograd of a torch without CUDA ends the process where it meets tensors of it.
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise CannotPredict(f"device={terms.device}: this torch has no operations for it; predict for the cpu")


@contextmanager
def _without_values(what: str, fake: FakeTensorMode | None = None) -> Iterator[None]:
    """Tensors that are made have shapes and no values; those that have values keep them.

    Args:
        what: is told of in errors.
        fake: the mode of tensors without values that are there already.
    """
    fake = fake or FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with _ALONE, one_for_all(), fake, Shortcuts(fake):
            yield
    except ValueError:
        raise
    # Whatever somebody's class does with a tensor without values.
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise CannotPredict(
            f"{what} cannot be predicted without values ({type(error).__name__}: {first}); measure it"
        ) from error
