"""Function: which attention a record belongs to, where softmax is one function however it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from saccade.attention.written import Written, parse
from saccade.record import Record

BASELINE = "softmax"

# Options of the projections around a mixing, which are the same function of whatever is mixed.
PROJECTIONS = {"bias", "qkv_bias", "qk_norm", "rope"}


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
    """The function of softmax that all are held against; None where no record is of it.

    That is plain softmax, by whatever kernel, or where it is not there a softmax with options of its projections that
    the others have, too, as in a model without qkv bias.
    """
    records = list(records)
    candidates = [one for one in records if _extras(one.attention) is not None]
    for one in sorted(
        candidates, key=lambda one: (len(_extras(one.attention) or {}), one.attention.strip() != BASELINE)
    ):
        if all(_shares(other, _extras(one.attention) or {}) for other in records):
            return function_of(one.attention_resolved)
    return None


def _extras(attention: str) -> dict[str, object] | None:
    """The options beside the kernel that a user gave to softmax, of its projections alone; None where it is no such."""
    try:
        one = parse(attention)
    except ValueError:
        return None
    options = {name: value for name, value in one.options if name != "kernel"}
    return options if one.name == BASELINE and set(options) <= PROJECTIONS else None


def _shares(record: Record, options: Mapping[str, object]) -> bool:
    """Whether a record's attention has these options, as far as it takes them and says so."""
    try:
        own = dict(parse(record.attention_resolved).options)
    except ValueError:
        return True
    return all(own.get(name, value) == value for name, value in options.items())
