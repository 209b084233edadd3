"""Where verbs write: results on stdout, notes and progress on stderr; nothing that a user wrote is read as markup."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rich.console import Console

# A pipe has no width, unless COLUMNS gives it one: a table may take what it needs.
PIPE_COLUMNS = 240


@cache
def results() -> Console:
    """The console of results."""
    return Console(width=_width(sys.stdout.isatty()))


@cache
def notes() -> Console:
    """The console of notes, warnings and progress."""
    return Console(stderr=True, width=_width(sys.stderr.isatty()))


def note(text: str) -> None:
    """Says something beside the results."""
    # Broken into lines for a reader only.
    notes().print(text, markup=False, highlight=False, soft_wrap=not notes().is_terminal)


def print_values(values: Mapping[str, Any], shown: Sequence[str], json: bool) -> None:
    """Prints all values as one line of JSON, or those that matter most, a line each."""
    from json import dumps

    if json:
        results().print(dumps(values), markup=False, highlight=False, soft_wrap=True)
        return
    width = max(len(name) for name in shown)
    for name in shown:
        value = values[name]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        results().print(f"{name:<{width}}  {text}", markup=False, highlight=False, soft_wrap=True)


def _width(terminal: bool) -> int | None:
    return None if terminal or os.environ.get("COLUMNS") else PIPE_COLUMNS
