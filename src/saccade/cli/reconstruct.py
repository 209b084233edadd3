"""The verb `reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from saccade.training.shown import Shown


def reconstruct(
    checkpoint: Path,
    /,
    *images: Path,
    also: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    data: str | None = None,
    count: int | None = None,
    mask_ratio: float | None = None,
    visible: Literal["original", "predicted", "both"] = "original",
    norm_pix_loss: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("reconstruction.png"),
    device: str = "auto",
    threads: int | None = None,
    trust_class: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw what pre-trained masked autoencoders make of pictures: original, masked, reconstruction, side by side.

    Example:
    `saccade reconstruct runs/softmax cat.jpg dog.jpg --also runs/linear --also runs/nystrom -o animals.png`

    All models see the same patches of the same pictures, prepared as those that each was trained on. Below each
    reconstruction stands its loss on the hidden patches beside that of predicting the mean. A model trained with
    norm_pix_loss predicts no patch's mean and deviation; the original's are put in, and the picture says so.

    Parameters
    ----------
    checkpoint
        A run of `saccade pretrain`, or a full checkpoint of facebookresearch/mae or transformers (.pth, .bin,
        .safetensors; read as tensors only).
    images
        Picture files. Default: pictures of a data set's validation part.
    also
        A further checkpoint, for a column of its own; may be given several times.
    data
        The data set, as for `saccade train`. Default: what the first model was trained on.
    count
        So many pictures of the data set, drawn by the seed. Default: 8.
    mask_ratio
        Share of the patches to hide. Default: what the models were trained with.
    visible
        What is shown where a model sees the patch: the original, what it predicts, or both in a column each.
    norm_pix_loss
        The checkpoint files of others predict normalised pixels, which they do not say.
    seed
        Of the mask and of the pictures drawn.
    output
        The PNG file; one of that name is replaced.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of torch. Default: its own choice.
    trust_class
        A class of your own, my.module:Mine, that a folder may name as its attention: its code runs.
    json
        Print a line of JSON for each picture and model.
    """
    if output.suffix != ".png" or not output.parent.is_dir():
        raise ValueError(f"--output {output}: give the name of a .png file in a folder that is there")
    from saccade.cli.console import note
    from saccade.reports.reconstruction import reconstruction_figure
    from saccade.training.shown import reconstruct_saved

    shown = reconstruct_saved(
        [checkpoint, *also],
        images,
        data=data,
        count=count,
        mask_ratio=mask_ratio,
        norm_pix_loss=norm_pix_loss,
        seed=seed,
        device=device,
        threads=threads,
        trust_class=trust_class,
        note=note,
    )
    reconstruction_figure(shown, output, visible=visible)
    note(f"written: {output}")
    _print(shown, json)


def _print(shown: Shown, json: bool) -> None:
    """The losses, a picture and model each."""
    from json import dumps

    from rich.table import Table
    from rich.text import Text

    from saccade.cli.console import results

    rows = _rows(shown)
    if json:
        for row in rows:
            results().print(dumps(row), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("picture")
    table.add_column("model")
    for column in ("loss on hidden patches", "of predicting the mean"):
        table.add_column(column, justify="right")
    absolute = any(row["absolute"] for row in rows)
    if absolute:
        table.add_column("error")
    for row in rows:
        cells = [row["picture"], row["model"], f"{row['loss']:.4f}", f"{row['mean_loss']:.4f}"]
        if absolute:
            cells.append("absolute" if row["absolute"] else "squared")
        # Names are text, never markup.
        table.add_row(*map(Text, cells))
    results().print(table)


def _rows(shown: Shown) -> list[dict[str, Any]]:
    return [
        {
            "picture": name,
            "model": label,
            "mask_ratio": shown.mask_ratio,
            "loss": loss,
            "mean_loss": mean,
            "absolute": made.absolute,
            "norm_pix_loss": made.norm_pix_loss,
        }
        for label, made in shown.models.items()
        for name, loss, mean in zip(shown.names, made.loss.tolist(), made.mean_loss.tolist(), strict=True)
    ]
