"""The peak of a training step is that of its tensors, and says how it was weighed."""

import sys

import pytest
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
