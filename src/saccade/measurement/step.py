"""What is measured: a training step and forward passes, on random images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from saccade.measurement.compiling import compiled
from saccade.measurement.subject import Subject
from saccade.measurement.terms import DTYPES, Terms
from saccade.measurement.work import Model, work_of
from saccade.training.optimiser import AdamW

# So small that the weights stay where they are, however often a step is repeated.
RATE = 1e-6

Given = Float[Tensor, "b c y x"] | tuple[Tensor, ...]


@runtime_checkable
class OnTerms(Protocol):
    """Whatever is measured on terms."""

    @property
    def dtype(self) -> str:
        """Of the weights."""
        ...

    @property
    def terms(self) -> Terms:
        """All of them."""
        ...


class Step:
    """A training step as saccade trains: forward, loss, backward, AdamW with float32 master weights.

    The optimiser's moments come with the first call, as in training.

    Args:
        model: on its device, in float32; it is cast to the subject's dtype.
        images: of one step; several tensors for a model that is not ours.
        subject: the terms.
        loss: of images, by that model.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Given,
        subject: OnTerms,
        loss: Callable[[Any], Float[Tensor, ""]],
    ) -> None:
        self.subject = subject
        self.loss = compiled(loss, subject.terms)
        self.optimiser = AdamW(model, weight_decay=0.05, betas=(0.9, 0.999))
        self.model = model.to(DTYPES[subject.dtype])
        self.take(images)

    def take(self, images: Given) -> None:
        """Other images from now on, brought to where the model is, and into its type."""
        self.images = _beside(images, self.model)

    def __call__(self) -> None:
        """One step, in training mode."""
        self.forward().backward()
        self.update()

    def forward(self) -> Float[Tensor, ""]:
        """The loss, with what its backward pass needs."""
        self.model.train()
        with autocast(self.subject.terms):
            return self.loss(self.images)

    def update(self) -> None:
        """The optimiser's part, when gradients are there."""
        self.optimiser.step(RATE, norm=self.optimiser.take_gradients(), longest=0.0)


class Forward:
    """A forward pass without gradients, in eval mode.

    Args:
        model: on its device, in the subject's dtype.
        images: of one pass.
        subject: the terms.
        act: what is computed of images, by that model.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c y x"],
        subject: Subject,
        act: Callable[[Float[Tensor, "b c y x"]], Tensor],
    ) -> None:
        self.subject = subject
        self.model = model
        self.act = compiled(act, subject.terms)
        self.take(images)

    def take(self, images: Float[Tensor, "b c y x"]) -> None:
        """Other images from now on, brought to where the model is, and into its type."""
        self.images = images.to(next(self.model.parameters()))

    @torch.no_grad()
    def __call__(self) -> None:
        """One pass."""
        self.model.eval()
        with autocast(self.subject.terms):
            self.act(self.images)


def training_step(model: Model, subject: Subject) -> Step:
    """A step of one of our models, on random images."""
    return Step(model, random_images(model, subject.batch_size), subject, work_of(model).loss)


def inference(model: Model, subject: Subject) -> Forward:
    """What a user of the trained model runs, on random images."""
    return Forward(model, random_images(model, subject.batch_size), subject, work_of(model).answer)


def random_images(model: Model, batch_size: int) -> Float[Tensor, "b c y x"]:
    """Normal values: the same for every model that takes images of this size."""
    return torch.randn(batch_size, model.in_chans, *model.img_size, generator=torch.Generator().manual_seed(0))


def _beside(images: Given, model: nn.Module) -> Given:
    """Where the model is, and in its type where they are no whole numbers."""
    like = next(model.parameters())
    return tree_map(lambda one: one.to(like.device, like.dtype if one.is_floating_point() else one.dtype), images)


def autocast(terms: Terms) -> torch.autocast:
    """Autocast where the terms ask for it, else nothing."""
    return torch.autocast(torch.device(terms.device).type, torch.bfloat16, enabled=terms.amp_dtype is not None)
