"""Terms: what two records must share before one number may be divided by the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from saccade.record import Record

TERMS = (
    "device",
    "dtype",
    "amp_dtype",
    "batch_size",
    "inference_batch",
    "threads",
    "clock",
    "allocator",
    "checkpointing",
    "compile",
    "environment",
)

# What costs depend on by their nature; other versions may differ with a warning.
MACHINE = ("processor", "accelerator", "cores", "system", "torch")

VERSIONS = ("python", "saccade", "commit")


Facts = dict[str, Any]
"""Values by name, to be held against others."""


def terms(record: Record) -> Facts:
    """The conditions that must be equal on both sides; the kernel is the mechanism's own."""
    return {name: record.conditions.get(name) for name in TERMS}


def machine(record: Record) -> Facts:
    """The machine and the torch on it, without how busy it was."""
    return {name: record.machine.get(name) for name in MACHINE}


def versions(record: Record) -> Facts:
    """The other versions."""
    return {name: record.machine.get(name) for name in VERSIONS}


def alike(one: Record, other: Record) -> bool:
    """Whether the two were measured on equal terms and like machines."""
    return terms(one) == terms(other) and machine(one) == machine(other)


def conflicting(facts: Iterable[Facts]) -> dict[str, list[str]]:
    """The names under which facts differ, each with the values that are there; who tells nothing differs in nothing."""
    values: dict[str, dict[str, None]] = {}
    for fact in facts:
        for name, value in fact.items():
            values.setdefault(name, {})[json.dumps(value, sort_keys=True, default=str)] = None
    return {name: list(found) for name, found in values.items() if len(found) > 1}


def differing(facts: Iterable[Facts]) -> dict[str, list[str]]:
    """The same, where a missing one is null: a model's option that is not given has its default."""
    facts = list(facts)
    names = dict.fromkeys(name for fact in facts for name in fact)
    return conflicting({name: fact.get(name) for name in names} for fact in facts)


def unmatched(
    facts: Sequence[Facts], softmax: Sequence[Facts], compare: Callable[[Sequence[Facts]], dict[str, list[str]]]
) -> dict[str, list[str]]:
    """How facts differ from all that softmax was measured under.

    There may be several terms, as in a bench at two batch sizes, so long as softmax was measured under each of them.

    Args:
        facts: of each record.
        softmax: those of softmax's records; the facts are held against the nearest of them.
        compare: `conflicting` or `differing`.
    """
    found: dict[str, list[str]] = {}
    for fact in facts:
        if fact in softmax:
            continue
        nearest = min((compare([own, fact]) for own in softmax), key=len, default={})
        for name, values in nearest.items():
            found[name] = list(dict.fromkeys([*found.get(name, []), *values]))
    return found


def device_kind(device: str) -> str:
    """cpu, cuda or mps, whatever its number."""
    return device.partition(":")[0]
