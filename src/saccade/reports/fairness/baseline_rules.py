"""The doctor's rules on what others are held against: softmax, at its best, in the same round, as it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.record import Record
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import KERNELS_ASKED, KERNELS_RUN, TIMES
from saccade.reports.fairness.rule import Rule, Seen
from saccade.reports.terms import alike


def without_softmax(case: Case) -> Iterator[Seen]:
    """Times of different days, or on different terms, set against each other.

    Original 001: at batch 10 lambda layers took 8 GB with patches of 4, and softmax was measured at batch 1 alone.
    """
    accompanied = [one for one in case.timed if _has_softmax_beside(case, one)]
    # A model that was timed again beside softmax is not lonely; a layer has to be so at each of its sizes.
    again = {one.attention_resolved for one in accompanied if "what" not in one.conditions}
    lonely = [
        one
        for one in case.timed
        if one not in accompanied and one.attention_resolved not in again and not one.conditions.get("rival")
    ]
    if lonely:
        yield Seen(f"no softmax was timed together with these, on the same terms: {_names(lonely)}; they get no ratio")


def best_softmax(case: Case) -> Iterator[Seen]:
    """A baseline that is not the best softmax on its device.

    Original 002 raced sparse attention against the dense one by one kernel; the memory-efficient one, which its flag
    asked for, never ran.
    """
    alone: dict[str, list[Record]] = {}
    for group in case.rounds.values():
        others = [one for one in group if not case.is_softmax(one)]
        kernels = {str(one.conditions.get("kernel_run")) for one in group if case.is_softmax(one)} - {"None"}
        if len(kernels) == 1 and others:
            alone.setdefault(kernels.pop(), []).extend(others)
    for kernel, others in alone.items():
        yield Seen(
            f"softmax was timed by its {kernel} kernel alone, beside {_names(others)}: another kernel may be faster, "
            "and a ratio to any but the best softmax is no result"
        )


def kernel_not_run(case: Case) -> Iterator[Seen]:
    """A kernel that was asked for and did not run.

    Original 002: the flag that selects memory-efficient attention was lost in a recursion, so it never ran.
    """
    lost = {
        one.attention: f"{one.attention} (asked for {', '.join(asked)}, ran {ran})"
        for one in case.records
        for part in ("", "decoder_")
        if (asked := _words(one, f"{part}kernel_asked")) and (ran := one.conditions.get(f"{part}kernel_run"))
        # "auto" leaves the choice to saccade.
        if not set(asked) <= {*_words(one, f"{part}kernel_run"), "auto"}
    }
    if lost:
        yield Seen(f"these did not run as they were asked to: {listed(lost.values())}")


BASELINE_RULES = (
    Rule("round without softmax", without_softmax, ("warning",), (TIMES,), "time them and softmax in one round"),
    Rule(
        "not the best softmax",
        best_softmax,
        ("warning",),
        (KERNELS_RUN,),
        "time softmax by each of its kernels beside them",
    ),
    Rule("kernel not run", kernel_not_run, ("error",), (KERNELS_ASKED,), "find out where the choice is lost"),
)


def _names(records: list[Record]) -> str:
    return listed(one.attention for one in records)


def _words(record: Record, name: str) -> list[str]:
    return [word.strip() for word in str(record.conditions.get(name) or "").split(",") if word.strip()]


def _has_softmax_beside(case: Case, record: Record) -> bool:
    """Whether softmax was timed in the record's round on the same terms; it may be softmax itself."""
    return any(case.is_softmax(one) and alike(one, record) for one in case.rounds[record.round])
