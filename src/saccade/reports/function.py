"""Function: which attention a record belongs to, where softmax is one function however it is computed."""

from __future__ import annotations

from collections.abc import Iterable

from saccade.attention.written import Written, parse
from saccade.record import Record

BASELINE = "softmax"


def function_of(attention_resolved: str) -> str:
    """The resolved attention without softmax's choice of a kernel."""
    try:
        one = parse(attention_resolved)
    except ValueError:
        # A mixture of layers has no single name.
        return attention_resolved
    if one.name != BASELINE:
        return attention_resolved
    return str(Written(one.name, tuple(option for option in one.options if option[0] != "kernel")))


def baseline_of(records: Iterable[Record]) -> str | None:
    """The function of plain softmax, whose options no user changed; None where no record is of it."""
    return next((function_of(one.attention_resolved) for one in records if one.attention.strip() == BASELINE), None)
