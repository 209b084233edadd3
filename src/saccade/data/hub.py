"""A data set of the Hugging Face hub, by its name "owner/name"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from saccade.data.columns import Columns, choose_columns, class_names, numbered
from saccade.data.found import PART_OF, Found, Part, Picture
from saccade.data.parquet import ROWS_AT_A_TIME, encoded

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(name: str) -> bool:
    """Whether it reads as "owner/name"."""
    return _NAME.fullmatch(name) is not None and not name.startswith(".")


def find_on_hub(name: str, *, labelled: bool = True) -> Found:
    """The splits of a data set of the hub, as the `datasets` library brings them.

    Args:
        name: "owner/name".
        labelled: whether there must be classes; without, no label is read.

    Raises:
        NoLabels: no column of classes, or rows without one.
        ValueError: the library is missing, there is no such data set or no network, or there is no column of pictures.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"{name}: there is no such file or folder, and a name of the Hugging Face hub needs: "
            "pip install 'saccade[hub]'"
        ) from None
    try:
        loaded = datasets.load_dataset(name)
    # The library passes on what four others raise for a missing name, a missing network, or a script it will not run.
    except Exception as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{name}: there is no such file or folder, and the Hugging Face hub gave none: {said}"
        ) from error
    tables = {PART_OF[split]: table for split, table in loaded.items() if split in PART_OF}
    if "train" not in tables:
        raise ValueError(f"{name}: its splits are {', '.join(map(str, loaded))}; there must be one named train")
    return _found(name, tables, labelled)


def _found(name: str, tables: dict[str, Any], labelled: bool) -> Found:
    columns = choose_columns(tables["train"].column_names, tables["train"].features.to_dict(), name, labelled=labelled)
    classes, labels = _labels(tables, columns, name)
    parts = {
        part: Part([str(row) for row in range(len(table))], labels[part], partial(_pictures, table, columns.image))
        for part, table in tables.items()
    }
    state = ["hub", name, {part: table._fingerprint for part, table in tables.items()}]
    rule = f"splits {', '.join(sorted(tables))} of the hub" if len(tables) > 1 else ""
    return Found(name=name, classes=classes, parts=parts, state=state, split_rule=rule)


def _labels(tables: dict[str, Any], columns: Columns, name: str) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """The classes, and each part's labels; no classes, and zeros, where no column is wanted."""
    if columns.label is None:
        return (), {part: [0] * len(table) for part, table in tables.items()}
    values = {part: list(table[columns.label]) for part, table in tables.items()}
    classes = columns.classes or class_names([value for part in values.values() for value in part])
    return classes, {part: numbered(one, classes, name) for part, one in values.items()}


def _pictures(table: Any, column: str) -> Iterator[Picture]:
    for rows in table.select_columns([column]).with_format("arrow").iter(ROWS_AT_A_TIME):
        yield from encoded(rows.column(column).to_pylist())
