"""The flow of a comparison: plan, say what is unfair, tune, train, measure, answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saccade.comparison.costs import Terms
from saccade.comparison.fit import all_that_fit, ask
from saccade.comparison.part import Asked, findings_of, plan_part
from saccade.comparison.question import BASELINE
from saccade.comparison.result import Comparison, conclude
from saccade.comparison.rivals import require_rivals
from saccade.comparison.scales import ScaleBy, scales_of
from saccade.comparison.store import Store
from saccade.comparison.then import How, Method, Task, chosen_then, require_sense
from saccade.measurement.terms import Clock
from saccade.models.sizes import is_masked_autoencoder
from saccade.record import require_writable
from saccade.training.chosen import chosen_recipe
from saccade.training.device import choose_device
from saccade.training.progress import Progress, Silent
from saccade.training.recipe import Recipe


def compare(
    attentions: Sequence[str] = (),
    *,
    task: Task = "classify",
    then: How | None = None,
    probe: Method | None = None,
    finetune_epochs: int | None = None,
    decoder_attention: str | None = None,
    data: str | None = None,
    model: str | None = None,
    recipe: str | Recipe | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = 5,
    tune: int = 0,
    rates: str | Path | None = None,
    margin: float = 1.0,
    rivals: bool = False,
    rivals_of: str | None = None,
    scales: int = 1,
    scale_by: ScaleBy = "width",
    anyway: bool = False,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    img_size: int | Sequence[int] | None = None,
    on_bad_image: str | None = None,
    dtype: str | None = None,
    amp_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    jobs: int = 1,
    repeats: int = 7,
    clock: Clock = "wall",
    output: str | Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Comparison:
    """Trains the same model with each attention, measures each, and answers which one to take.

    With `task="mae"` each pre-trains a masked autoencoder, and is judged by what its encoder has learned: by a probe of
    it or by fine-tuning, never by the loss.

    Example:
        answer = saccade.compare(["softmax", "linear"], data="digits", seeds=3, anyway=True)
        answer.rows, answer.sentence, answer.to_pandas()
        saccade.compare(["nystrom(landmarks=8)"], task="mae", then="finetune", data="path/to/images")

    Args:
        attentions: their written forms; none means all that saccade brings, with options that fit where the defaults
            are refused. Softmax is always in.
        task: "classify", or "mae" for masked autoencoders.
        then: of "mae": "probe" (None) leaves the pre-trained encoder as it is, "finetune" trains it with labels.
        probe: of "mae": "linear" (None), "linear_bn" or "knn", as in `saccade.probe`.
        finetune_epochs: passes over the training images with labels; None for those of the fine-tuning recipe.
        decoder_attention: of "mae": the same in every decoder; None puts each attention into the decoder too.
        data, model, recipe, settings, epochs, lr, batch_size, img_size, on_bad_image, dtype, amp_dtype: as in
            `saccade.train`.
        seeds: runs of each mechanism, seeds 0 .. seeds - 1.
        tune: learning rates tried for each mechanism, around the recipe's; 0 for none.
        rates: folder of a tuned comparison of the same model, recipe and images, whose rates are used.
        margin: points of accuracy that a mechanism may lose and still be "not worse".
        rivals: also compare what people would use instead of another attention: softmax models with larger patches,
            fewer layers, less width or merged tokens, whose training step takes no longer than the cheapest
            mechanism's, by measurement.
        rivals_of: the mechanism that gives the rivals' cost; naming one asks for rivals.
        scales: 2 repeats everything in a larger model, and recommends only what holds in both.
        scale_by: what is larger there: "width" is doubled, heads as wide as before; "tokens" are four times as many, by
            patches of half the side, or images of twice the side where a patch cannot be halved.
        anyway: go on where no mechanism could gain a tenth of the model's arithmetic.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: of each process; None for torch's own choice.
        jobs: training runs at a time; times are taken alone.
        repeats: of each timing.
        clock: "wall", or "cpu" for noisy machines.
        output: folder; None for runs/compare-<data>-<model>-<hash of the question>.
        progress: is told what is worth saying on the way; None shows nothing.
        command: how this was asked, for the report.

    Raises:
        ValueError: what cannot be compared, before anything runs; what had been computed stays on disk.
    """
    _check_counts({"seeds": seeds, "jobs": jobs, "repeats": repeats, "threads": threads})
    _check_tuning(tune, rates, margin)
    require_sense(task, then, probe, finetune_epochs, decoder_attention)
    require_rivals(task, rivals, rivals_of)
    _check_model(task, model)
    if output is not None:
        require_writable(Path(output))
    place = str(choose_device(device))
    flags = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "dtype": dtype, "amp_dtype": amp_dtype}
    wanted = chosen_recipe(
        recipe=recipe,
        model=model,
        attention=BASELINE,
        data=data,
        img_size=img_size,
        on_bad_image=on_bad_image,
        flags=flags,
        model_options={"decoder_attention": decoder_attention},
        settings=settings,
        pretraining=task == "mae",
    )
    told, say = wanted.train, (progress or Silent()).say
    terms = Terms(
        batch_size=told.batch_size,
        dtype=told.dtype,
        amp_dtype=told.amp_dtype,
        device=place,
        threads=torch.get_num_threads() if threads is None else threads,
        clock=clock,
        repeats=repeats,
    )
    after = chosen_then(then, probe, finetune_epochs, wanted) if task == "mae" else None
    asked = Asked(
        terms=terms,
        seeds=seeds,
        tune=tune,
        rates=None if rates is None else Path(rates),
        scales=scales,
        rivals=rivals or rivals_of is not None,
        rivals_of=rivals_of,
        jobs=jobs,
    )
    question = ask(wanted, attentions, place, say, after)
    names = attentions or all_that_fit(wanted, say)
    parts = [plan_part(one, names, asked, say) for one in scales_of(question, scales, scale_by, say)]
    findings = findings_of(parts)
    for finding in findings:
        say(str(finding))
    for part in parts:
        if not anyway and (nothing := part.stop()) is not None:
            raise ValueError(f"{nothing.sentence}; {nothing.remedy}")
    store = Store(Path(output) if output is not None else question.default_folder())
    with store.locked(question.key):
        say(f"everything is kept in {store.folder}; the same command goes on there")
        done = [part.run(store, progress or Silent()) for part in parts]
        comparison = conclude(
            [*findings, *(finding for one in done for finding in one.findings)],
            [record for one in done for record in one.records],
            store.folder,
            margin_points=margin,
            failures=[failure for one in done for failure in one.failures],
            command=command,
        )
        comparison.save()
    return comparison


def _check_counts(counts: Mapping[str, int | None]) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"--{name} {count}: must be at least 1")


def _check_model(task: Task, model: str | None) -> None:
    if model is None or is_masked_autoencoder(model) == (task == "mae"):
        return
    if task == "mae":
        raise ValueError(
            f"--task mae with --model {model}, which is a classifier: take a name with mae_ from `saccade models`, or "
            "leave --task out"
        )
    raise ValueError(
        f"--model {model} is a masked autoencoder, which has no classes: add --task mae, or take the classifier "
        f"{model.replace('mae_', 'vit_', 1)}"
    )


def _check_tuning(tune: int, rates: str | Path | None, margin: float) -> None:
    if tune < 0:
        raise ValueError(f"--tune {tune}: must be a number of rates to try, or 0 for none")
    if tune and rates is not None:
        raise ValueError(f"--tune {tune} with --rates {rates}: one of the two chooses the rates")
    if not margin > 0:
        raise ValueError(f"--margin {margin:g}: must be above 0 points, for chance alone takes a little")
