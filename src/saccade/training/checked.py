"""Plain values (from TOML, JSON or a command line) checked against the annotations of a frozen dataclass."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text (in quotes if it looks otherwise)",
}


@dataclass(frozen=True)
class Within:
    """The range of a number, as in `Annotated[int, Within(1)]`; `low` itself is outside where `above` is set."""

    low: float | int
    high: float | int = math.inf
    above: bool = False

    def holds(self, value: float | int) -> bool:
        """Whether the number is finite and inside."""
        return math.isfinite(value) and (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        lower = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return lower if self.high == math.inf else f"{lower} and at most {self.high:g}"


def from_plain(cls: type[T], values: Any, at: str = "") -> T:
    """Makes the dataclass from a table of plain values; what is not given keeps its default.

    Args:
        cls: a dataclass, whose fields may be dataclasses themselves.
        values: by field name; lists stand for tuples.
        at: dotted name of the table, for the errors.

    Raises:
        ValueError: an unknown name (the nearest known one is named), a wrong type, a value out of its range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{at} = {values!r}: must be a table of settings")
    hints = _hints(cls)  # type: ignore[arg-type]
    for name in values:
        if name not in hints:
            raise unknown(_dotted(at, name), [_dotted(at, known) for known in hints])
    return cls(**{name: checked(value, hints[name], _dotted(at, name)) for name, value in values.items()})


def to_plain(value: object) -> Any:
    """The table that `from_plain` reads: JSON's types only."""
    if is_dataclass(value):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def check_fields(instance: object, at: str) -> None:
    """Holds every field of a frozen dataclass against its annotation: what its `__post_init__` calls.

    Raises:
        ValueError: a wrong type or a value out of its range.
    """
    for name, annotation in _hints(type(instance)).items():  # type: ignore[arg-type]
        object.__setattr__(instance, name, checked(getattr(instance, name), annotation, _dotted(at, name)))


def checked(value: Any, annotation: Any, key: str) -> Any:
    """The value as the annotation wants it: whole numbers become floats, lists become tuples.

    Raises:
        ValueError: it does not fit; the message says what would.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if is_dataclass(annotation):
        return value if isinstance(value, annotation) else from_plain(annotation, value, key)  # type: ignore[arg-type]
    if origin is Annotated:
        return _in_range(checked(value, inner[0], key), inner[1], key)
    if origin in (Union, types.UnionType):
        (present,) = (one for one in inner if one is not types.NoneType)
        return None if value is None else checked(value, present, key)
    if origin is Literal:
        return _one_of(value, inner, key)
    if origin is tuple:
        return _tuple(value, inner, key)
    if origin is not None and issubclass(origin, Mapping):
        return _table(value, key)
    return _scalar(value, annotation, key)


def setting_names(cls: type, at: str = "") -> Iterable[str]:
    """Dotted names of everything that can be set."""
    for name, annotation in _hints(cls).items():
        if isinstance(annotation, type) and is_dataclass(annotation):
            yield from setting_names(annotation, _dotted(at, name))
        else:
            yield _dotted(at, name)


def unknown(asked: str, known: Iterable[str]) -> ValueError:
    """The error for a name that does not exist, with the nearest that does."""
    known = list(known)
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.0)[0]
    return ValueError(f"there is no setting {asked!r}: did you mean {near}? known are {', '.join(known)}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The annotation of each field."""
    return get_type_hints(cls, include_extras=True)


def _dotted(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _in_range(value: Any, limit: Within, key: str) -> Any:
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(limit.holds(number) for number in numbers):
        raise ValueError(f"{key} = {value!r}: must be {limit}")
    return value


def _one_of(value: Any, allowed: tuple[Any, ...], key: str) -> Any:
    if value not in allowed:
        raise ValueError(f"{key} = {value!r}: must be {' or '.join(repr(one) for one in allowed)}")
    return value


def _tuple(value: Any, inner: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != len(inner):
        raise ValueError(f"{key} = {value!r}: must be a list of {len(inner)} values")
    return tuple(checked(one, kind, key) for one, kind in zip(value, inner, strict=True))


def _table(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} = {value!r}: must be a table of settings")
    return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}


def _scalar(value: Any, kind: Any, key: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key} = {value!r}: must be {_WORDS[kind]}")
    return value
