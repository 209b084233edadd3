"""What the mechanisms say of themselves, read from their source: the listing does not wait for torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from saccade.attention import TABLE, list_attentions


@dataclass(frozen=True)
class Facts:
    """Facts of one mechanism at its default options; `saccade.attention.base.Attention` says what each means.

    Attributes:
        name: in the table.
        title: what it does, in one line: the first of its class's docstring.
        text: the paragraphs between that line and the options.
        options: every option with its default.
        meanings: what each option means.
        shared: the options that are MultiHead's.
        paper: authors, year and address.
        cost: multiplications of the mixing, inside O().
        any_length: it works on every number of tokens.
        free_of_order: it sees a set, not a sequence.
        needs_grid: it depends on the shape of the patch grid.
        exact_when: where it equals softmax.
    """

    name: str
    title: str
    text: str
    options: Mapping[str, object]
    meanings: Mapping[str, str]
    shared: tuple[str, ...]
    paper: str
    cost: str
    any_length: bool
    free_of_order: bool
    needs_grid: bool
    exact_when: str


_LITERALS = ("paper", "cost", "any_length", "free_of_order", "needs_grid", "exact_when")


def facts(name: str) -> Facts:
    """The facts of a mechanism of the table.

    Raises:
        ValueError: no such name.
    """
    if name not in TABLE:
        raise ValueError(f"there is no attention {name!r}: known are {', '.join(TABLE)}")
    body = _class_body(*TABLE[name].split(":"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in body.body if isinstance(node, ast.Assign)}
    literals = {fact: ast.literal_eval(assigned[fact]) for fact in _LITERALS}
    title, text, meanings = _documented(body)
    options = _options(body)
    shared: tuple[str, ...] = ()
    if _function(body, "__init__").args.kwarg:
        base = _class_body("saccade.attention.base", "MultiHead")
        of_all, (_, _, meanings_of_all) = _options(base), _documented(base)
        shared = tuple(option for option in of_all if option not in options)
        options, meanings = {**of_all, **options}, {**meanings_of_all, **meanings}
    return Facts(name, title, text, dict(sorted(options.items())), meanings, shared, **literals)


def listing() -> list[Facts]:
    """The facts of every mechanism, in the table's order."""
    return [facts(name) for name in list_attentions()]


def _class_body(module: str, class_name: str) -> ast.ClassDef:
    source = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return next(node for node in classes if node.name == class_name)


def _function(body: ast.ClassDef, name: str) -> ast.FunctionDef:
    return next(node for node in body.body if isinstance(node, ast.FunctionDef) and node.name == name)


def _options(body: ast.ClassDef) -> dict[str, object]:
    """The constructor's own keyword-only arguments with their defaults."""
    arguments = _function(body, "__init__").args
    return {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if argument.arg != "layer" and default is not None
    }


def _documented(body: ast.ClassDef) -> tuple[str, str, dict[str, str]]:
    """The first line of the docstring, its paragraphs, and what its Args say of each option."""
    title, _, rest = (ast.get_docstring(body) or "").partition("\n")
    text, _, sections = f"{rest}\n".partition("\nArgs:\n")
    meanings: dict[str, str] = {}
    option = ""
    for line in takewhile(lambda line: line.startswith(" "), sections.splitlines()):
        # An option stands four spaces in, and what continues it eight.
        if line.startswith(" " * 8):
            meanings[option] += f" {line.strip()}"
        else:
            option, _, meaning = line.strip().partition(": ")
            meanings[option] = meaning
    return title, text.strip(), meanings
