"""What a run shows while it works: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress


class Progress(ABC):
    """Is told what a run does."""

    @abstractmethod
    def say(self, line: str) -> None:
        """A line for the log."""

    @abstractmethod
    def advance(self, done: int, total: int) -> None:
        """So many steps are done."""


class Silent(Progress):
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def advance(self, done: int, total: int) -> None:
        """Nothing."""


class Lines(Progress):
    """Writes each line to stderr."""

    def say(self, line: str) -> None:
        """Writes it at once."""
        print(line, file=sys.stderr, flush=True)

    def advance(self, done: int, total: int) -> None:
        """Nothing: the lines say where the run is."""


@contextmanager
def shown() -> Iterator[Progress]:
    """A bar below the lines where stderr is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar)


class _Bar(Progress):
    """Lines above a bar of rich's."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=None, visible=False)

    def say(self, line: str) -> None:
        # Names and paths in it are text, never markup.
        self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def advance(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total, visible=True)
