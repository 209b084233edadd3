"""Runs: a recipe is trained into its folder, goes on with `--resume`, and says how to where it is interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli.flags import RunFlags

if TYPE_CHECKING:
    from saccade.training.loop import Trained
    from saccade.training.recipe import Recipe


def recipe_to_go_on(flags: RunFlags) -> str:
    """The recipe of a run that goes on: the one that is named anew, else the one in its folder.

    Raises:
        ValueError: no run lies there.
    """
    from saccade.training.run import require_run

    lies_there = str(require_run(flags.output))
    return flags.recipe or lies_there


def run(
    verb: str, recipe: Recipe, flags: RunFlags, *, resume: bool, folder_name: str | None = None
) -> tuple[Trained, Path]:
    """Trains a recipe, with progress shown, and keeps it in a folder.

    Args:
        verb: which is to be called again where it is interrupted.
        recipe: the chosen one.
        flags: where it is trained, and where its files go.
        resume: goes on with the run in the folder.
        folder_name: what the default folder's name begins with; None for the model's name.

    Returns:
        What was trained, and the folder.
    """
    from saccade.training.loop import train
    from saccade.training.progress import shown
    from saccade.training.run import default_folder

    folder = flags.output or default_folder(
        folder_name or recipe.model.name, recipe.model.attention, recipe.data.name, recipe.train.seed
    )
    with _told_how_to_go_on(verb, recipe, folder, flags), shown() as progress:
        trained = train(
            recipe, output=folder, device=flags.device, threads=flags.threads, progress=progress, resume=resume
        )
    return trained, folder


@contextmanager
def _told_how_to_go_on(verb: str, recipe: Recipe, folder: Path, flags: RunFlags) -> Iterator[None]:
    """Says by which command an interrupted run goes on; an interruption is Ctrl-C or a signal to end."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        from saccade.cli.console import note
        from saccade.training.recipes import own_classes
        from saccade.training.run import RECIPE

        if (folder / RECIPE).is_file():
            words = ["saccade", verb, "--resume", "--output", str(folder)]
            words += ["--device", flags.device] if flags.device != "auto" else []
            words += ["--threads", str(flags.threads)] if flags.threads is not None else []
            for name in own_classes(recipe):
                words += ["--trust-class", name]
            note(f"to go on from the last finished epoch: {shlex.join(words)}")
        raise
