"""The peak of a training step is that of its tensors, and says how it was weighed."""

import resource
import sys
from pathlib import Path

import pytest
import torch
from tests.measurement.scale import ByHand

from saccade.measurement.memory import peak
from saccade.measurement.operations import operations_record
from saccade.measurement.step import Step
from saccade.measurement.subject import Subject

SUBJECT = Subject(model="vit_micro_patch4_32", options={"embed_dim": 256}, batch_size=16)

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")


@needs_linux
def test_weights_gradients_and_moments_are_in_the_peak():
    record = peak.measure_peak(SUBJECT)
    parameters = operations_record(SUBJECT).values["parameters"]
    hidden = 4 * 16 * 65 * 4 * 256
    assert record.error is None
    assert record.values["method"].startswith("VmHWM")
    # Four numbers a parameter, the hidden values of four MLPs (less than a third of what is kept), nothing else large.
    assert 16 * parameters + 4 * hidden < record.values["peak_bytes"] < 16 * parameters + 16 * hidden
    assert record.values["baseline_bytes"] > 50e6
    assert record.conditions["batch_size"] == 16


@needs_linux
def test_freed_memory_is_forgotten():
    scale = peak.scale_for(torch.device("cpu"))
    torch.ones(50_000_000)
    start = scale.start()
    assert scale.peak() - start < 20e6
    held = torch.ones(50_000_000)
    assert 190e6 < scale.peak() - start < 220e6
    del held


def test_the_highest_ever_stands_in_where_a_peak_is_not_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "_CLEAR", tmp_path / "no" / "clear_refs")
    scale = peak.scale_for(torch.device("cpu"))
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
    scale = peak.scale_for(torch.device("cuda:0"))
    assert (scale.method, scale.start(), scale.peak()) == ("max_memory_allocated", 5, 12)
    assert said == ["synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated", "synchronize"]
    assert scale.counts() == {"allocated_bytes": 12, "reserved_bytes": 20}


def test_a_subject_that_cannot_be_built_is_an_error_in_the_record():
    record = peak.measure_peak(Subject(model="vit_nano_patch1_8", attention="nystrom(landmarks=900)"))
    assert "landmarks must be" in record.error
    assert record.values["predicted_bytes"] is None
    assert "landmarks must be" in record.values["unpredicted"]


def test_out_of_memory_is_said():
    # More than any address space, so that no machine tries.
    record = peak.measure_peak(Subject(model="vit_nano_patch1_8", batch_size=2**40))
    assert record.error.startswith("out of memory: ")


def test_two_steps_are_trained(monkeypatch):
    taken = []
    monkeypatch.setattr(Step, "__call__", lambda step: taken.append(step.subject))
    peak.train(SUBJECT)
    assert taken == [SUBJECT] * 2


def test_the_scale_is_set_behind_a_first_small_step(monkeypatch):
    order = []
    monkeypatch.setattr(peak, "scale_for", lambda device: ByHand(order))
    monkeypatch.setattr(peak, "train", lambda subject: order.append(subject.batch_size))
    one = peak.Peak({"model": "vit_nano_patch1_8", "batch_size": 8})
    assert one.measure() == {"peak_bytes": 7, "baseline_bytes": 10, "method": "by hand", "optimiser_steps": 2}
    assert order == [1, "start", 8, "peak"]


def test_a_process_that_only_answers_is_weighed_before_anything_is_trained(monkeypatch):
    order = []
    monkeypatch.setattr(peak, "scale_for", lambda device: ByHand(order))
    monkeypatch.setattr(peak, "train", lambda subject: order.append("train"))
    monkeypatch.setattr(peak, "inference", lambda model, subject: lambda: order.append("forward"))
    one = peak.Peak({"model": "vit_nano_patch1_8", "batch_size": 8})
    assert (one.inference_baseline(), one.baseline()) == (10, 10)
    assert order == ["forward", "start", "train", "start"]


def test_only_the_process_itself_is_weighed():
    assert Path("/proc/self") in peak._STATUS.parents
