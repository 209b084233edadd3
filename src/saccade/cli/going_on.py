"""Runs that go on: what `--resume` takes from a run's folder, and what is said where one was interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli.flags import RunFlags

if TYPE_CHECKING:
    from saccade.training.recipe import Recipe


def recipe_to_go_on(flags: RunFlags) -> str:
    """The recipe of a run that goes on: the one that is named anew, else the one in its folder.

    Raises:
        ValueError: no run lies there.
    """
    from saccade.training.run import require_run

    lies_there = str(require_run(flags.output))
    return flags.recipe or lies_there


@contextmanager
def told_how_to_go_on(verb: str, recipe: Recipe, folder: Path, flags: RunFlags) -> Iterator[None]:
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
