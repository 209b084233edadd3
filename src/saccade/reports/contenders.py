"""Contenders: whom a record of a comparison belongs to: a mechanism or a softmax model of equal cost, at which scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from saccade.record import Record


def by_scale(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each size of the model, by its name; that which was asked for has none, and comes first."""
    scales: dict[str, list[Record]] = {"": []}
    for record in records:
        scales.setdefault(record.conditions.get("scale", ""), []).append(record)
    return scales


def apart(records: Iterable[Record]) -> list[Record]:
    """The records, those of a rival under its own name: it has softmax's attention in another model."""
    return [
        replace(record, attention=rival, attention_resolved=rival)
        if (rival := record.conditions.get("rival"))
        else record
        for record in records
    ]
