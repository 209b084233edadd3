"""The loop that trains: recipe in; weights, metrics and a result out.

Nothing here keeps the state of a generator. Initial weights are f(seed, name), order f(seed, epoch), augmentation,
masks and stochastic depth f(seed, epoch, image), dropout f(seed, step): two runs of a recipe on one machine give the
same bits, and so does a run that was killed and went on from its last checkpoint.

What tells a classifier from a masked autoencoder is in the objective; the loop knows of neither.
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
from saccade.models.mae import MaskedAutoencoder
from saccade.models.sizes import is_masked_autoencoder
from saccade.models.vit import VisionTransformer
from saccade.models.weights import load_weights, save_model
from saccade.training.checkpoint import newest_checkpoint, remove_checkpoints, save_checkpoint
from saccade.training.device import choose_device, forget_peak, peak_bytes, same_bits
from saccade.training.meter import Meter
from saccade.training.nonfinite import find_source
from saccade.training.objective import Objective
from saccade.training.optimiser import AdamW, learning_rate
from saccade.training.progress import Progress, Silent
from saccade.training.recipe import Recipe
from saccade.training.run import Run, environment
from saccade.training.setup import load_images, make_model, objective_of, plan_model, resolve, saved_facts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Model = VisionTransformer | MaskedAutoencoder


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

    model: Model
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
    resume: bool = False,
) -> Trained:
    """Trains one model: a classifier with labels, a masked autoencoder without.

    Args:
        recipe: what to compute.
        output: new or empty folder for the run's files; None keeps none.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: of torch; None leaves its own choice.
        data: images that are loaded already; None loads what the recipe names.
        test: whether the test split is read, once, at the end.
        progress: is told what the run does; None shows nothing.
        resume: goes on with the run in `output`, from the end of its last whole epoch; a finished one is only read.

    Raises:
        ValueError: a device, folder, model or data set that cannot be had; nothing is left behind. Or, with `resume`,
            no run in the folder, or one with another recipe or other images.
        Busy: with `resume`, another process is at work on that run.
        Diverged: a loss or gradient is not finite; the step was not taken, and nonfinite.json says where it came from.
        Failed: with `resume`, no checkpoint is whole.
    """
    place = choose_device(device)
    objective = objective_of(recipe)
    img_size = plan_model(recipe).img_size
    with same_bits(place, threads), Run(output, progress or Silent(), resume=resume) as run:
        labelled = not is_masked_autoencoder(recipe.model.name)
        dataset = load_images(recipe, img_size, run.say, labelled=labelled) if data is None else data
        recipe = resolve(recipe, dataset)
        model = make_model(recipe, run.say).to(place)
        run.start(
            recipe, environment(str(place), torch.get_num_threads()), ("epoch", "train_loss", *objective.columns, "lr")
        )
        if output is not None and (finished := run.finished()) is not None:
            run.say(f"the run in {output} is finished; nothing was left to do")
            history, result = finished
            model.to(DTYPES[recipe.train.dtype]).load_state_dict(load_weights(output))
        else:
            run.say(_what_is_trained(recipe, dataset, objective.attention(model), model, place))
            forget_peak(place)
            history = _epochs(recipe, dataset, objective, model, place, run)
            result = _result(recipe, dataset, objective, model, history, test)
            if output is not None:
                save_model(model, output, saved_facts(recipe, dataset))
            run.finish(result)
        if output is not None:
            remove_checkpoints(output)
    return Trained(model, recipe, history, result, dataset.facts(), output)


def _epochs(
    recipe: Recipe, dataset: Dataset, objective: Objective[Any, Any], model: Model, place: torch.device, run: Run
) -> list[dict[str, Any]]:
    """Trains the model in place; returns an epoch each."""
    told = recipe.train
    optimiser = AdamW(model, weight_decay=told.weight_decay, betas=told.betas, layer_decay=told.layer_decay)
    model.to(DTYPES[told.dtype])
    history = _gone_on(run, model, optimiser, dataset) if run.resumed else []
    steps = len(dataset.train) // told.batch_size
    rate_at = partial(
        learning_rate,
        steps=steps * told.epochs,
        warmup_steps=round(told.warmup_share * steps * told.epochs),
        highest=told.lr,
        lowest=told.min_lr,
        schedule=told.schedule,
    )

    def draws_at(step: int, batch: Batch) -> Callable[[str, int], Tensor]:
        return partial(uniform, told.seed, step // steps, batch.index)

    def loss_at(step: int, batch: Batch) -> Tensor:
        """The same number, and the same gradients, whenever it is asked for."""
        torch.manual_seed(_dropout_seed(told.seed, step))
        with torch.autocast(place.type, torch.bfloat16, enabled=told.amp_dtype == "bf16"):
            return objective(model, batch, draws_at(step, batch))

    for epoch in range(len(history), told.epochs):
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
            beside = objective.beside(model, batch, draws_at(step, batch))
            lost, length, *others = torch.stack([loss.detach(), norm, *beside.values()]).tolist()
            if not (math.isfinite(lost) and math.isfinite(length)):
                what = "gradient" if math.isfinite(lost) else "loss"
                raise _diverged(run, model, batch, partial(loss_at, step, batch), epoch=epoch, step=step, what=what)
            optimiser.step(rate_at(step), norm=norm, longest=told.clip_grad)
            meter.add(lost, dict(zip(beside, others, strict=True)))
            run.advance(step + 1, steps * told.epochs)
            if len(meter.losses) % told.logging_step == 0 or meter.full:
                run.say(meter.line(rate_at(step), peak_bytes(place)))
        began = time.perf_counter()
        validated = objective.row(objective.evaluate(model, dataset.validation, dataset, told.amp_dtype))
        if not math.isfinite(validated["eval_loss"]):
            what = "validation loss"
            raise _diverged(run, model, batch, partial(loss_at, step, batch), epoch=epoch, step=step, what=what)
        history.append(
            {
                "epoch": epoch,
                "train_loss": meter.mean_loss,
                **{f"train_{name}": mean for name, mean in meter.means_beside.items()},
                **validated,
                "lr": rate_at(step),
                "images_seen": (step + 1) * told.batch_size,
                "train_seconds": sum(meter.step_seconds),
                "data_seconds": sum(meter.data_seconds),
                "eval_seconds": time.perf_counter() - began,
                "peak_bytes": peak_bytes(place),
            }
        )
        run.epoch(history[-1])
        run.say(objective.line(history[-1]))
        if warning := objective.warning(history[-1], told.epochs):
            run.say(warning)
        if run.folder is not None:
            facts = saved_facts(recipe, dataset)
            save_checkpoint(run.folder, model, optimiser, history, dataset.fingerprint, facts)
    return history


def _gone_on(run: Run, model: Model, optimiser: AdamW, dataset: Dataset) -> list[dict[str, Any]]:
    """Brings model and optimiser to where the run's last whole checkpoint has them; returns the epochs until then.

    Raises:
        ValueError: the run saw other images.
        Failed: no checkpoint is whole.
    """
    assert run.folder is not None
    saved = newest_checkpoint(run.folder, run.say)
    if saved is None:
        run.say("no epoch was finished: the run begins anew")
        run.rewind([])
        return []
    if saved.data_fingerprint != dataset.fingerprint:
        raise ValueError(
            f"--resume: the images of {dataset.name} are not those that the run in {run.folder} began with; "
            "bring those back, or begin anew in another folder"
        )
    model.load_state_dict(saved.weights)
    optimiser.load_state(saved.optimiser)
    run.rewind(saved.history)
    run.say(f"goes on behind epoch {len(saved.history) - 1}, from {saved.folder}")
    return saved.history


def _what_is_trained(recipe: Recipe, dataset: Dataset, attention: str, model: Model, place: torch.device) -> str:
    parameters = sum(weight.numel() for weight in model.parameters())
    images = ", ".join(f"{len(part):,} {name}" for name, part in dataset.splits.items())
    return (
        f"{recipe.model.name} with {attention}: {parameters:,} parameters; "
        f"{dataset.name}: {images} images; {place}, {torch.get_num_threads()} threads"
    )


def _result(
    recipe: Recipe,
    dataset: Dataset,
    objective: Objective[Any, Any],
    model: Model,
    history: list[dict[str, Any]],
    test: bool,
) -> dict[str, Any]:
    """What the run came to; the test split is read here and nowhere else."""
    last = history[-1]
    result = {
        "model": recipe.model.name,
        "attention": recipe.model.attention,
        **objective.settings(model),
        "checkpoint": recipe.model.checkpoint,
        "checkpoint_sha256": recipe.model.checkpoint_sha256,
        "data": dataset.name,
        "seed": recipe.train.seed,
        "lr": recipe.train.lr,
        "epochs": len(history),
        "batch_size": recipe.train.batch_size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "images_seen": last["images_seen"],
        "train_seconds": sum(row["train_seconds"] for row in history),
        "epoch_seconds": [row["train_seconds"] for row in history],
        # A run that was killed and went on has had more than one process.
        "peak_bytes": max(row["peak_bytes"] for row in history),
        "train_loss": last["train_loss"],
        **objective.validated(last),
        "validation_images": len(dataset.validation),
    }
    if test:
        found = objective.evaluate(model, dataset.test, dataset, recipe.train.amp_dtype)
        result |= {**objective.tested(found), "test_images": len(dataset.test)}
    return result


def _diverged(
    run: Run,
    model: Model,
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
