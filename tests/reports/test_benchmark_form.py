"""A time in torch's own form, as torch prints it."""

from dataclasses import replace

import pytest
from torch.utils.benchmark import Measurement
from torch.utils.benchmark.utils.common import TaskSpec

from saccade.record import Record
from saccade.reports.benchmark_form import measurement_block, measurement_blocks


def test_the_block_is_the_one_of_original_002():
    """365 measurements of about 5.46 ms, 1 run each."""
    seconds = [0.00542] * 100 + [0.00546] * 165 + [0.00549] * 100
    assert measurement_block("profile", seconds, 1, 1).splitlines() == [
        "profile",
        "  Median: 5.46 ms",
        "  IQR:    0.07 ms (5.42 to 5.49)",
        "  365 measurements, 1 runs per measurement, 1 thread",
    ]


def test_the_block_is_what_torch_prints_of_the_same_times():
    seconds, calls = [0.01, 0.02, 0.04, 0.08, 0.03], 10
    theirs = Measurement(calls, [one * calls for one in seconds], TaskSpec("x", "", label="name", num_threads=2))
    assert measurement_block("name", seconds, calls, 2) == "\n".join(repr(theirs).splitlines()[1:])
    # Its warning about times that scatter, too.
    assert "WARNING" in measurement_block("name", seconds, calls, 2)


def test_nothing_timed_is_no_block():
    with pytest.raises(ValueError, match="nothing was timed"):
        measurement_block("name", [], 1, 1)


def test_every_time_has_a_block_and_what_is_missing_its_reason():
    one = Record(
        kind="seconds",
        attention="linear",
        attention_resolved="linear",
        model="core",
        values={"forward_seconds": [0.002] * 5, "forward_calls": 50},
        conditions={
            "what": "core",
            "tokens": 196,
            "batch_size": 4,
            "dtype": "fp32",
            "threads": 2,
            "failed": {"forward_backward": "out of memory: it needs more"},
        },
        error="out of memory: it needs more",
        round="1",
    )
    other = replace(one, conditions={**one.conditions, "batch_size": 1})
    forward, _, backward, _ = measurement_blocks([one, other, replace(one, kind="memory")])
    assert forward.splitlines() == [
        "linear: core, forward, 196 tokens, batch 4, fp32",
        "  Median: 2.00 ms",
        "  IQR:    0.00 ms (2.00 to 2.00)",
        "  5 measurements, 50 runs per measurement, 2 threads",
    ]
    assert backward == ("linear: core, forward + backward, 196 tokens, batch 4, fp32\n  out of memory: it needs more")
