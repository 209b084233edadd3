"""Built: the layers that a record's attention stands for, made again without memory, to ask them what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from saccade.attention import TABLE, attention_class, parse_layers, resolve
from saccade.attention.base import Attention
from saccade.attention.facts import facts
from saccade.attention.tokens import Tokens
from saccade.attention.written import Written

# How often each attention of a mixture stands there, as `write_layers` writes it.
_TIMES = re.compile(r"\*\s*(\d+)\s*(?=,|$)")


def layers_of(attention_resolved: str, width: int, heads: int, tokens: Tokens) -> Iterator[Attention]:
    """The layers that an attention stands for, each kind once, at a size, on the meta device.

    Left out is what cannot be made (an option of a later version, heads that do not divide the width), and whatever
    saccade does not bring: to know a class of somebody's own its code would have to run, and it is a file that asks.
    """
    made = (_made(written, width, heads, tokens) for written in _written_in(attention_resolved))
    return (layer for layer in made if layer is not None)


def order_matters(attention_resolved: str) -> bool:
    """Whether some layer sees a sequence and no set, as far as saccade brings it.

    It is asked at a size at which nearly any options make sense; where they do not, of its defaults.
    """
    for written in _written_in(attention_resolved):
        layer = _made(written, 64, 4, Tokens((8, 8), prefix=1))
        if not (facts(written.name).free_of_order if layer is None else layer.order_free):
            return True
    return False


def _written_in(attention_resolved: str) -> list[Written]:
    """Those of the table in a layer or a mixture of layers, each once; none where the text is no attention."""
    depth = sum(int(times) for times in _TIMES.findall(attention_resolved)) or 1
    try:
        found = dict.fromkeys(parse_layers(attention_resolved, depth))
    except ValueError:
        return []
    return [written for written in found if written.name in TABLE]


def _made(written: Written, width: int, heads: int, tokens: Tokens) -> Attention | None:
    try:
        options: dict[str, Any] = dict(resolve(written).options)
        with torch.device("meta"):
            return attention_class(written.name)(width, heads, tokens, **options)
    except (ValueError, TypeError):
        return None
