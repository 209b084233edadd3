"""Entrant: what a bench has to know of whatever takes part in it, be it a layer, a block or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from saccade.measurement.terms import Terms
from saccade.record import Record

# What a process with torch in it takes before it has built anything: 0.25 GB were seen on Linux, more with CUDA.
PROCESS_BYTES = 350_000_000


@dataclass(frozen=True)
class Served:
    """What lives in a measuring process, as `isolate.Worker` takes it."""

    serve: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Weighed:
    """What a weighing process answered.

    Attributes:
        values: bytes.
        conditions: that only this process knows.
        error: why there are no values.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@runtime_checkable
class Entrant(Protocol):
    """One of those that are measured beside each other; `what` is one of "core", "layer", "block" and "model"."""

    @property
    def attention(self) -> str:
        """As its user wrote it."""
        ...

    @property
    def terms(self) -> Terms:
        """What rivals share."""
        ...

    @property
    def acts(self) -> tuple[str, ...]:
        """Kinds of calls that are timed, as records name them."""
        ...

    def lacks(self, what: str) -> str | None:
        """Why there is no such thing of it, with "no" in front; None where there is."""
        ...

    def refusal(self) -> str | None:
        """Why it makes no sense at this size; None where it does."""
        ...

    def needed_bytes(self, what: str) -> int | None:
        """Predicted at its peak; None where that cannot be told.

        Raises:
            ValueError: it makes no sense at this size.
        """
        ...

    def resting_bytes(self, what: str) -> int:
        """What its process holds between its turns."""
        ...

    def declared(self) -> Record | None:
        """What it computes, by declaration; None where that is no model, or makes no sense."""
        ...

    def timed(self, what: Sequence[str]) -> Served:
        """What lives in its timing process, to do these things; it offers what `turns.Rival` asks for."""
        ...

    def weigh(self, what: str, patience_seconds: float) -> Weighed:
        """Its peak, measured in a fresh process."""
        ...

    def act_prefix(self, what: str) -> str:
        """What stands in front of the acts in their names in the timing process."""
        ...

    def conditions(self, what: str) -> dict[str, Any]:
        """Terms and size, as a record names them."""
        ...

    def about(self, what: str) -> dict[str, Any]:
        """The fields of a record that say what was measured."""
        ...
