"""Original: what was published, what is measured of it here, what was wrong; and the rows that set both in a line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from saccade.record import Record
from saccade.training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How much of an original is run.

    Attributes:
        scale: what depths are divided by; tokens, widths and heads, on which everything depends, stay.
        batch_size: images of a step.
        repeats: turns of each timing.
        epochs: passes over the training images.
        images: how many training images.
        data: their name or path.
        gpu: for which the largest batch is predicted, as `max-batch --for` names it.
        device: as `--device` takes it.
        threads: None for as many as torch takes.
    """

    scale: int = 1
    batch_size: int = 1
    repeats: int = 1
    epochs: int = 1
    images: int = 1
    data: str = "digits"
    gpu: str = "rtx-3090"
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Fault:
    """What was wrong, and what finds it.

    Attributes:
        what: in a sentence.
        rule: the doctor's, read from the original's own claims; None for a fault of code.
        attention: the faulty formula as somebody's class; None for a fault of measurement.
        clauses: which ones of the contract that class breaks.
    """

    what: str
    rule: str | None = None
    attention: str | None = None
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """One row: what the original said, what is so here, and whether the two may be compared.

    Attributes:
        what: the quantity.
        theirs: in the original's words.
        ours: measured or counted here.
        comparable: "yes: equal", "yes: not equal", or "no: " and why.
    """

    what: str
    theirs: str
    ours: str
    comparable: str

    def plain(self) -> dict[str, str]:
        """For JSON."""
        return {"what": self.what, "original": self.theirs, "ours": self.ours, "comparable": self.comparable}


@dataclass(frozen=True)
class Part:
    """One step of a reproduction, complete in itself.

    Attributes:
        title: what it is; empty where it prints nothing of its own.
        lines: in the original's own form.
        beside: rows of the table.
        records: what was measured.
        scaled: what is smaller or otherwise here, a sentence each.
    """

    title: str
    lines: Sequence[str] = ()
    beside: Sequence[Beside] = ()
    records: Sequence[Record] = ()
    scaled: Sequence[str] = ()


class Original(ABC):
    """One of the five.

    Attributes:
        id: three digits.
        was: what it was, in a few sentences.
        hardware: what its figures were taken on, as far as it says.
        usual: the fields of `Asked` that mean something here, and what suits a small machine.
        faults: what was wrong.
        instead: the command that asks its question fairly.
    """

    id: ClassVar[str]
    was: ClassVar[str]
    hardware: ClassVar[str]
    usual: ClassVar[Mapping[str, Any]]
    faults: ClassVar[tuple[Fault, ...]]
    instead: ClassVar[str]

    @abstractmethod
    def claims(self) -> list[Record]:
        """What it published, as records: figures as printed, conditions as far as its text or its code tell them."""

    @abstractmethod
    def counted(self) -> Part:
        """What needs no run: parameters, tables of layers, and what the arithmetic says."""

    @abstractmethod
    def measured(self, asked: Asked, progress: Progress) -> Iterator[Part]:
        """What its table measured, step by step; each step is worth keeping."""

    def asked(self, given: Mapping[str, Any], *, device: str, threads: int | None) -> Asked:
        """What is given, and for the rest what suits a small machine.

        Raises:
            ValueError: a number below 1, or an option that means nothing for this original.
        """
        said = {name: value for name, value in given.items() if value is not None}
        for name, value in said.items():
            flag = f"--{name.replace('_', '-')}"
            if name not in self.usual:
                takes = ", ".join(f"--{one.replace('_', '-')}" for one in self.usual) or "no option of size"
                raise ValueError(f"{flag} means nothing for {self.id}, which takes {takes}")
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{flag} {value}: must be at least 1")
        return Asked(**{**self.usual, **said}, device=device, threads=threads)


def counts(what: str, theirs: int, ours: int) -> Beside:
    """A row of numbers that need no machine, and so must be equal."""
    return Beside(what, f"{theirs:,}", f"{ours:,}", f"yes: {'equal' if theirs == ours else 'not equal'}")


def shallower(depth: int, scale: int) -> int:
    """The depth divided by the scale, at least 1."""
    return max(1, round(depth / scale))
