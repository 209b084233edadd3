"""The flow of a comparison: plan, say what is unfair, tune, train, measure, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saccade.attention import fitting, list_attentions, resolved_text
from saccade.comparison.costs import Terms
from saccade.comparison.plan import plan_facts
from saccade.comparison.question import BASELINE, Question
from saccade.comparison.result import Comparison, conclude
from saccade.comparison.store import Store
from saccade.comparison.study import Study
from saccade.comparison.then import How, Method, Task, Then, chosen_then, require_sense
from saccade.comparison.tuning import read_rates
from saccade.measurement.operations import operations_record
from saccade.measurement.terms import Clock
from saccade.measurement.work import work_of
from saccade.models.sizes import is_masked_autoencoder
from saccade.record import require_writable
from saccade.reports.fairness import before, stop
from saccade.training.chosen import chosen_recipe
from saccade.training.device import choose_device
from saccade.training.progress import Progress, Silent
from saccade.training.recipe import Recipe, with_values
from saccade.training.setup import load_images, plan_model, resolve


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
    question = ask(wanted, attentions, place, say, after)
    entries = question.entries(attentions or all_that_fit(wanted, say), say)
    operations = [operations_record(terms.subject(question, entry.attention)) for entry in entries]
    tuned = (
        []
        if rates is None
        else read_rates(Path(rates), like=question.example(), wanted=[entry.attention_resolved for entry in entries])
    )
    plan = plan_facts(question, operations, terms, seeds=seeds, tune=tune, rates=rates)
    findings = before(plan)
    for finding in findings:
        say(str(finding))
    if not anyway and (nothing := stop(plan)) is not None:
        raise ValueError(f"{nothing.sentence}; {nothing.remedy}")
    store = Store(Path(output) if output is not None else question.default_folder())
    with store.locked(question.key):
        say(f"everything is kept in {store.folder}; the same command goes on there")
        study = Study(question, entries, terms, store, jobs=jobs, progress=progress or Silent())
        for entry, record in zip(entries, operations, strict=True):
            store.add_operations(entry.attention_resolved, record)
        tuned = study.tune(tune) if tune else tuned
        trained = study.train(study.rates(tuned), range(seeds))
        records = [*operations, *tuned, *trained, *study.measure()]
        comparison = conclude(
            findings, records, store.folder, margin_points=margin, failures=study.failures, command=command
        )
        comparison.save()
    return comparison


def ask(
    recipe: Recipe, attentions: Sequence[str], device: str, say: Callable[[str], None], then: Then | None = None
) -> Question:
    """The question, with what only the images can tell; mechanisms that are none are refused before these are read."""
    planned = plan_model(recipe)
    for attention in attentions:
        resolved_text(attention, len(planned.blocks))
        require_fit(with_values(recipe, {"model.attention": attention}))
    dataset = load_images(recipe, planned.img_size, say)
    return Question(resolve(recipe, dataset), dataset.facts(), device, len(planned.blocks), then)


def require_fit(recipe: Recipe) -> None:
    """Checks that an attention makes sense wherever it will be: in training, and on whole images afterwards.

    Raises:
        ValueError: it is refused somewhere.
    """
    try:
        planned = plan_model(recipe)
    except ValueError as error:
        if _decoder_is_to_blame(recipe):
            raise ValueError(f"in the decoder, {error}; --decoder-attention gives all rows one decoder") from error
        raise
    for block in planned.blocks:
        if reason := block.attn.refusal(planned.tokens.patches):
            raise ValueError(f"on whole images, as they are encoded after pre-training, {reason}")


def all_that_fit(recipe: Recipe, say: Callable[[str], None]) -> list[str]:
    """Every mechanism that saccade brings, as it makes sense in this model; the others are left out, and why."""
    encoder, *_ = work_of(plan_model(recipe)).stacks
    fit: list[str] = []
    for name in list_attentions():
        try:
            with torch.device("meta"):
                fits = fitting(name, encoder.width, encoder.heads, encoder.tokens, patches=encoder.patches)
            require_fit(with_values(recipe, {"model.attention": fits}))
            fit.append(fits)
        except ValueError as error:
            say(f"left out: {error}")
            continue
        if fit[-1] != name:
            say(f"{name} is taken as {fit[-1]}: its defaults are refused at this size")
    return fit


def _check_counts(counts: Mapping[str, int | None]) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"--{name} {count}: must be at least 1")


def _decoder_is_to_blame(recipe: Recipe) -> bool:
    """Whether the attention is refused only because each is in the decoder, too."""
    if not is_masked_autoencoder(recipe.model.name) or recipe.model.options.get("decoder_attention"):
        return False
    try:
        plan_model(with_values(recipe, {"model.options.decoder_attention": BASELINE}))
    except ValueError:
        return False
    return True


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
