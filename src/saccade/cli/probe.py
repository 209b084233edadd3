"""The verb `probe`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table


def probe(
    checkpoint: Path,
    /,
    *,
    data: str | None = None,
    method: str = "all",
    pool: Literal["token", "avg"] | None = None,
    k: int | None = None,
    random: bool = True,
    device: str = "auto",
    batch_size: int = 256,
    threads: int | None = None,
    trust_class: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure what a pre-trained encoder has learned: classify images by its frozen features.

    Example:
    `saccade probe runs/my-pretraining --data path/to/labelled/images`

    Every image goes through the whole encoder once, unmasked and not augmented. The linear probe is then the best
    linear classifier of the training part's features, with the penalty that the validation part likes best; the test
    part is read once, at the end. There is no randomness in it. Beside it stands the same probe of the
    same model with random weights: what all its training was worth is the difference. A run of `saccade pretrain` began
    with these very weights; of a run of `saccade finetune` the difference is what both trainings were worth.

    Parameters
    ----------
    checkpoint
        A run of `saccade pretrain` or `saccade train`, or a file of facebookresearch/mae, transformers or timm (.pth,
        .bin, .safetensors; read as tensors only).
    data
        As for `saccade train`. Default: what the model was trained on.
    method
        linear; linear-bn, behind a BatchNorm without parameters, as in MAE; knn, a vote of the nearest training images
        by cosine similarity; or all.
    pool
        What stands for an image: its class token (token) or the mean of its patches (avg). Default: of a masked
        autoencoder the class token, as in MAE; of a classifier what its head reads.
    k
        Neighbours that vote. Default: 20.
    random
        Whether the model with random weights is probed, too.
    device
        auto, cpu, cuda, cuda:N or mps.
    batch_size
        Images at a time.
    threads
        Threads of torch. Default: its own choice.
    trust_class
        A class of your own, my.module:Mine, that the folder may name as its attention: its code runs.
    json
        Print a line of JSON for each probe: it says, image by image, which answers were right.
    """
    from json import dumps

    from saccade.cli.console import note, results
    from saccade.training.probe import METHODS
    from saccade.training.probed import probe_saved

    wanted = method.replace("-", "_")
    if wanted not in (*METHODS, "all"):
        raise ValueError(f"--method {method}: must be {', '.join(METHODS).replace('_', '-')} or all")
    found = probe_saved(
        checkpoint,
        data=data,
        methods=[one for one in METHODS if wanted in (one, "all")],
        pool=pool,
        k=k,
        random=random,
        device=device,
        batch_size=batch_size,
        threads=threads,
        trust_class=trust_class,
        note=note,
    )
    if json:
        for row in found:
            results().print(dumps(row), markup=False, highlight=False, soft_wrap=True)
        return
    results().print(_about(found[0]), markup=False, highlight=False, soft_wrap=True)
    results().print(_table(found))


def _about(row: dict[str, Any]) -> str:
    """What was probed, on what."""
    what = {"token": "class token", "avg": "mean of the patches"}[row["settings"]["pool"]]
    return (
        f"{row['model'] or row['checkpoint']} with {row['attention']}, frozen: its {what}, on {row['data']}; learned "
        f"from {row['train_images']:,} images, tested on {row['test_images']:,}"
    )


def _table(found: Sequence[dict[str, Any]]) -> Table:
    """A line a method; the model with random weights beside, where it was probed."""
    from rich.table import Table

    trained = [row for row in found if row["encoder"] == "trained"]
    random = {row["method"]: row for row in found if row["encoder"] == "random"}
    table = Table(box=None, pad_edge=False)
    table.add_column("probe")
    beside = ("random weights %", "gained, points") if random else ()
    for column in ("chosen", "validation %", "test %", *beside):
        table.add_column(column, justify="right")
    for row in trained:
        settings, test = row["settings"], row["test_top1_percent"]
        chosen = f"penalty {settings['penalty']:.0e}" if "penalty" in settings else f"k {settings['k']}"
        cells = [row["method"].replace("_", "-"), chosen, f"{row['validation_top1_percent']:.2f}", f"{test:.2f}"]
        if other := random.get(row["method"]):
            cells += [f"{other['test_top1_percent']:.2f}", f"{test - other['test_top1_percent']:+.2f}"]
        table.add_row(*cells)
    return table
