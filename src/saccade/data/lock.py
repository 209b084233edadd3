"""A lock between processes: one prepares, the others wait and find it done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds `path`.lock; the system lets go of it when the process ends, however it ends.

    Where there are no such locks (Windows, some network folders, a folder that cannot be written) nothing is held: what
    it guards is written whole or not at all, so two processes then do the same work twice and neither does harm.
    """
    with ExitStack() as held:
        with suppress(ImportError, OSError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.with_name(f"{path.name}.lock").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
