"""Layers: attentions timed and weighed against softmax, alone or between their projections, size by size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from math import isqrt
from typing import Any

from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.layer import WHAT, LayerSubject
from saccade.measurement.layer_worker import ACTS
from saccade.measurement.machine import free_bytes, machine_facts
from saccade.measurement.turns import Rival, take_turns
from saccade.record import Record
from saccade.training.progress import Progress, Silent

SOFTMAX = ('softmax(kernel="sdpa")', 'softmax(kernel="explicit")')
"""The baseline, by each of its kernels; the faster one at a size is what the others are divided by."""

# After so long a line says how far it is.
SILENT_SECONDS = 20.0


def square(patches: int) -> tuple[int, int]:
    """The grid of so many patches.

    Raises:
        ValueError: no square has so many; the message names the nearest ones.
    """
    side = isqrt(max(patches, 0))
    if side < 1 or side**2 != patches:
        near = " or ".join(f"{one**2} ({one} x {one})" for one in (side, side + 1) if one)
        raise ValueError(f"tokens={patches}: must be the patches of a square grid, as {near}")
    return side, side


def with_softmax(attentions: Iterable[str]) -> list[str]:
    """The attentions behind softmax by both its kernels, each once."""
    return list(dict.fromkeys([*SOFTMAX, *(one.strip() for one in attentions if one.strip() != "softmax")]))


class Layers:
    """Measures attentions at one size after the other; what fails or makes no sense is marked, and the rest goes on.

    Args:
        subjects: for each size the rivals.
        what: of `layer.WHAT`.
        repeats: turns of each.
        memory: whether to weigh as well.
        progress: is told what is done.
        patience_seconds: how long one answer may take.
        finished: is given the records of each size when they are there.
    """

    def __init__(
        self,
        subjects: Sequence[Sequence[LayerSubject]],
        *,
        what: Sequence[str] = WHAT,
        repeats: int = 5,
        memory: bool = False,
        progress: Progress | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        finished: Callable[[list[Record]], None] = lambda records: None,
    ) -> None:
        self.subjects, self.what, self.repeats, self.memory = subjects, what, repeats, memory
        self.progress = progress or Silent()
        self.patience_seconds, self.finished = patience_seconds, finished
        self.machine = machine_facts()

    def records(self) -> list[Record]:
        """Of every size, attention and kind of call."""
        records: list[Record] = []
        for rivals in self.subjects:
            records += self._at_one_size(rivals)
            self.finished(list(records))
        return records

    def _at_one_size(self, subjects: Sequence[LayerSubject]) -> list[Record]:
        self.progress.say(f"{subjects[0].tokens.count:,} tokens: {len(subjects)} attentions")
        able: list[tuple[LayerSubject, list[str]]] = []
        records: list[Record] = []
        for subject in subjects:
            whys = {what: why for what in self.what if (why := why_not(subject, what))}
            for what, why in whys.items():
                self.progress.say(f"  {subject.attention}, {what}: {why}")
                records.append(self._record("seconds", subject, what, error=why))
            able.append((subject, [what for what in self.what if what not in whys]))
        records += self._timed(able)
        if self.memory:
            records += [self._weighed(subject, what) for subject, can in able for what in can]
        asked = [subject.attention for subject in subjects]
        return sorted(records, key=lambda record: asked.index(record.attention))

    def _timed(self, able: Sequence[tuple[LayerSubject, Sequence[str]]]) -> list[Record]:
        """A round of turns for each kind of call, among the same processes."""
        records = []
        with ExitStack() as workers:
            rivals = []
            for subject, can in able:
                if can:
                    # One after the other: what each holds against its reference may take much of the memory.
                    self.progress.say(f"  checking {subject.attention}")
                    rival = Rival(workers.enter_context(self._worker("timed_layer", subject, {})))
                    rival.get_ready()
                    rivals.append((subject, can, rival))
            for what in self.what:
                own = [(subject, rival) for subject, can, rival in rivals if what in can]
                self.progress.say(f"  timing the {what} of {len(own)} in turns")
                records += self._round(what, own)
        return records

    def _round(self, what: str, rivals: Sequence[tuple[LayerSubject, Rival]]) -> list[Record]:
        acts = [f"{what}_{act}" for act in ACTS]
        crowd = take_turns([rival for _, rival in rivals], acts, self.repeats, self._shown(len(rivals) * len(acts)))
        name = datetime.now(UTC).isoformat(timespec="microseconds")
        return [
            self._record(
                "seconds",
                subject,
                what,
                # A process answers for both kinds of calls.
                values={key.replace(f"{what}_", ""): each for key, each in rival.values.items() if f"{what}_" in key},
                conditions={**rival.conditions, **crowd},
                round=name,
                error=rival.error,
            )
            for subject, rival in rivals
        ]

    def _shown(self, turns: int) -> Callable[[int], None]:
        """Moves the bar on; where there is none, large sizes are heard of now and then."""
        total, last = turns * (1 + self.repeats), time.monotonic()

        def show(done: int) -> None:
            nonlocal last
            self.progress.advance(done, total)
            if time.monotonic() - last > SILENT_SECONDS:
                last = time.monotonic()
                self.progress.say(f"  {done} of {total} turns")

        return show

    def _weighed(self, subject: LayerSubject, what: str) -> Record:
        self.progress.say(f"  weighing the {what} of {subject.attention}")
        values, facts, error = {}, {}, None
        with self._worker("LayerPeak", subject, {"what": what}) as worker:
            try:
                worker.ready()
                values, facts = worker.ask("measure"), worker.ask("facts")
            except WorkerFailed as failed:
                error = str(failed)
        facts = {**facts, "process": worker.process}
        return self._record("memory", subject, what, values=values, conditions=facts, error=error)

    def _worker(self, serve: str, subject: LayerSubject, more: Mapping[str, Any]) -> Worker:
        return Worker(
            f"saccade.measurement.layer_worker:{serve}",
            {"subject": asdict(subject), **more},
            threads=subject.terms.threads,
            # A weighing process sets its own.
            allocator=subject.terms.allocator if serve == "timed_layer" else "default",
            patience_seconds=self.patience_seconds,
        )

    def _record(
        self, kind: str, subject: LayerSubject, what: str, conditions: Mapping[str, Any] | None = None, **more: Any
    ) -> Record:
        return Record(
            kind=kind,
            **subject.about(what),
            conditions={**subject.conditions(what), **(conditions or {})},
            machine=self.machine,
            **more,
        )


def why_not(subject: LayerSubject, what: str) -> str | None:
    """Why this cannot be measured, with a word in front that says of which kind the reason is; None where it can."""
    if what not in subject.what:
        return f"no {what}: it does not mix queries, keys and values of heads between projections"
    try:
        needed = subject.needed_bytes(what)
    except ValueError as refusal:
        return f"refused: {refusal}"
    free = free_bytes(subject.terms.device)
    if needed is not None and free is not None and needed > free:
        return f"too large: needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    return None


def require_sense(subjects: Iterable[Sequence[LayerSubject]]) -> None:
    """Checks that each attention makes sense at one of the sizes, before any is measured.

    Raises:
        ValueError: one is refused at all of them.
    """
    for same in zip(*subjects, strict=True):
        whys = [subject.refusal() for subject in same]
        if all(whys):
            raise ValueError(f"{whys[0]} (and it is refused at every number of tokens asked for)")


def subjects_of(attentions: Iterable[str], tokens: Iterable[int], base: LayerSubject) -> list[list[LayerSubject]]:
    """For each number of patches all attentions, softmax first.

    Args:
        attentions: as their users wrote them.
        tokens: patches of square grids.
        base: width, heads, prefix and terms.

    Raises:
        ValueError: no such attention or option, a number that is no square, or none at all.
    """
    grids = [square(patches) for patches in dict.fromkeys(tokens)]
    if not grids:
        raise ValueError("tokens: at least one number is needed, as 196")
    names = with_softmax(attentions)
    return [[replace(base, attention=name, grid=grid) for name in names] for grid in sorted(grids)]
