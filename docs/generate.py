"""Writes what a machine can know into the documents: `python docs/generate.py`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- map: python docs/generate.py -->", "<!-- end of map -->"


def module_map() -> str:
    """Every module of the package beside the first line of its docstring, in the order of the imports."""
    package = ROOT / "src" / "saccade"
    lines = ["```text"]
    for path in sorted(package.rglob("*.py"), key=_place):
        name = path.relative_to(package).as_posix().replace("/__init__.py", "/")
        lines.append(f"{name:<32} {_first_line(path)}")
    return "\n".join([*lines, "```"])


def with_map(text: str) -> str:
    """The document with the map between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{module_map()}\n{END}{after}"


STATIONS = [
    "errors",
    "record",
    "attention",
    "models",
    "data",
    "training",
    "measurement",
    "reports",
    "comparison",
    "cli",
    "__init__",
    "__main__",
]
"""The stations of the journey: a module imports from stations before its own, and from its own."""


def _place(path: Path) -> tuple[int, bool, str]:
    parts = path.relative_to(ROOT / "src" / "saccade").with_suffix("").parts
    return STATIONS.index(parts[0]), parts[-1] != "__init__", path.as_posix()


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} does not say what it holds"
    return docstring.splitlines()[0]


if __name__ == "__main__":
    document = ROOT / "CONTRIBUTING.md"
    document.write_text(with_map(document.read_text(encoding="utf-8")), encoding="utf-8")
