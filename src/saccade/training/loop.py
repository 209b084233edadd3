"""The loop that trains: recipe in; weights, metrics and a result out.

Nothing here keeps the state of a generator. Initial weights are f(seed, name), order f(seed, epoch), augmentation and
stochastic depth f(seed, epoch, image), dropout f(seed, step): two runs of a recipe on one machine give the same bits.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade.data.batches import Batch, train_batches
from saccade.data.dataset import Dataset
from saccade.data.draws import uniform
from saccade.errors import Diverged
from saccade.models.vit import VisionTransformer
from saccade.training.checkpoint import save_checkpoint, save_final
from saccade.training.device import choose_device, forget_peak, peak_bytes, same_bits
from saccade.training.evaluate import evaluate
from saccade.training.meter import Meter
from saccade.training.nonfinite import find_source
from saccade.training.objective import Classification
from saccade.training.optimiser import AdamW, learning_rate
from saccade.training.progress import Progress, Silent
from saccade.training.recipe import Recipe, recipe_to_toml
from saccade.training.run import Run, environment
from saccade.training.setup import load_images, make_model, plan_model, resolve, saved_facts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished run.

    Attributes:
        model: with its last weights.
        recipe: what it was trained by, classes and channels written out.
        history: an epoch each: what metrics.jsonl holds.
        result: what result.json holds.
        data_facts: what is known of the images.
        folder: where its files are, if they were kept.
    """

    model: VisionTransformer
    recipe: Recipe
    history: list[dict[str, Any]]
    result: dict[str, Any]
    data_facts: dict[str, Any]
    folder: Path | None


def train(
    recipe: Recipe,
    *,
    output: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    data: Dataset | None = None,
    test: bool = True,
    progress: Progress | None = None,
) -> Trained:
    """Trains one model.

    Args:
        recipe: what to compute.
        output: new or empty folder for the run's files; None keeps none.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: of torch; None leaves its own choice.
        data: images that are loaded already; None loads what the recipe names.
        test: whether the test split is read, once, at the end.
        progress: is told what the run does; None shows nothing.

    Raises:
        ValueError: a device, folder, model or data set that cannot be had; nothing is left behind.
        Diverged: a loss or gradient is not finite; the step was not taken, and nonfinite.json says where it came from.
    """
    place = choose_device(device)
    img_size = plan_model(recipe).img_size
    with same_bits(place, threads):
        run = Run(output, progress or Silent())
        try:
            dataset = load_images(recipe, img_size, run.say) if data is None else data
            recipe = resolve(recipe, dataset)
            model = make_model(recipe).to(place)
        except BaseException:
            run.abandon()
            raise
        run.start(recipe_to_toml(recipe), environment(str(place), torch.get_num_threads()))
        run.say(_what_is_trained(recipe, dataset, model, place))
        forget_peak(place)
        history = _epochs(recipe, dataset, model, place, run)
        result = _result(recipe, dataset, model, history, test)
        if output is not None:
            save_final(model, output, saved_facts(recipe, dataset))
        run.finish(result)
    return Trained(model, recipe, history, result, dataset.facts(), output)


def _epochs(
    recipe: Recipe, dataset: Dataset, model: VisionTransformer, place: torch.device, run: Run
) -> list[dict[str, Any]]:
    """Trains the model in place; returns an epoch each."""
    told = recipe.train
    objective = Classification(told.label_smoothing)
    optimiser = AdamW(model, weight_decay=told.weight_decay, betas=told.betas)
    model.to(DTYPES[told.dtype])
    steps = len(dataset.train) // told.batch_size
    rate_at = partial(
        learning_rate,
        steps=steps * told.epochs,
        warmup_steps=round(told.warmup_share * steps * told.epochs),
        highest=told.lr,
        lowest=told.min_lr,
        schedule=told.schedule,
    )

    def loss_at(step: int, batch: Batch) -> Tensor:
        """The same number, and the same gradients, whenever it is asked for."""
        torch.manual_seed(_dropout_seed(told.seed, step))
        with torch.autocast(place.type, torch.bfloat16, enabled=told.amp_dtype == "bf16"):
            return objective(model, batch, partial(uniform, told.seed, step // steps, batch.index))

    history: list[dict[str, Any]] = []
    for epoch in range(told.epochs):
        model.train()
        meter = Meter(epoch, steps, told.epochs)
        batches = train_batches(
            dataset, told.batch_size, seed=told.seed, epoch=epoch, augment=recipe.augment, device=place
        )
        for step, batch in enumerate(meter.over(batches), start=epoch * steps):
            model.advance(step, told.seed)
            loss = loss_at(step, batch)
            loss.backward()
            norm = optimiser.take_gradients()
            numbers = torch.stack([loss.detach(), norm]).tolist()
            if not all(math.isfinite(number) for number in numbers):
                what = "gradient" if math.isfinite(numbers[0]) else "loss"
                raise _diverged(run, model, batch, partial(loss_at, step, batch), epoch=epoch, step=step, what=what)
            optimiser.step(rate_at(step), norm=norm, longest=told.clip_grad)
            meter.add(numbers[0])
            run.advance(step + 1, steps * told.epochs)
            if len(meter.losses) % told.logging_step == 0 or meter.full:
                run.say(meter.line(rate_at(step), peak_bytes(place)))
        began = time.perf_counter()
        evaluation = evaluate(model, dataset.validation, dataset, amp_dtype=told.amp_dtype)
        if not math.isfinite(evaluation.loss):
            what = "validation loss"
            raise _diverged(run, model, batch, partial(loss_at, step, batch), epoch=epoch, step=step, what=what)
        history.append(
            {
                "epoch": epoch,
                "train_loss": meter.mean_loss,
                "eval_loss": evaluation.loss,
                "eval_top1": evaluation.top1_percent,
                "lr": rate_at(step),
                "images_seen": (step + 1) * told.batch_size,
                "train_seconds": sum(meter.step_seconds),
                "data_seconds": sum(meter.data_seconds),
                "eval_seconds": time.perf_counter() - began,
                "peak_bytes": peak_bytes(place),
            }
        )
        run.epoch(history[-1])
        run.say(f"epoch: [{epoch}]  validation top-1: {evaluation.top1_percent:.2f} %  loss: {evaluation.loss:.4f}")
        if run.folder is not None:
            save_checkpoint(model, run.folder, epoch, saved_facts(recipe, dataset))
    return history


def _what_is_trained(recipe: Recipe, dataset: Dataset, model: VisionTransformer, place: torch.device) -> str:
    parameters = sum(weight.numel() for weight in model.parameters())
    images = ", ".join(f"{len(part):,} {name}" for name, part in dataset.splits.items())
    return (
        f"{recipe.model.name} with {recipe.model.attention}: {parameters:,} parameters; "
        f"{dataset.name}: {images} images; {place}, {torch.get_num_threads()} threads"
    )


def _result(
    recipe: Recipe, dataset: Dataset, model: VisionTransformer, history: list[dict[str, Any]], test: bool
) -> dict[str, Any]:
    """What the run came to; the test split is read here and nowhere else."""
    last = history[-1]
    result = {
        "model": recipe.model.name,
        "attention": recipe.model.attention,
        "data": dataset.name,
        "seed": recipe.train.seed,
        "lr": recipe.train.lr,
        "epochs": len(history),
        "batch_size": recipe.train.batch_size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "images_seen": last["images_seen"],
        "train_seconds": sum(row["train_seconds"] for row in history),
        "epoch_seconds": [row["train_seconds"] for row in history],
        "peak_bytes": last["peak_bytes"],
        "train_loss": last["train_loss"],
        "validation_loss": last["eval_loss"],
        "validation_top1_percent": last["eval_top1"],
        "validation_images": len(dataset.validation),
    }
    if test:
        tested = evaluate(model, dataset.test, dataset, amp_dtype=recipe.train.amp_dtype)
        result |= {
            "test_loss": tested.loss,
            "test_top1_percent": tested.top1_percent,
            "test_top5_percent": tested.top5_percent,
            "test_images": len(dataset.test),
            "test_correct": tested.correct_hex,
        }
    return result


def _diverged(
    run: Run,
    model: VisionTransformer,
    batch: Batch,
    loss_of_step: Callable[[], Tensor],
    *,
    epoch: int,
    step: int,
    what: str,
) -> Diverged:
    """Finds out where it came from, leaves that in nonfinite.json, and says it."""
    source = find_source(model, batch.images, loss_of_step)
    facts = {"epoch": epoch, "step": step, "not_finite": what, "source": source.what, "module": source.module}
    run.nonfinite(facts | {"images": batch.index.tolist()})
    return Diverged(
        f"the {what} is not finite at step {step} (epoch {epoch}); {source}; "
        "the run ends here, and what it saved is finite; try a lower --lr"
    )


def _dropout_seed(seed: int, step: int) -> int:
    """f(seed, step), spread over 63 bits so that seeds and steps that are close share nothing."""
    digest = hashlib.sha256(f"{seed}:dropout:{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
