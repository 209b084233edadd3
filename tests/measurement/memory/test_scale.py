"""A scale says what a process has in memory, forgets its peak, and counts an accelerator's own tensors."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from saccade.measurement.memory import scale as scales
from saccade.measurement.memory.scale import scale_for


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_freed_memory_is_forgotten():
    scale = scale_for(torch.device("cpu"))
    torch.ones(50_000_000)
    start = scale.start()
    assert scale.peak() - start < 20e6
    held = torch.ones(50_000_000)
    assert 190e6 < scale.peak() - start < 220e6
    del held


def test_the_highest_ever_stands_in_where_a_peak_is_not_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(scales, "_CLEAR", tmp_path / "no" / "clear_refs")
    scale = scale_for(torch.device("cpu"))
    assert scale.method == "ru_maxrss"
    unit = 1 if sys.platform == "darwin" else 1024
    assert scale.start() == scale.peak() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_an_accelerator_counts_its_own_tensors(monkeypatch):
    said = []
    answers = {"synchronize": None, "empty_cache": None, "reset_peak_memory_stats": None, "memory_allocated": 5}
    for name, answer in answers.items():
        monkeypatch.setattr(
            torch.accelerator, name, lambda *device, name=name, answer=answer: said.append(name) or answer
        )
    monkeypatch.setattr(torch.accelerator, "max_memory_reserved", lambda device: 20)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: 12)
    scale = scale_for(torch.device("cuda:0"))
    assert (scale.method, scale.start(), scale.peak()) == ("max_memory_allocated", 5, 12)
    assert said == ["synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated", "synchronize"]
    assert scale.counts() == {"allocated_bytes": 12, "reserved_bytes": 20}


def test_only_the_process_itself_is_weighed():
    assert Path("/proc/self") in scales._STATUS.parents
