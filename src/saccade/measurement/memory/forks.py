"""Forks: copies of this process in which something is weighed that the process itself is not to have seen; on Linux."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

# madvise(2): maps the pages of a range as if they had been read.
_POPULATE_READ = 22

# proc(5): eight bytes a page in pagemap, whose highest bit says that it is in memory.
_ENTRY_BYTES = 8

# prctl(2): a signal for when the parent ends, however it does.
_PARENT_DIES = 1

_Range = tuple[int, int]

Amounts = tuple[int, ...]
Weigh = Callable[[], Amounts]


def in_forks(weighed: Sequence[Weigh], *, otherwise: Amounts) -> list[Amounts]:
    """What each function says in a fork of its own, one after the other.

    A fork has what its parent has written, but the code and other pages of files only once it touches them: it begins
    with all that the parent has touched.

    Args:
        weighed: of whole numbers; the process has one thread that computes, and no other that holds a lock.
        otherwise: what counts where a function raises, its process dies or cannot be made, or where the system does not
            tell which pages are in memory.
    """
    try:
        touched = _pages_of_files()
        return [_in_a_fork(one, touched, otherwise) for one in weighed]
    except OSError:
        return [otherwise] * len(weighed)


def _in_a_fork(weigh: Weigh, touched: Sequence[_Range], otherwise: Amounts) -> Amounts:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Whatever somebody's class raises; nothing of this process's end is the fork's.
        with suppress(BaseException):
            ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGKILL)
            _touch(touched)
            os.write(writing, json.dumps(weigh()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return tuple(json.loads(told)) if told else otherwise


def _pages_of_files() -> list[_Range]:
    """Where pages of files are in memory: first byte and length of each range."""
    ranges: list[_Range] = []
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
            bounds, _, _, _, inode, *_ = line.split()
            if inode == "0":
                continue
            start, end = (int(one, 16) // mmap.PAGESIZE for one in bounds.split("-"))
            pagemap.seek(start * _ENTRY_BYTES)
            entries = pagemap.read((end - start) * _ENTRY_BYTES)
            there = [entries[place] >> 7 for place in range(_ENTRY_BYTES - 1, len(entries), _ENTRY_BYTES)]
            page = start
            for present, group in groupby(there):
                count = len(list(group))
                if present:
                    ranges.append((page * mmap.PAGESIZE, count * mmap.PAGESIZE))
                page += count
    return ranges


def _touch(ranges: Sequence[_Range]) -> None:
    """As a kernel before 5.14 cannot: there a fork finds more than its parent would."""
    madvise = ctypes.CDLL(None).madvise
    for start, length in ranges:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _POPULATE_READ)
