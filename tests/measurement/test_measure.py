"""`saccade.measure` gives a record for each kind of cost."""

import subprocess
import sys

import pytest

import saccade
from saccade.measurement import seconds
from saccade.measurement.memory import peak
from saccade.record import Record


def test_one_model_is_measured_in_every_way(monkeypatch):
    def rounds(subjects, *, repeats):
        return [Record(kind="seconds", **subject.about(), values={"repeats": repeats}) for subject in subjects]

    monkeypatch.setattr(seconds, "time_rivals", rounds)
    monkeypatch.setattr(peak, "measure_peak", lambda subject: Record(kind="memory", **subject.about()))
    records = saccade.measure("vit_nano_patch1_8", "linear", device="cpu", threads=1, repeats=7, depth=1)
    assert [record.kind for record in records] == ["operations", "seconds", "memory"]
    assert records[1].values["repeats"] == 7
    for record in records:
        assert (record.attention, record.model_options) == ("linear", {"depth": 1})


def test_a_model_that_is_there_is_measured_as_it_is():
    model = saccade.create_model("vit_nano_patch1_8", "fourier", depth=1)
    (record,) = saccade.measure(model, what=["operations"], device="cpu")
    assert record.attention == "fourier"
    assert record.values["parameters"] == sum(one.numel() for one in model.parameters())


def test_what_makes_no_sense_is_refused_before_a_process_starts(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ValueError, match="landmarks must be"):
        saccade.measure("vit_nano_patch1_8", "nystrom(landmarks=65)", what=["memory"])
    with pytest.raises(ValueError, match="tastes is none of operations, seconds, memory"):
        saccade.measure("vit_nano_patch1_8", what=["tastes"])


def test_naming_it_does_not_import_torch():
    code = "import sys, saccade; saccade.measure; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
