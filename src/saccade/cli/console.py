"""Where verbs write: results on stdout, notes and progress on stderr; nothing that a user wrote is read as markup."""

from __future__ import annotations

import sys
from functools import cache

from rich.console import Console

# A pipe has no width: lines are for programs there, and none is broken.
PIPE_COLUMNS = 240


@cache
def results() -> Console:
    """The console of results."""
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)


@cache
def notes() -> Console:
    """The console of notes, warnings and progress."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_COLUMNS)


def note(text: str) -> None:
    """Says something beside the results."""
    notes().print(text, markup=False, highlight=False)
