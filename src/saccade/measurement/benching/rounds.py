"""Rounds: entrants on equal terms timed in turns and weighed; what fails is marked, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from saccade.measurement.benching.entrant import Entrant
from saccade.measurement.benching.heats import Weight, heats
from saccade.measurement.benching.layers import is_softmax
from saccade.measurement.isolate import PATIENCE_SECONDS, Worker
from saccade.measurement.machine import free_bytes, machine_facts
from saccade.measurement.quiet import others_on
from saccade.measurement.turns import READY, Rival, take_turns
from saccade.record import Record
from saccade.training.progress import Progress, Silent

# After so long a line says how far it is.
SILENT_SECONDS = 20.0


@dataclass(frozen=True)
class Group:
    """Those that stand beside each other: at one size, on equal terms.

    Attributes:
        entrants: softmax first.
        what: of each of them, in this order.
    """

    entrants: Sequence[Entrant]
    what: Sequence[str]

    @property
    def title(self) -> str:
        """Size and terms in a few words."""
        told = self.entrants[0].conditions(self.what[0])
        return f"{told['tokens']:,} tokens, batch {told['batch_size']}, {told['amp_dtype'] or told['dtype']}"


@dataclass(frozen=True)
class Judged:
    """Whether something can be measured.

    Attributes:
        why_not: the reason, with a word in front that says of which kind it is; None where it can.
        needed_bytes: predicted at its peak; None where that is not known.
    """

    why_not: str | None
    needed_bytes: int | None = None


@dataclass(frozen=True)
class _Able:
    """An entrant, and what of it can be measured, with the bytes that it will need at most."""

    entrant: Entrant
    can: tuple[str, ...]
    needed_bytes: int


class Rounds:
    """Measures one group after the other.

    Args:
        groups: what is measured beside each other.
        repeats: turns of each.
        memory: whether to weigh as well.
        quiet_only: times of a round in which others were at work are kept, but count as failed.
        progress: is told what is done.
        patience_seconds: how long one answer may take.
        finished: is given all records so far, whenever there are more.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        repeats: int = 5,
        memory: bool = False,
        quiet_only: bool = False,
        progress: Progress | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        finished: Callable[[list[Record]], None] = lambda records: None,
    ) -> None:
        self.groups, self.repeats, self.memory, self.quiet_only = groups, repeats, memory, quiet_only
        self.progress = progress or Silent()
        self.patience_seconds, self.finished = patience_seconds, finished
        self.machine = machine_facts()
        self.kept: list[Record] = []

    def records(self) -> list[Record]:
        """Of every group, entrant and thing."""
        for group in self.groups:
            before = len(self.kept)
            self._measure(group)
            asked = list(dict.fromkeys(entrant.attention for entrant in group.entrants))
            self.kept[before:] = sorted(self.kept[before:], key=lambda record: asked.index(record.attention))
        return self.kept

    def _measure(self, group: Group) -> None:
        self.progress.say(f"{group.title}: {len(group.entrants)} attentions")
        able = [self._able(entrant, group.what) for entrant in group.entrants]
        weights = [_weight(one) for one in able if one.can]
        free = free_bytes(group.entrants[0].terms.device)
        # Softmax is timed again in each heat: ratios are formed within a round.
        split = heats(weights, free)
        for heat in split:
            if len(split) > 1:
                self.progress.say(f"  {len(heat)} at a time: all of them would not fit into memory")
            self._heat(heat, group.what)
        if self.memory:
            for one in able:
                for what in one.can:
                    self._keep([self._weighed(one.entrant, what)])

    def _able(self, entrant: Entrant, asked: Sequence[str]) -> _Able:
        if (declared := entrant.declared()) is not None:
            self._keep([declared])
        judged = {what: judge(entrant, what) for what in asked}
        for what, found in judged.items():
            if found.why_not:
                self.progress.say(f"  {entrant.attention}, {what}: {found.why_not}")
                self._keep([self._record("seconds", entrant, what, error=found.why_not)])
        can = tuple(what for what, found in judged.items() if not found.why_not)
        return _Able(entrant, can, max((judged[what].needed_bytes or 0 for what in can), default=0))

    def _heat(self, heat: Sequence[_Able], asked: Sequence[str]) -> None:
        """A round of turns for each thing, among the same processes."""
        others = others_on(heat[0].entrant.terms.device) if heat else {}
        with ExitStack() as workers:
            rivals = []
            for one in heat:
                # One after the other: what each holds against its reference may take much of the memory.
                self.progress.say(f"  checking {one.entrant.attention}")
                rival = Rival(workers.enter_context(self._worker(one)))
                rival.get_ready()
                rivals.append((one, rival))
            for what in asked:
                own = [(one.entrant, rival) for one, rival in rivals if what in one.can]
                if own:
                    self.progress.say(f"  timing the {what} of {len(own)} in turns")
                    self._round(what, own, others)

    def _round(self, what: str, rivals: Sequence[tuple[Entrant, Rival]], others: Mapping[str, Any]) -> None:
        first, _ = rivals[0]
        acts = [f"{first.act_prefix(what)}{act}" for act in first.acts]
        name = datetime.now(UTC).isoformat(timespec="microseconds")
        shown = self._shown(len(rivals) * len(acts))
        try:
            crowd = take_turns([rival for _, rival in rivals], acts, self.repeats, shown)
        except BaseException:
            # Whoever stops it keeps what there is.
            self._keep(self._timed(what, rivals, others, name, "interrupted: not all turns were taken"))
            raise
        crowd = {**crowd, **others, "busy": others.get("accelerator_busy") or crowd["busy"]}
        disturbed = "busy: others were at work meanwhile, and only a quiet machine counts"
        error = disturbed if self.quiet_only and crowd["busy"] else None
        self._keep(self._timed(what, rivals, crowd, name, error))

    def _timed(
        self,
        what: str,
        rivals: Sequence[tuple[Entrant, Rival]],
        crowd: Mapping[str, Any],
        name: str,
        error: str | None,
    ) -> list[Record]:
        records = []
        for entrant, rival in rivals:
            prefix = entrant.act_prefix(what)
            failed = {
                asked.removeprefix(prefix): why
                for asked, why in rival.failed.items()
                if asked == READY or asked.removeprefix(prefix) in entrant.acts
            }
            told = {**rival.conditions, **crowd, **({"failed": failed} if failed else {})}
            values = {key.replace(prefix, "", 1): each for key, each in rival.values.items() if prefix in key}
            # A process that was gone before its turn came has said why elsewhere.
            gone = rival.error if not failed and not values else None
            why = next(iter(failed.values()), None) or gone or error
            records.append(
                self._record("seconds", entrant, what, values=values, conditions=told, round=name, error=why)
            )
        return records

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

    def _weighed(self, entrant: Entrant, what: str) -> Record:
        self.progress.say(f"  weighing the {what} of {entrant.attention}")
        weighed = entrant.weigh(what, self.patience_seconds)
        return self._record(
            "memory", entrant, what, values=weighed.values, conditions=weighed.conditions, error=weighed.error
        )

    def _worker(self, one: _Able) -> Worker:
        served, terms = one.entrant.timed(one.can), one.entrant.terms
        return Worker(
            served.serve,
            served.options,
            threads=terms.threads,
            allocator=terms.allocator,
            patience_seconds=self.patience_seconds,
        )

    def _record(
        self, kind: str, entrant: Entrant, what: str, conditions: Mapping[str, Any] | None = None, **more: Any
    ) -> Record:
        return Record(
            kind=kind,
            **entrant.about(what),
            conditions={**entrant.conditions(what), **(conditions or {})},
            machine=self.machine,
            **more,
        )

    def _keep(self, records: Iterable[Record]) -> None:
        self.kept += records
        self.finished(list(self.kept))


def judge(entrant: Entrant, what: str) -> Judged:
    """Whether this can be measured here and now."""
    if why := entrant.lacks(what):
        return Judged(why)
    try:
        needed = entrant.needed_bytes(what)
    except ValueError as refusal:
        return Judged(f"refused: {refusal}")
    free = free_bytes(entrant.terms.device)
    if needed is not None and free is not None and needed > free:
        return Judged(f"too large: needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free", needed)
    return Judged(None, needed)


def require_sense(groups: Iterable[Group]) -> None:
    """Checks that each attention makes sense in one of the groups, before any is measured.

    Raises:
        ValueError: one is refused in all of them.
    """
    whys: dict[str, list[str | None]] = {}
    for group in groups:
        for entrant in group.entrants:
            whys.setdefault(entrant.attention, []).append(entrant.refusal())
    for own in whys.values():
        if all(own):
            raise ValueError(f"{own[0]} (and it is refused at every size asked for)")


def _weight(one: _Able) -> Weight[_Able]:
    return Weight(
        one,
        resting_bytes=max(one.entrant.resting_bytes(what) for what in one.can),
        peak_bytes=one.needed_bytes,
        baseline=is_softmax(one.entrant.attention),
    )
