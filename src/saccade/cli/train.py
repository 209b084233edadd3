"""The verbs `train`, `evaluate` and `recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saccade.cli.flags import NOTHING_SAID, RunFlags


def train(
    *,
    data: str | None = None,
    model: str | None = None,
    attention: str | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    flags: RunFlags = NOTHING_SAID,
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
    resume
        Go on with the run in --output from its last finished epoch, by the recipe that lies there; the end is the same,
        bit by bit, as if it had not been interrupted.
    """
    from saccade.cli.console import note, print_values
    from saccade.cli.runs import recipe_to_go_on, run
    from saccade.reports.curves import curves
    from saccade.training.chosen import chosen_recipe
    from saccade.training.recipe import parse_settings

    chosen = chosen_recipe(
        recipe=recipe_to_go_on(flags) if resume else flags.recipe,
        model=model,
        attention=attention,
        data=data,
        img_size=flags.img_size,
        on_bad_image=flags.on_bad_image,
        flags=flags.of_training,
        settings=parse_settings(flags.set_),
        trust_class=flags.trust_class,
    )
    trained, folder = run("train", chosen, flags, resume=resume)
    curves(trained.history, folder)
    note(f"written: {folder}")
    of_result = ("test_top1_percent", "test_loss", "validation_top1_percent", "train_seconds", "parameters")
    print_values({**trained.result, "output": str(folder)}, of_result, flags.json)


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
    from saccade.cli.console import note, print_values
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
    print_values(found, tuple(name for name, value in found.items() if value is not None), json)


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
