"""What is measured: a training step and forward passes, on random images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.measurement.subject import Subject
from saccade.measurement.terms import DTYPES, Terms
from saccade.measurement.work import Model
from saccade.training.optimiser import AdamW

# So small that the weights stay where they are, however often a step is repeated.
RATE = 1e-6


class Step:
    """A training step as saccade trains: forward, loss, backward, AdamW with float32 master weights.

    The optimiser's moments come with the first call, as in training.

    Args:
        model: on its device, in float32; it is cast to the subject's dtype.
        images: of one step.
        subject: the terms.
        loss: of images, by that model.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c y x"],
        subject: Subject,
        loss: Callable[[Float[Tensor, "b c y x"]], Float[Tensor, ""]],
    ) -> None:
        self.subject = subject
        self.loss = loss
        self.optimiser = AdamW(model, weight_decay=0.05, betas=(0.9, 0.999))
        self.model = model.to(DTYPES[subject.dtype])
        self.images = images.to(next(model.parameters()))

    def __call__(self) -> None:
        """One step, in training mode."""
        self.model.train()
        with autocast(self.subject.terms):
            loss = self.loss(self.images)
        loss.backward()
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
        self.act = act
        self.images = images.to(next(model.parameters()))

    @torch.no_grad()
    def __call__(self) -> None:
        """One pass."""
        self.model.eval()
        with autocast(self.subject.terms):
            self.act(self.images)


def random_images(model: Model, batch_size: int) -> Float[Tensor, "b c y x"]:
    """Normal values: the same for every model that takes images of this size."""
    return torch.randn(batch_size, model.in_chans, *model.img_size, generator=torch.Generator().manual_seed(0))


def autocast(terms: Terms) -> torch.autocast:
    """Autocast where the terms ask for it, else nothing."""
    return torch.autocast(torch.device(terms.device).type, torch.bfloat16, enabled=terms.amp_dtype is not None)
