"""Markup: how text that somebody else wrote stands in a Markdown document, as text."""

from __future__ import annotations

import re

_SIGNS = re.compile(r"([\\`*_{}\[\]#|~!])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def prose(text: str) -> str:
    """Text within a sentence: on one line, no sign of it read as Markdown or HTML."""
    line = " ".join(text.split())
    for sign, entity in _ENTITIES.items():
        line = line.replace(sign, entity)
    return _SIGNS.sub(r"\\\1", line)


def code(text: str) -> str:
    """A name as code: on one line, its bars escaped for tables, fenced past its own ticks."""
    line = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + _longest_run(line))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def block(text: str) -> str:
    """Lines as a block of code, fenced past their own ticks."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}text\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    """How many ticks stand together at most."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
