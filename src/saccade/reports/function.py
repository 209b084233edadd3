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
    """The function of plain softmax, of whose options a user changed no more than the kernel; None where none is."""
    plain = [one for one in records if _is_plain(one.attention)]
    # Where softmax stands as such, it is that: "auto" is what a user gets.
    return next((function_of(one.attention_resolved) for one in sorted(plain, key=_said_more)), None)


def _is_plain(attention: str) -> bool:
    try:
        one = parse(attention)
    except ValueError:
        return False
    return one.name == BASELINE and {name for name, _ in one.options} <= {"kernel"}


def _said_more(record: Record) -> bool:
    return record.attention.strip() != BASELINE
