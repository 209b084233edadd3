"""The verb `reproduce`: one of the five originals, rebuilt, measured again, and examined."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from saccade.originals.original import Part
    from saccade.originals.reproduction import Reproduction


def reproduce(
    original: str | None = None,
    /,
    *,
    scale: int | None = None,
    batch_size: int | None = None,
    repeats: int | None = None,
    epochs: int | None = None,
    images: int | None = None,
    data: str | None = None,
    gpu: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Rebuild one of the five systems that saccade grew out of: its figures beside ours, and what finds its faults.

    Example:
    `saccade reproduce 000 --output runs/000`, or `saccade reproduce` for the list

    Its exact models are built, and what its table measured is measured on this machine, in its own form. The doctor
    examines what the original claimed; a fault of its code is given to the contract as somebody's class. By default
    all is small enough for two cores and a few minutes, and what is smaller is said; parameters, layer tables, bytes
    and the largest batch are in full size, for they need no run.

    Parameters
    ----------
    original
        Its id or name: 000 (mae-blocks), 001 (mae-lambda), 002 (xformers-vit), 003 (vit-einops), 004 (cifar-linear).
    scale
        What the depth of the models that are run is divided by; 1 for the original's own. Widths and tokens stay.
    batch_size
        Images of a step.
    repeats
        Turns of each timing.
    epochs
        Passes over the training images (004).
    images
        How many training images (004).
    data
        Images to train on (004), or to read for losses and waits (000), as for `saccade train`.
    gpu
        For which the largest batch is predicted (001), as `saccade max-batch --for` names it.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of each process. Default: torch's own choice.
    output
        Folder for records.jsonl, the original's claims, the command and report.md; what is measured is kept at once.
    json
        Print a line of JSON for each row, fault and finding.
    """
    from json import dumps

    from saccade.cli.console import note, results
    from saccade.originals import ORIGINALS, find_original
    from saccade.originals.page import beside_table, faults_table, title, write_reproduction
    from saccade.originals.reproduction import reproduce as run
    from saccade.record import require_writable
    from saccade.training.progress import shown

    if original is None:
        for listed in ORIGINALS.values():
            line = {"id": listed.id, "name": listed.name, "title": listed.title}
            results().print(dumps(line) if json else "  ".join(line.values()), markup=False, highlight=False)
        return
    wanted = find_original(original)
    if output is not None:
        require_writable(output)
    command = shlex.join(["saccade", *sys.argv[1:]])

    def keep(so_far: Reproduction) -> None:
        """What is measured is shown and outlives an interruption."""
        if output is not None:
            write_reproduction(output, so_far, command)
        if not json and so_far.parts:
            _print(so_far.parts[-1])

    given = {"scale": scale, "batch_size": batch_size, "repeats": repeats, "epochs": epochs, "images": images}
    given_words = {"data": data, "gpu": gpu}
    with shown() as progress:
        done = run(wanted, {**given, **given_words}, device=device, threads=threads, progress=progress, finished=keep)
    if json:
        for line in done.plain():
            print(dumps(line, ensure_ascii=False))
    else:
        for heading, table in (
            (title(done), beside_table(done)),
            ("What was wrong, and what finds it", faults_table(done.found)),
        ):
            results().print(f"\n{heading}", style="bold", markup=False, highlight=False)
            results().print(table)
    for sentence in done.scaled:
        note(f"scaled: {sentence}")
    for finding in done.findings:
        note(f"of the original: {finding}")
    for finding in done.own:
        note(f"of this run: {finding}")
    if output is not None:
        note(f"written: {output / 'report.md'}")


def _print(part: Part) -> None:
    """A step in the original's own form."""
    from saccade.cli.console import results

    if part.lines:
        results().print(f"\n{part.title}", style="bold", markup=False, highlight=False)
        results().print("\n".join(part.lines), markup=False, highlight=False, soft_wrap=True)
