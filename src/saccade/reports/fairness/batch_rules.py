"""The doctor's rules on largest batches: what was taken for "does not fit", and what a prediction rests on."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import BATCHES, PREDICTIONS, PROBES, probes
from saccade.reports.fairness.rule import Rule, Seen
from saccade.reports.numbers import counted

# How a trial ends that was too large: by torch's word, or by that of the system.
TOO_LARGE = ("out of memory", "killed")

# Further off, a predicted largest batch is wrong; one image is rounding.
MOST_OFF = 0.01

# What a process may take or give back beside any model: its allocator's pages.
LEAST_OFF_BYTES = 2**20


def crash_as_no_fit(case: Case) -> Iterator[Seen]:
    """A trial that failed for another reason, counted as one that does not fit.

    Original 001: any exit but 0, a typing error included, counted as "NG".
    """
    crashed = [
        f"{one.attention} at batch {probe.get('batch_size')} ({probe.get('reason') or 'no reason is told'})"
        for one in case.batches
        for probe in probes(one)
        if probe.get("fits") is False and probe.get("reason") not in TOO_LARGE
    ]
    if crashed:
        yield Seen(
            "these were taken for too large, and failed for another reason or for none that is known: "
            + listed(crashed)
        )


def prediction_off(case: Case) -> Iterator[Seen]:
    """Memory, or a largest batch, that is not what was predicted of it.

    No original predicted anything; saccade says within which share it does, and is held to it.
    """
    off = [
        f"{one.attention} (batch {found}, predicted {predicted})"
        for one in case.batches
        for start in ("", "inference_")
        if (predicted := one.values.get(f"{start}predicted_largest_batch")) is not None
        and (found := one.values.get(f"{start}largest_batch")) is not None
        and abs(found - predicted) > max(1, MOST_OFF * found)
    ]
    off += [
        f"{one.attention} ({counted(peak, 'B')}, predicted {counted(predicted, 'B')} within {100 * within:.3g} %)"
        for one in case.weighed
        if (within := one.values.get("within")) and (predicted := one.values.get("predicted_bytes"))
        if abs((peak := one.values["peak_bytes"]) - predicted) > max(LEAST_OFF_BYTES, within * peak)
    ]
    if off:
        yield Seen(f"what was measured is not what was predicted: {listed(off)}")


def unverified(case: Case) -> Iterator[Seen]:
    """A largest batch predicted for a device on which no prediction was held against a measurement.

    No original: saccade's own predictions for GPUs that are not there.
    """
    names = [one.attention for one in case.batches if one.values.get("verified") == "unverified"]
    if names:
        yield Seen(
            "the largest batches of these are predicted, and no prediction for that device was held against a "
            f"measurement: {listed(names)}"
        )


BATCH_RULES = (
    Rule(
        "crash counted as no fit",
        crash_as_no_fit,
        ("error",),
        (PROBES,),
        "tell running out of memory from other failures, and end the search at one of these",
    ),
    Rule("prediction off", prediction_off, ("warning",), (PREDICTIONS,), "go by what was measured"),
    Rule("prediction unverified", unverified, ("note",), (BATCHES,), "--confirm on such a device"),
)
