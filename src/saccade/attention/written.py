"""The written form of an attention: "nystrom(landmarks=16)", "local*8,softmax*4", "my.module:Mine(rank=8)"."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = re.compile(r"[^\s()=,*'\"]+")
_TIMES = re.compile(r"^(?P<one>.*\S)\s*\*\s*(?P<times>\d+)$", re.DOTALL)
_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Written:
    """One attention as its user wrote it: a name of the table or `module:Class`, and keyword options."""

    name: str
    options: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={_literal(value)}" for key, value in sorted(self.options))
        return f"{self.name}({inside})" if inside else self.name


def parse(text: str) -> Written:
    """Reads one attention. Values are Python literals; nothing is evaluated.

    Raises:
        ValueError: the text is no name with keyword options in round brackets.
    """
    name, bracket, rest = text.strip().partition("(")
    if not _NAME.fullmatch(name.strip()) or (bracket and not rest.rstrip().endswith(")")):
        raise ValueError(f'{text!r} is no attention: write a name with options, as in "nystrom(landmarks=16)"')
    inside = rest.rstrip()[:-1] if bracket else ""
    options: dict[str, object] = {}
    for piece in _split(inside, ",", whole=text):
        key, equals, value = piece.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise ValueError(f'{text!r}: {piece.strip()!r} is no option: write name=value, as in "landmarks=16"')
        if key in options:
            raise ValueError(f"{text!r}: {key} is given twice")
        options[key] = _value(value.strip(), key, text)
    return Written(name.strip(), tuple(sorted(options.items())))


def parse_layers(text: str, depth: int) -> tuple[Written, ...]:
    """Reads what each of `depth` layers uses: one attention for all, or a mixture such as "local*8,softmax*4".

    Raises:
        ValueError: not the written form, or a mixture whose counts do not sum to `depth`.
    """
    pieces = [_repeated(piece, text) for piece in _split(text, ",", whole=text)]
    if not pieces:
        raise ValueError('no attention is given: write a name, as in "softmax"')
    runs = [(parse(one), times) for one, times in pieces]
    if len(runs) == 1 and "*" not in _outside(text):
        return (runs[0][0],) * depth
    layers = sum(times for _, times in runs)
    if layers != depth:
        raise ValueError(
            f"{text!r} describes {layers} layers, but the model has {depth}: the counts must sum to {depth}"
        )
    return tuple(one for one, times in runs for _ in range(times))


def write_layers(layers: tuple[Written, ...]) -> str:
    """The shortest text that `parse_layers` reads as these layers."""
    runs: list[tuple[Written, int]] = []
    for one in layers:
        if runs and runs[-1][0] == one:
            runs[-1] = (one, runs[-1][1] + 1)
        else:
            runs.append((one, 1))
    if len(runs) == 1:
        return str(runs[0][0])
    return ",".join(f"{one}*{times}" for one, times in runs)


def split_list(text: str) -> list[str]:
    """Splits a list of attentions at the spaces outside brackets and quotes."""
    return [piece.strip() for piece in _split(text, " ", whole=text)]


def _repeated(piece: str, whole: str) -> tuple[str, int]:
    match = _TIMES.match(piece.strip())
    if match is None:
        return piece, 1
    if int(match["times"]) < 1:
        raise ValueError(f"{whole!r}: {piece.strip()!r} repeats a layer 0 times: write 1 or more")
    return match["one"], int(match["times"])


def _split(text: str, mark: str, whole: str) -> Iterator[str]:
    """The non-empty pieces between the marks that stand outside brackets and quotes."""
    start = 0
    for place in [place for place, sign in _scan(text, whole) if sign == mark] + [len(text)]:
        if text[start:place].strip():
            yield text[start:place]
        elif mark == "," and text.strip():
            raise ValueError(f"{whole!r}: nothing stands between two commas, or before or after one")
        start = place + 1


def _outside(text: str) -> str:
    """The signs of the text that stand outside brackets and quotes."""
    return "".join(sign for _, sign in _scan(text, text))


def _scan(text: str, whole: str) -> Iterator[tuple[int, str]]:
    """Place and sign of everything outside brackets and quotes."""
    open_brackets: list[str] = []
    quote, escaped = "", False
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote and not escaped else quote
            escaped = sign == "\\" and not escaped
        elif sign in "'\"":
            quote = sign
        elif sign in _CLOSES:
            open_brackets.append(_CLOSES[sign])
        elif sign in _CLOSES.values():
            if not open_brackets or open_brackets.pop() != sign:
                raise ValueError(f"{whole!r}: a {sign!r} closes nothing")
        elif not open_brackets:
            yield place, sign
    if quote or open_brackets:
        raise ValueError(f"{whole!r}: {quote or open_brackets[-1]!r} is missing at the end")


def _value(text: str, key: str, whole: str) -> object:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        hint = f' (a word needs quotes: {key}="{text}")' if text.isidentifier() else ""
        raise ValueError(f"{whole!r}: {key}={text} is no number, string, True or False{hint}") from None
    if isinstance(value, list):
        value = tuple(value)
    if not _plain(value):
        raise ValueError(f"{whole!r}: {key}={text} must be a finite number, a string, True, False or a tuple of such")
    return value


def _plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_plain(item) for item in value)
    # 1e999 is read as infinity, which has no literal to be written as.
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


def _literal(value: object) -> str:
    """As Python writes it, but a plain word in double quotes, as in the shell's examples."""
    if isinstance(value, str) and value.isprintable() and not {'"', "\\"} & set(value):
        return f'"{value}"'
    return repr(value)
