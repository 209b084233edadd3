"""Parquet files in the Hugging Face layout: a column of encoded pictures, a column of classes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.data.columns import Columns, choose_columns, class_names, numbered
from saccade.data.found import PART_OF, Found, Part, Picture, file_state

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

ROWS_AT_A_TIME = 512


def find_parquet(path: Path, name: str, *, labelled: bool = True) -> Found:
    """A parquet file, or a folder with one or more for each part: train.parquet, data/test-00000-of-00002.parquet.

    Args:
        path: the file or the folder.
        name: as the user wrote it.
        labelled: whether there must be classes; without, no label is read.

    Raises:
        NoLabels: no column of classes, or rows without one.
        ValueError: pyarrow is missing, no part can be told from a file's name, or there is no column of pictures.
    """
    shards = _shards(path)
    files = {part: [_opened(shard) for shard in paths] for part, paths in shards.items()}
    columns = _columns(files["train"][0] if "train" in files else next(iter(files.values()))[0], name, labelled)
    classes, labels = _labels(files, columns, name)
    return Found(
        name=name,
        classes=classes,
        parts={part: _part(shards[part], columns, labels[part]) for part in shards},
        state=["parquet", {part: file_state(paths) for part, paths in shards.items()}],
        split_rule=f"files of {', '.join(sorted(shards))}" if len(shards) > 1 else "",
    )


def holds_parquet(path: Path) -> bool:
    """Whether there are parquet files in the folder or in one right below."""
    return bool(_files(path))


def encoded(pictures: Iterable[Any]) -> Iterator[Picture]:
    """The bytes of each picture of a column; none, and so no picture, where a row holds a path alone.

    A path in somebody's table is never opened.
    """
    for picture in pictures:
        yield (picture.get("bytes") if isinstance(picture, dict) else picture) or b""


def _shards(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {"train": [path]}
    shards: dict[str, list[Path]] = {}
    for file in _files(path):
        shards.setdefault(_part_of(file.relative_to(path)), []).append(file)
    for part, files in shards.items():
        if len(folders := {file.parent for file in files}) > 1:
            raise ValueError(f"{path}: the {part} files lie in {len(folders)} folders: give one of the folders")
    return shards


def _files(path: Path) -> list[Path]:
    return sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")])


def _part_of(file: Path) -> str:
    """The part that a file's name begins with, or else a folder above it."""
    for word in [re.split(r"[-_.]", file.name)[0], *reversed(file.parts[:-1])]:
        if word.lower() in PART_OF:
            return PART_OF[word.lower()]
    raise ValueError(f"{file}: its name tells no part; the names of parquet files begin with {', '.join(PART_OF)}")


def _opened(path: Path) -> ParquetFile:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError("parquet files are read with pyarrow: pip install 'saccade[parquet]'") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _columns(file: ParquetFile, name: str, labelled: bool) -> Columns:
    described = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {}) if isinstance(described, dict) else {}
    return choose_columns(file.schema_arrow.names, features, name, labelled=labelled)


def _labels(
    files: dict[str, list[ParquetFile]], columns: Columns, name: str
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """The classes, and each part's labels; no classes, and zeros, where no column is wanted."""
    if columns.label is None:
        return (), {part: [0] * sum(file.metadata.num_rows for file in opened) for part, opened in files.items()}
    values = {part: _values(opened, columns.label) for part, opened in files.items()}
    classes = columns.classes or class_names([value for part in values.values() for value in part])
    return classes, {part: numbered(one, classes, name) for part, one in values.items()}


def _values(files: Sequence[ParquetFile], column: str) -> list[Any]:
    return [value for file in files for value in file.read(columns=[column]).column(column).to_pylist()]


def _part(paths: list[Path], columns: Columns, labels: list[int]) -> Part:
    def read() -> Iterator[Picture]:
        for path in paths:
            for batch in _opened(path).iter_batches(batch_size=ROWS_AT_A_TIME, columns=[columns.image]):
                yield from encoded(batch.column(0).to_pylist())

    return Part([str(row) for row in range(len(labels))], labels, read)
