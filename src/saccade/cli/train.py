"""The verbs `train`, `evaluate` and `recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def train(
    *,
    data: str | None = None,
    model: str | None = None,
    attention: str | None = None,
    recipe: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    img_size: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    on_bad_image: Literal["error", "skip"] | None = None,
    dtype: str | None = None,
    amp_dtype: str | None = None,
    logging_step: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    trust_class: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train one model and evaluate it: every epoch on the validation part, once at the end on the test part.

    Example:
    `saccade train --data path/to/images --model vit_tiny_patch16_224 --attention "nystrom(landmarks=16)" --epochs 90`

    The run's folder then holds args.toml (the recipe, everything written out), summary.csv, metrics.jsonl, result.json,
    train.log, model.safetensors with config.json, and pictures of accuracy and of seconds. The same recipe and seed
    give the same bits on the same machine.

    Parameters
    ----------
    data
        digits (embedded), a folder of class folders, a parquet file or folder, owner/name on the hub, cifar10, ...
    model
        A name from `saccade models`. Default: the recipe's.
    attention
        A mechanism from `saccade attentions`, with options: "nystrom(landmarks=16)"; a mixture: `linear*8,softmax*4`;
        your own class: my.module:Mine or file.py:Mine.
    recipe
        A name from `saccade recipes`, or a TOML file. Default: the one that fits data and model.
    set_
        Changes one field of the recipe: --set train.weight_decay=0.1
    epochs
        Passes over the training images.
    lr
        Highest learning rate.
    batch_size
        Images a step.
    seed
        Of initial weights, order, augmentation, stochastic depth and dropout.
    img_size
        Rows and columns in pixels, or one number for both. Default: the model's.
    on_bad_image
        Whether a picture that cannot be read ends the command (error) or is left out and counted (skip).
    dtype
        Of the weights: fp32, or bf16 with a float32 master copy in the optimiser.
    amp_dtype
        Of autocast: bf16.
    logging_step
        Steps between two lines of the log.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of torch. Default: its own choice.
    output
        New or empty folder. Default: runs/MODEL-ATTENTION-DATA-SEED-TIME.
    trust_class
        A class of your own, my.module:Mine, that the recipe's file may name as its attention.
    json
        Print the result as JSON on one line.
    """
    from saccade.cli.console import note
    from saccade.reports.curves import curves
    from saccade.training.chosen import chosen_recipe
    from saccade.training.loop import train as run
    from saccade.training.progress import shown
    from saccade.training.recipe import parse_settings
    from saccade.training.run import default_folder

    flags = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "dtype": dtype,
        "amp_dtype": amp_dtype,
        "logging_step": logging_step,
    }
    chosen = chosen_recipe(
        recipe=recipe,
        model=model,
        attention=attention,
        data=data,
        img_size=img_size,
        on_bad_image=on_bad_image,
        flags=flags,
        settings=parse_settings(set_),
        trust_class=trust_class,
    )
    folder = output or default_folder(chosen.model.name, chosen.model.attention, chosen.data.name, chosen.train.seed)
    with shown() as progress:
        trained = run(chosen, output=folder, device=device, threads=threads, progress=progress)
    curves(trained.history, folder)
    note(f"written: {folder}")
    shown_of_result = ("test_top1_percent", "test_loss", "validation_top1_percent", "train_seconds", "parameters")
    _print({**trained.result, "output": str(folder)}, shown_of_result, json)


def evaluate(
    folder: Path,
    *,
    data: str | None = None,
    split: str = "test",
    device: str = "auto",
    batch_size: int = 256,
    threads: int | None = None,
    trust_class: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Evaluate a trained model: every image of a split counts once.

    Example:
    `saccade evaluate runs/my-run --split validation`

    The images are prepared as those that the model was trained on: size, crop, mean and deviation are the model's.

    Parameters
    ----------
    folder
        A run of `saccade train`, or any folder with its model.safetensors and config.json.
    data
        As for `saccade train`. Default: what the model was trained on.
    split
        test, validation or train.
    device
        auto, cpu, cuda, cuda:N or mps.
    batch_size
        Images at a time.
    threads
        Threads of torch. Default: its own choice.
    trust_class
        A class of your own, my.module:Mine, that the folder may name as its attention: its code runs.
    json
        Print the result as JSON on one line.
    """
    from saccade.cli.console import note
    from saccade.training.saved import evaluate_saved

    found = evaluate_saved(
        folder,
        data=data,
        split=split,
        device=device,
        batch_size=batch_size,
        threads=threads,
        trust_class=trust_class,
        note=note,
    )
    # Fewer than six classes have no top-5.
    _print(found, tuple(name for name, value in found.items() if value is not None), json)


def recipes(name: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the named recipes, or print one as the TOML file that --recipe takes.

    Example:
    `saccade recipes digits > mine.toml`

    Parameters
    ----------
    name
        One of the names. Default: all, with what they state.
    json
        Print a JSON object a recipe, one a line.
    """
    from dataclasses import asdict
    from json import dumps

    from rich.table import Table

    from saccade.cli.console import results
    from saccade.training.recipes import list_recipes, named

    listed = [named(name)] if name is not None else [named(one) for one in list_recipes()]
    if json:
        for one in listed:
            results().print(dumps(asdict(one)), markup=False, highlight=False, soft_wrap=True)
    elif name is not None:
        results().print(listed[0].text, markup=False, highlight=False, soft_wrap=True, end="")
    else:
        table = Table("recipe", "for", "minutes", "on", "result", box=None, pad_edge=False)
        for one in listed:
            table.add_row(one.name, one.title, one.minutes, one.machine, one.result)
        results().print(table)


def _print(values: Mapping[str, Any], shown: tuple[str, ...], json: bool) -> None:
    """All values as one line of JSON, or those that matter most, a line each."""
    from json import dumps

    from saccade.cli.console import results

    if json:
        results().print(dumps(values), markup=False, highlight=False, soft_wrap=True)
        return
    width = max(len(name) for name in shown)
    for name in shown:
        value = values[name]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        results().print(f"{name:<{width}}  {text}", markup=False, highlight=False, soft_wrap=True)
