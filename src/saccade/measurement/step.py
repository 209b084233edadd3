"""What is measured: a training step and a forward pass of a subject, on random images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.measurement.subject import DTYPES, Subject
from saccade.models.vit import VisionTransformer
from saccade.training.optimiser import AdamW

# So small that the weights stay where they are, however often a step is repeated.
RATE = 1e-6


class Step:
    """A training step of a subject as saccade trains it: forward, cross entropy, backward, AdamW.

    The optimiser's moments come with the first call, as in training.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.model = subject.built()
        self.optimiser = AdamW(self.model, weight_decay=0.05, betas=(0.9, 0.999))
        self.model.to(DTYPES[subject.dtype])
        self.images = random_images(self.model, subject.batch_size)
        self.labels = torch.arange(subject.batch_size, device=subject.device) % max(1, self.model.num_classes)

    def __call__(self) -> None:
        """One step, in training mode."""
        self.model.train()
        with autocast(self.subject):
            logits = self.model(self.images)
        if logits.ndim != 2:
            raise ValueError("a training step needs class scores for each image, so a pooled head: set global_pool")
        nn.functional.cross_entropy(logits.float(), self.labels).backward()
        self.optimiser.step(RATE, norm=self.optimiser.take_gradients(), longest=0.0)


class Forward:
    """A forward pass without gradients, in eval mode."""

    def __init__(self, model: VisionTransformer, subject: Subject, batch_size: int) -> None:
        self.model = model
        self.subject = subject
        self.images = random_images(model, batch_size)

    @torch.no_grad()
    def __call__(self) -> None:
        """One pass."""
        self.model.eval()
        with autocast(self.subject):
            self.model(self.images)


def random_images(model: VisionTransformer, batch_size: int) -> Float[Tensor, "b c y x"]:
    """The same normal values for every model that takes images of this size, in the model's dtype."""
    weight = next(model.parameters())
    shape = (batch_size, model.in_chans, *model.img_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight)


def autocast(subject: Subject) -> torch.autocast:
    """Autocast where the subject asks for it, else nothing."""
    return torch.autocast(torch.device(subject.device).type, torch.bfloat16, enabled=subject.amp_dtype is not None)
