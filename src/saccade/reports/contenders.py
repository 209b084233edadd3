"""Contenders: whose a record of a comparison is: a mechanism's or a rival's, at which scale."""

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


def name_of(record: Record) -> str:
    """What tells whose it is at its scale: a rival has softmax's attention in another model, so its own name."""
    rival: str = record.conditions.get("rival", "")
    return rival or record.attention_resolved


def apart(records: Iterable[Record]) -> list[Record]:
    """The records, those of rivals under their own names."""
    return [
        replace(record, attention=name_of(record), attention_resolved=name_of(record))
        if record.conditions.get("rival")
        else record
        for record in records
    ]
