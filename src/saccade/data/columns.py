"""Columns: which column of a table holds the pictures and which the classes, in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saccade.data.found import NoLabels

IMAGES = ("image", "img")
LABELS = ("label", "fine_label", "labels")


@dataclass(frozen=True)
class Columns:
    """Names of the picture column and the label column, if one is wanted; the classes, where the table names them."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None


def choose_columns(names: Sequence[str], features: Mapping[str, Any], where: str, *, labelled: bool = True) -> Columns:
    """Chooses by the table's own description, then by the usual names.

    Args:
        names: of all columns.
        features: of each column as Hugging Face describes it; empty where there is none.
        where: what an error names.
        labelled: whether a column of classes is wanted.

    Raises:
        NoLabels: no column of classes.
        ValueError: no column of pictures.
    """
    described = [name for name in names if _type(features, name) == "Image"]
    image = next((name for name in [*IMAGES, *described] if name in names), None)
    needed = f"needed are pictures ({' or '.join(IMAGES)}) and classes ({', '.join(LABELS)})"
    if image is None:
        raise ValueError(f"{where}: the columns are {', '.join(names)}; {needed}")
    if not labelled:
        return Columns(image, None, None)
    label = next((name for name in LABELS if name in names), None)
    if label is None:
        raise NoLabels(f"{where}: the columns are {', '.join(names)}", f"{needed}: add them")
    classes = features[label].get("names") if _type(features, label) == "ClassLabel" else None
    return Columns(image, label, tuple(map(str, classes)) if classes else None)


def numbered(values: Sequence[Any], classes: tuple[str, ...] | None, where: str) -> list[int]:
    """Labels as places in `classes`, given numbers or names.

    Raises:
        NoLabels: a label that is missing or names no class.
    """
    place = {name: number for number, name in enumerate(classes or ())}
    labels = [place.get(value, -1) if isinstance(value, str) else value for value in values]
    for row, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < len(place):
            raise NoLabels(
                f"{where}: row {row} has the label {values[row]!r}, which is none of {len(place)} classes",
                "correct it, leave the row out",
            )
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
