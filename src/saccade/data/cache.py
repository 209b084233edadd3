"""The cache: a data set is decoded once on a machine, and read by every process that trains on it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from saccade.data.decoded import Decoded, decode_all
from saccade.data.found import Found
from saccade.data.lock import locked
from saccade.errors import Failed

# Whoever changes how pictures are decoded counts this up.
LAYOUT = 1
PIXELS, TABLES, FACTS = "pixels.u8", "tables.safetensors", "facts.json"


def cache_folder() -> Path:
    """$SACCADE_CACHE, or saccade in $XDG_CACHE_HOME, or ~/.cache/saccade; it may be deleted at any time."""
    if own := os.environ.get("SACCADE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "saccade"


def decoded_once(
    found: Found,
    img_size: tuple[int, int],
    crop_pct: float,
    in_chans: int | None,
    memory_bytes: int,
    note: Callable[[str], None],
) -> Decoded:
    """The decoded data set: from the cache where it lies there whole, else decoded now and kept.

    Up to `memory_bytes` the pixels are read into memory and their SHA-256 is checked; beyond, they are mapped from the
    file and only its size is checked. Processes that ask at the same time wait for the first.

    Args:
        found: the data set; without a `state` it is never kept.
        img_size: as in `decode_all`; crop_pct and in_chans too.
        memory_bytes: largest number of bytes that are held in memory.
        note: is told what takes long or went wrong.

    Raises:
        Failed: the pixels do not fit into `memory_bytes`, and the disk has no room for them either.
    """
    if found.state is None:
        return decode_all(found, img_size, crop_pct, in_chans, _in_memory)
    asked = [LAYOUT, PIL.__version__, found.state, found.classes, img_size, crop_pct, in_chans]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
    folder = cache_folder() / "pictures" / key
    with locked(folder):
        if folder.exists():
            try:
                return _read(folder, memory_bytes)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                note(f"the cache in {folder} is damaged ({error}) and is made anew")
                shutil.rmtree(folder, ignore_errors=True)
        note(f"{found.name}: decoding {sum(len(part.names) for part in found.parts.values()):,} pictures, this once")
        with _work_folder(folder) as work:
            decoded = decode_all(found, img_size, crop_pct, in_chans, lambda size: _room(size, memory_bytes, work))
            try:
                _write(work, folder, decoded)
            except OSError as error:
                note(f"the decoded pictures could not be kept in {folder} ({error}): the next run decodes them again")
        return decoded


def _in_memory(size_bytes: int) -> np.ndarray:
    return np.empty(size_bytes, np.uint8)


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """The name of a folder beside `folder` that this process alone uses; gone afterwards.

    What killed processes left is taken away: whoever holds the lock is alone here.
    """
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _room(size_bytes: int, memory_bytes: int, work: Path) -> np.ndarray:
    """Memory up to the budget, and beyond it a mapped file.

    The file's room on the disk is reserved: a full disk is an error now, not a crash later.
    """
    if size_bytes <= memory_bytes:
        return _in_memory(size_bytes)
    try:
        work.mkdir(parents=True)
        with (work / PIXELS).open("wb") as file:
            free = shutil.disk_usage(work).free
            if free < size_bytes:
                raise OSError(f"it has room for {free:,} bytes")
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            file.truncate(size_bytes)
        return np.memmap(work / PIXELS, np.uint8, "r+")
    except OSError as error:
        raise Failed(
            f"the decoded pictures take {size_bytes:,} bytes, more than the {memory_bytes:,} allowed in memory, "
            f"and they cannot be kept in {work.parent} ({error}); name a folder with room in SACCADE_CACHE"
        ) from error


def _write(work: Path, folder: Path, decoded: Decoded) -> None:
    """Writes beside, then renames: the folder is there whole or not at all."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / PIXELS).exists():
        decoded.pixels.numpy().tofile(work / PIXELS)
    (work / TABLES).write_bytes(decoded.tables())
    facts = {
        "pixels_bytes": len(decoded.pixels),
        "pixels_sha256": decoded.pixels_sha256,
        "tables_sha256": hashlib.sha256(decoded.tables()).hexdigest(),
        "parts": list(decoded.parts),
        "channels": decoded.channels,
        "broken": decoded.broken,
        "formats": decoded.formats,
    }
    (work / FACTS).write_text(json.dumps({"facts": facts, "sha256": _sum(facts)}), encoding="ascii")
    work.rename(folder)


def _read(folder: Path, memory_bytes: int) -> Decoded:
    """Reads what `_write` wrote.

    Raises:
        ValueError: something there is not what was written.
    """
    written = json.loads((folder / FACTS).read_bytes())
    facts = written["facts"]
    if written["sha256"] != _sum(facts):
        raise ValueError(f"{FACTS} was changed")
    content = (folder / TABLES).read_bytes()
    if hashlib.sha256(content).hexdigest() != facts["tables_sha256"]:
        raise ValueError(f"{TABLES} was changed")
    pixels = _pixels(folder / PIXELS, facts, memory_bytes)
    columns = load(content)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in facts["parts"]}
    for name, column in columns.items():
        part, _, what = name.partition(".")
        parts[part][what] = column
    broken = [(part, name, why) for part, name, why in facts["broken"]]
    return Decoded(pixels, facts["pixels_sha256"], facts["channels"], parts, broken, facts["formats"])


def _pixels(path: Path, facts: dict[str, Any], memory_bytes: int) -> Tensor:
    size_bytes = facts["pixels_bytes"]
    if path.stat().st_size != size_bytes:
        raise ValueError(f"{PIXELS} has {path.stat().st_size:,} bytes, not {size_bytes:,}")
    if size_bytes > memory_bytes:
        # "c": torch wants memory that could be written; what is written stays in this process.
        return torch.from_numpy(np.memmap(path, np.uint8, "c"))
    pixels = np.fromfile(path, np.uint8)
    if hashlib.sha256(pixels.data).hexdigest() != facts["pixels_sha256"]:
        raise ValueError(f"{PIXELS} was changed")
    return torch.from_numpy(pixels)


def _sum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
