"""TOML as a recipe needs it: tables of numbers, words, lists; tomllib reads, this writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_toml(values: Mapping[str, Any]) -> str:
    """Writes a table of tables as text that tomllib reads back to the same values; what is None is left out."""
    return "\n".join(_lines(values, ())).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in table.items() if key not in inner and value is not None}
    if path and (plain or not inner):
        yield f"\n[{'.'.join(_key(part) for part in path)}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        yield from _lines(value, (*path, key))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, (int, float)):
        # Python's 1e-05, inf and nan are TOML's.
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    raise ValueError(f"{value!r} cannot be written as TOML: numbers, text, true, false and lists of such can")


def _text(text: str) -> str:
    # JSON's escapes are TOML's; the delete sign, which JSON leaves as it is, TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
