"""Tally: the storages that operations make and free, one by one, so that it can be said what was there at the peak."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from saccade.measurement.memory.overwritten import holders_of_the_alone, holders_of_the_first
from saccade.measurement.memory.tensors import tensors_in

Held = Callable[[int], int]
"""Bytes of memory that a storage of so many bytes takes."""

Within = Callable[[Callable[..., Any], tuple[Any, ...], Any], int]
"""Bytes that an operation takes within itself: of the operation, its arguments and what it made."""


@dataclass(slots=True, eq=False)
class Stored:
    """A storage.

    Attributes:
        size: its bytes.
        scope: the place in the model where it was made.
        born: the moment it was made, counted in storages made and freed.
        died: the moment it was freed; None while it is there.
        part: what it is, where somebody has said so.
        written: bytes that have been written: those of the rest have no memory yet.
        release: takes it off when its tensor is gone.
    """

    size: int
    scope: str
    born: int
    died: int | None = None
    part: str | None = None
    written: int = 0
    release: weakref.finalize[..., Any] | None = None


class Tally(TorchDispatchMode):
    """Adds up the storages that operations make, and takes each off when it is freed.

    What a kernel takes and frees within one operation is no tensor, and no dispatcher sees it: `within` says it.

    Args:
        known: tensors that are not counted.
        scope_of: names the place in the model that an operation belongs to.
        held: what a storage takes of the memory.
        within: what an operation takes within itself.

    Attributes:
        peak_bytes: the most bytes of tensors there were at a time.
        needed_bytes: the most memory there was taken at a time, by tensors and within operations.
        needed_moment: when that was.
        moment: storages made and freed so far.
        part: what storages are that are made from now on, where that is known.
        stored: all storages, in the order in which they were made.
    """

    def __init__(
        self,
        known: Sequence[Tensor] = (),
        *,
        scope_of: Callable[[], str] = lambda: "",
        held: Held = lambda size: size,
        within: Within = lambda func, args, made: 0,
    ) -> None:
        super().__init__()
        self.peak_bytes = self.needed_bytes = self.needed_moment = self.moment = 0
        self.part: str | None = None
        self.stored: list[Stored] = []
        self._bytes = self._held_bytes = 0
        self._scope_of, self._held, self._within = scope_of, held, within
        self._alone = holders_of_the_alone()
        # A view's storage is there already; so is that of what was given.
        self._counted: weakref.WeakKeyDictionary[Any, Stored | None] = weakref.WeakKeyDictionary()
        for one in known:
            self._counted[one.untyped_storage()] = None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and counts what it made."""
        # Autograd asks this of every tensor, again and again: two of three calls.
        if func is torch.ops.prim.device.default and type(args[0]) is FakeTensor:
            return args[0].fake_device
        kwargs = kwargs or {}
        holders = holders_of_the_first(func, args)
        made = func(*args, **kwargs)
        if holders is not None and holders == self._alone:
            self._hand_over(args[0], made)
        empty = _is_empty(func)
        for one in tensors_in((made,)):
            self._add(one, empty)
        for one in _written(func, args, kwargs):
            self._write(one)
        needed = self._held_bytes + self._within(func, args, made)
        if needed > self.needed_bytes:
            self.needed_bytes, self.needed_moment = needed, self.moment
        return made

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Counts the storages of these tensors that are not counted yet."""
        for one in tensors:
            self._add(one, empty=False)

    def name(self, tensors: Iterable[Tensor | None], part: str) -> None:
        """Says what the storages of these tensors are; the last word counts."""
        for one in tensors:
            stored = None if one is None else self._counted.get(one.untyped_storage())
            if stored is not None:
                stored.part = part

    def forget(self, tensors: Iterable[Tensor]) -> None:
        """As if these, which are there for good and were there before the peak, had never been made."""
        for one in tensors:
            stored = self._counted[one.untyped_storage()]
            if stored is not None:
                self.stored.remove(stored)
                self._counted[one.untyped_storage()] = None
                self._bytes -= stored.size
                self.peak_bytes -= stored.size
                self._held_bytes -= self._held(stored.written)
                self.needed_bytes -= self._held(stored.written)

    def there(self, moment: int) -> list[Stored]:
        """The storages that were there at a moment."""
        return [one for one in self.stored if one.born <= moment and (one.died is None or one.died > moment)]

    def _add(self, tensor: Tensor, empty: bool) -> None:
        storage = tensor.untyped_storage()
        if storage in self._counted:
            return
        self.moment += 1
        stored = Stored(storage.nbytes(), self._scope_of(), self.moment, part=self.part)
        self._counted[storage] = stored
        self.stored.append(stored)
        self._free_with(storage, stored)
        self._bytes += stored.size
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        if not empty:
            self._take(stored, stored.size)

    def _write(self, tensor: Tensor) -> None:
        stored = self._counted.get(tensor.untyped_storage())
        if stored is not None and stored.written < stored.size:
            self._take(stored, min(stored.size, stored.written + tensor.nbytes))

    def _take(self, stored: Stored, written: int) -> None:
        self._held_bytes += self._held(written) - self._held(stored.written)
        stored.written = written

    def _free_with(self, storage: Any, stored: Stored) -> None:
        stored.release = weakref.finalize(storage, self._free, stored)
        stored.release.atexit = False

    def _hand_over(self, old: Tensor, new: Tensor) -> None:
        """What one tensor took is the other's from now on."""
        stored = self._counted.get(old.untyped_storage())
        if stored is not None and stored.release is not None:
            stored.release.detach()
            self._counted[new.untyped_storage()] = stored
            self._free_with(new.untyped_storage(), stored)

    def _free(self, stored: Stored) -> None:
        self.moment += 1
        stored.died = self.moment
        self._bytes -= stored.size
        self._held_bytes -= self._held(stored.written)


@cache
def _is_empty(func: Callable[..., Any]) -> bool:
    """Whether what an operation makes has no values: pages of memory are taken when they are first written."""
    return "empty" in getattr(func, "overloadpacket", func).__name__


def _written(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among the arguments that an operation writes."""
    return tensors_in(args[place] if place < len(args) else kwargs.get(name) for place, name in _writable(func))


@cache
def _writable(func: Callable[..., Any]) -> list[tuple[int, str]]:
    arguments = func._schema.arguments if isinstance(func, torch._ops.OpOverload) else []
    return [
        (place, one.name)
        for place, one in enumerate(arguments)
        if one.alias_info is not None and one.alias_info.is_write
    ]
