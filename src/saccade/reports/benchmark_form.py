"""Benchmark form: a time as torch.utils.benchmark prints it, with median, interquartile range and counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from saccade.record import Record
from saccade.reports.layers import by_act, by_setting, title, why_missing


def measurement_block(title: str, seconds: Sequence[float], calls: int, threads: int) -> str:
    """What torch's own `Measurement` prints, without the line that holds its address.

    Args:
        title: stands above it.
        seconds: of one call, each the mean of a repeat.
        calls: of a repeat.
        threads: of the process.

    Raises:
        ValueError: no times.
    """
    if not seconds:
        raise ValueError(f"{title}: nothing was timed, so there is nothing to print")
    from torch.utils.benchmark import Measurement
    from torch.utils.benchmark.utils.common import TaskSpec

    measured = Measurement(
        number_per_run=calls,
        raw_times=[one * calls for one in seconds],
        task_spec=TaskSpec(stmt="", setup="", label=title, num_threads=threads),
    )
    _, *shown = repr(measured).splitlines()
    return "\n".join(shown)


def measurement_blocks(records: Iterable[Record]) -> list[str]:
    """A block for each time, in the order of the tables; the reason for each that is missing."""
    return [
        _block(
            one, act, f"{one.attention}: {title(what, act, setting)}, {one.conditions['tokens']:,} tokens, {setting}"
        )
        for what, act, own in by_act(records)
        if act != "peak"
        for setting, same in by_setting(own).items()
        for one in same
    ]


def _block(record: Record, act: str, name: str) -> str:
    if (why := why_missing(record, act)) is not None:
        return f"{name}\n  {why}"
    values = record.values
    return measurement_block(name, values[f"{act}_seconds"], values[f"{act}_calls"], record.conditions["threads"])
