"""Columns: which column of a table holds the pictures and which the classes, in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IMAGES = ("image", "img")
LABELS = ("label", "fine_label", "labels")


@dataclass(frozen=True)
class Columns:
    """Names of the picture column and the label column; the classes, where the table names them."""

    image: str
    label: str
    classes: tuple[str, ...] | None


def choose_columns(names: Sequence[str], features: Mapping[str, Any], where: str) -> Columns:
    """Chooses by the table's own description, then by the usual names.

    Args:
        names: of all columns.
        features: of each column as Hugging Face describes it; empty where there is none.
        where: what an error names.

    Raises:
        ValueError: no such columns.
    """
    described = [name for name in names if _type(features, name) == "Image"]
    image = next((name for name in [*IMAGES, *described] if name in names), None)
    label = next((name for name in LABELS if name in names), None)
    if image is None or label is None:
        raise ValueError(
            f"{where}: the columns are {', '.join(names)}; needed are pictures ({' or '.join(IMAGES)}) "
            f"and classes ({', '.join(LABELS)})"
        )
    classes = features[label].get("names") if _type(features, label) == "ClassLabel" else None
    return Columns(image, label, tuple(map(str, classes)) if classes else None)


def numbered(values: Sequence[Any], classes: tuple[str, ...] | None, where: str) -> list[int]:
    """Labels as places in `classes`, given numbers or names.

    Raises:
        ValueError: a label that is missing or names no class.
    """
    place = {name: number for number, name in enumerate(classes or ())}
    labels = [place.get(value, -1) if isinstance(value, str) else value for value in values]
    for row, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < len(place):
            raise ValueError(f"{where}: row {row} has the label {values[row]!r}, which is none of {len(place)} classes")
    return labels


def class_names(values: Sequence[Any]) -> tuple[str, ...]:
    """Names of the classes where the table names none: the labels themselves; numbers run from 0."""
    if all(isinstance(value, str) for value in values):
        return tuple(sorted(set(values)))
    highest = max((value for value in values if isinstance(value, int)), default=-1)
    return tuple(map(str, range(highest + 1)))


def _type(features: Mapping[str, Any], name: str) -> str:
    described = features.get(name)
    return str(described.get("_type", "")) if isinstance(described, Mapping) else ""
