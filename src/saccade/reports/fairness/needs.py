"""Needs: the facts that the doctor's questions ask for, and how one tells whether a case has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from saccade.models.sizes import MODELS
from saccade.record import Record
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.rule import Need
from saccade.reports.terms import device_kind
from saccade.reports.trained import answers_known, gained_points, reconstruction


def acts(record: Record) -> list[str]:
    """The names of a timing's values that count: its repeats by the clock that was asked for."""
    return [
        key
        for key in record.values
        if key.endswith("_seconds") and not key.startswith("warmup_") and not key.endswith("_cpu_seconds")
    ]


def probes(record: Record) -> list[Mapping[str, Any]]:
    """The batches that a search for the largest one has tried, for training and for inference."""
    return [*(record.values.get("tried") or []), *(record.values.get("inference_tried") or [])]


def steps_counted(record: Record) -> list[int]:
    """How many optimiser steps went before each reading of a peak, where that is told and something was trained."""
    if record.conditions.get("training") is False:
        return []
    # Whatever did not fit may have ended in its first step.
    fits = [probe for probe in record.values.get("tried") or [] if probe.get("fits")]
    told = [one.get("optimiser_steps") for one in (record.values, *fits)]
    return [int(steps) for steps in told if steps is not None]


def waits_known(record: Record) -> bool:
    """Whether it is known if the clock waited for the device: on a processor there is nothing to wait for."""
    return "synchronised" in record.conditions or device_kind(str(record.conditions.get("device", ""))) == "cpu"


def order_known(record: Record) -> bool:
    """Whether it is known in which order tokens came: saccade's models sort them where a mechanism needs that."""
    return "token_order" in record.conditions or "grid" in record.conditions or record.model in MODELS


def _some(records: Callable[[Case], Iterable[Record]], told: Callable[[Record], object]) -> Callable[[Case], bool]:
    return lambda case: any(told(one) for one in records(case))


def _condition(name: str) -> Callable[[Case], bool]:
    return _some(lambda case: case.records, lambda one: one.conditions.get(name) is not None)


RUNS = Need("training runs", lambda case: any(plan.seeds for plan in case.plans))
RATES = Need("learning rates of training runs", lambda case: any(plan.tuning for plan in case.plans))
IMAGES = Need("facts of the images", lambda case: any(plan.data for plan in case.plans))
OPERATIONS = Need(
    "declared operations of softmax, or the measures of its layer",
    lambda case: any(plan.softmax.operations for plan in case.plans),
)
BATCH_SIZE = Need(
    "the batch size and device of a measurement",
    lambda case: any(plan.batch_size and plan.device for plan in case.plans),
)
KERNELS = Need("the kernel that softmax ran by", lambda case: any(plan.softmax.kernel for plan in case.plans))
ACCURACIES = Need("accuracies", lambda case: any(True for _ in case.learned()))
LOSSES = Need("losses of reconstruction beside those of constants", _some(lambda case: case.runs, reconstruction))
REFERENCES = Need(
    "accuracies without pre-training beside those with it",
    _some(lambda case: case.runs, lambda one: gained_points(one) is not None),
)
ANSWERS = Need("which test images each run got right", _some(lambda case: case.runs, answers_known))
TUNING_RUNS = Need("tuning runs", lambda case: bool(case.tuning))
ANY_RUNS = Need("training or tuning runs", lambda case: bool(case.tuning or case.runs))
TIMES = Need("timings", lambda case: bool(case.timed))
PEAKS = Need("peaks of memory", lambda case: bool(case.weighed))
COSTS = Need("timings or peaks of memory", lambda case: bool(case.timed or case.weighed))
MEASUREMENTS = Need(
    "measurements",
    lambda case: any(one.kind in ("seconds", "memory", "batch", "operations") for one in case.records),
)
WARM_UPS = Need(
    "what was done before the timings",
    _some(lambda case: case.timed, lambda one: any(f"warmup_{act}" in one.values for act in acts(one))),
)
STEADINESS = Need(
    "whether warm-ups had settled",
    _some(lambda case: case.timed, lambda one: any(key.endswith("_steady") for key in one.values)),
)
STEPS = Need("how many optimiser steps a peak is of", _some(lambda case: [*case.weighed, *case.batches], steps_counted))
PROCESSES = Need("the process of each measurement", _condition("process"))
CROWDING = Need(
    "how busy the machine was",
    _some(
        lambda case: case.timed,
        lambda one: one.conditions.get("busy") is not None or one.machine.get("pressure_avg10") is not None,
    ),
)
CLOCKS = Need("by which clock times were taken", _condition("clock"))
WAITS = Need("whether the clock waited for the device", _some(lambda case: case.timed, waits_known))
KERNELS_RUN = Need("the kernels that ran", _some(lambda case: case.timed, lambda one: one.conditions.get("kernel_run")))
KERNELS_ASKED = Need("the kernels that were asked for", _condition("kernel_asked"))
ORDER = Need("the order of the visible tokens", _some(lambda case: case.records, order_known))
PADDING = Need("how many tokens were worked on", _condition("padded_tokens"))
PROBES = Need("probes for a largest batch", _some(lambda case: case.batches, probes))
BATCHES = Need("largest batches", lambda case: bool(case.batches))
PREDICTIONS = Need(
    "predictions of what was measured",
    _some(
        lambda case: [*case.weighed, *case.batches],
        lambda one: "predicted_bytes" in one.values or bool(probes(one)),
    ),
)
MACHINES = Need("facts of the machines", _some(lambda case: case.records, lambda one: one.machine))
RECORDS = Need("records", lambda case: bool(case.records))
