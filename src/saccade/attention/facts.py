"""What the mechanisms say of themselves, read from their source: the listing does not wait for torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saccade.attention import TABLE, list_attentions


@dataclass(frozen=True)
class Facts:
    """Facts of one mechanism at its default options; `saccade.attention.base.Attention` says what each means.

    Attributes:
        name: in the table.
        title: what it does, in one line: the first of its class's docstring.
        options: every option with its default.
        paper: authors, year and address.
        cost: multiplications of the mixing, inside O().
        any_length: it works on every number of tokens.
        free_of_order: it sees a set, not a sequence.
        needs_grid: it depends on the shape of the patch grid.
        exact_when: where it equals softmax.
    """

    name: str
    title: str
    options: Mapping[str, object]
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
    title = (ast.get_docstring(body) or "").partition("\n")[0]
    return Facts(name, title, _options(body), **literals)


def listing() -> list[Facts]:
    """The facts of every mechanism, in the table's order."""
    return [facts(name) for name in list_attentions()]


def _class_body(module: str, class_name: str) -> ast.ClassDef:
    source = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return next(node for node in classes if node.name == class_name)


def _options(body: ast.ClassDef) -> dict[str, object]:
    """The constructor's keyword-only arguments; where it passes others on, those of MultiHead too."""
    functions = [node for node in body.body if isinstance(node, ast.FunctionDef)]
    arguments = next(node.args for node in functions if node.name == "__init__")
    known = {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if argument.arg != "layer" and default is not None
    }
    if arguments.kwarg:
        known |= _options(_class_body("saccade.attention.base", "MultiHead"))
    return dict(sorted(known.items()))
