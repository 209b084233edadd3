"""Original 004: three small ViTs on CIFAR-10: softmax, linear attention, and that behind convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from saccade.attention import resolved_text
from saccade.data.dataset import Dataset
from saccade.measurement.machine import machine_facts
from saccade.models.sizes import create_model, model_defaults
from saccade.originals.claimed import Claimed
from saccade.originals.original import Asked, Beside, Fault, Original, Part, counts
from saccade.record import Record
from saccade.reports.numbers import duration
from saccade.training.chosen import chosen_recipe
from saccade.training.device import choose_device
from saccade.training.loop import Trained, train
from saccade.training.progress import Progress
from saccade.training.recipe import Recipe, recipe_to_dict
from saccade.training.setup import load_images, plan_model

EPOCHS, IMAGES = 40, 50_000


@dataclass(frozen=True, kw_only=True)
class Published:
    """A column of the original's table."""

    model: str
    name: str
    parameters: int
    top1_percent: float
    epoch_seconds: float


PUBLISHED = (
    Published(model="vit", name="VIT", parameters=829_322, top1_percent=75.83, epoch_seconds=93.9),
    Published(model="vitl", name="VITL", parameters=924_426, top1_percent=65.58, epoch_seconds=171.1),
    Published(model="vitx", name="VITX", parameters=1_017_162, top1_percent=78.89, epoch_seconds=178.8),
)


class CifarLinear(Original):
    """VIT, VITL and VITX."""

    id = "004"
    was = (
        "Three ViTs of width 128 and depth 4 on CIFAR-10, 40 epochs at batch 128 and rate 1e-3: VIT with softmax on "
        "patches of 2 x 2 pixels, VITL with linear attention on single pixels, VITX with linear attention behind three "
        "convolutions. It set their accuracies and seconds an epoch beside each other."
    )
    hardware = "an Apple M1 Pro"
    usual: ClassVar[Mapping[str, Any]] = {"epochs": 1, "images": 512, "batch_size": 128, "data": "cifar10"}
    faults = (
        Fault(
            "The size of the patches changes together with the attention, so neither accuracy nor time says anything "
            "about the attention.",
            rule="a second thing changed",
        ),
        Fault("One run each, without a seed.", rule="seeds"),
    )
    instead = (
        "saccade compare softmax 'linear(bias=False)' --model vit_micro_patch2_32 --data cifar10 --tune 5 --seeds 5"
    )

    def claims(self) -> list[Record]:
        """The table."""
        return [record for published in PUBLISHED for record in _claims(published)]

    def counted(self) -> Part:
        """Parameters."""
        return Part("Counted", beside=[_parameters(published) for published in PUBLISHED])

    def measured(self, asked: Asked, progress: Progress) -> Iterator[Part]:
        """A training run for each."""
        dataset = None
        for published in PUBLISHED:
            recipe = chosen_recipe(
                model=published.model,
                data=asked.data,
                flags={"epochs": asked.epochs, "batch_size": asked.batch_size},
                settings={"data.limit": asked.images},
            )
            dataset = dataset or _cut(load_images(recipe, plan_model(recipe).img_size, progress.say), asked.images)
            yield _trained(published, recipe, asked, dataset, progress)


def _parameters(published: Published) -> Beside:
    with torch.device("meta"):
        model = create_model(published.model)
    return counts(f"parameters, {published.name}", published.parameters, sum(one.numel() for one in model.parameters()))


def _cut(dataset: Dataset, images: int) -> Dataset:
    """With no more images to be judged by than to be trained on, the first ones of each part."""
    few: dict[str, Any] = {
        name: dataset.splits[name].select(torch.arange(images))
        for name in ("validation", "test")
        if len(dataset.splits[name]) > images
    }
    return replace(dataset, **few, fingerprint=f"{dataset.fingerprint}, {images} of a part") if few else dataset


def _trained(published: Published, recipe: Recipe, asked: Asked, dataset: Dataset, progress: Progress) -> Part:
    """A run by the original's recipe."""
    done = train(recipe, device=asked.device, threads=asked.threads, data=dataset, progress=progress)
    record = _record(done, asked)
    epoch_seconds, top1 = done.result["epoch_seconds"][-1], done.result["test_top1_percent"]
    images = len(dataset.train) // recipe.train.batch_size * recipe.train.batch_size
    whole = epoch_seconds * IMAGES / images
    name = published.name
    return Part(
        f"{name}: {done.result['attention']}",
        [
            f"+ Parameters: {done.result['parameters']:,}",
            f"+ Top 1 Accuracy on {dataset.name}: {top1:.2f}%",
            f"+ Training Time: {epoch_seconds:.1f}s/epoch",
        ],
        [
            Beside(
                f"top-1, {name}",
                f"{published.top1_percent} % after {EPOCHS} epochs",
                f"{top1:.2f} % after {asked.epochs} of {images:,} images",
                "no: another budget" if (asked.epochs, images) != (EPOCHS, IMAGES) else "no: one run, no seeds",
            ),
            Beside(
                f"an epoch, {name}",
                f"{published.epoch_seconds} s",
                f"{duration(epoch_seconds)}; of {IMAGES:,} images about {duration(whole)}",
                "no: another machine",
            ),
        ],
        [record],
        [
            f"{asked.epochs} of {EPOCHS} epochs, {images:,} of {IMAGES:,} images "
            f"(--epochs {EPOCHS} --images {IMAGES}), judged by {len(dataset.test):,} test images"
        ],
    )


def _record(done: Trained, asked: Asked) -> Record:
    recipe = done.recipe
    return Record(
        kind="accuracy",
        attention=recipe.model.attention,
        attention_resolved=resolved_text(recipe.model.attention, model_defaults(recipe.model.name)["depth"]),
        model=recipe.model.name,
        model_options=recipe.model.options,
        # A process that trains several has one peak for all of them.
        values={name: value for name, value in done.result.items() if name != "peak_bytes"},
        conditions={
            "device": str(choose_device(asked.device)),
            "threads": torch.get_num_threads() if asked.threads is None else asked.threads,
            "dtype": recipe.train.dtype,
            "amp_dtype": recipe.train.amp_dtype,
            "batch_size": recipe.train.batch_size,
        },
        machine=machine_facts(),
        data=done.data_facts,
        recipe=recipe_to_dict(recipe),
        seed=recipe.train.seed,
    )


def _claims(published: Published) -> Iterator[Record]:
    """Sizes of the model by their names, so that what differs is seen."""
    options = model_defaults(published.model)
    attention = options.pop("attention")
    claimed = Claimed(
        model="vit_micro_patch2_32",
        attention=attention,
        options={name: options.get(name, usual) for name, usual in (("patch_size", 2), ("embed_layer", "patch"))},
        conditions={"device": "mps", "batch_size": 128},
        accelerator="M1 Pro",
    )
    yield claimed.operations()
    values = {"test_top1_percent": published.top1_percent, "epoch_seconds": [published.epoch_seconds]}
    yield claimed.record("accuracy", values, seed=0)
