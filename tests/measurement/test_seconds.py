"""A round of real workers: everybody is checked, timed and kept apart."""

from dataclasses import asdict

import pytest

from saccade.measurement import seconds
from saccade.measurement.isolate import WorkerFailed
from saccade.measurement.seconds import time_rivals
from saccade.measurement.subject import Subject
from saccade.record import read_record

WRONG = '''
from saccade.attention.softmax import Softmax


class Wrong(Softmax):
    """Not what its reference says."""

    def mix(self, q, k, v, patches):
        return super().mix(q, k, v, patches) * 1.01
'''


TIMED = ("step", "latency")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    wrong = tmp_path_factory.mktemp("wrong") / "wrong.py"
    wrong.write_text(WRONG)
    attentions = ["softmax", 'linear*1,softmax(kernel="explicit")*1', "nystrom(landmarks=900)", f"{wrong}:Wrong"]
    return time_rivals(
        [
            Subject(model="vit_nano_patch1_8", attention=one, batch_size=4, inference_batch=2, clock="cpu")
            for one in attentions
        ],
        repeats=3,
        what=TIMED,
    )


def test_every_repeat_of_everything_is_there(records):
    for record in records[:2]:
        assert record.error is None
        for what in TIMED:
            for unit in ("seconds", "cpu_seconds"):
                assert len(record.values[f"{what}_{unit}"]) == 3
                assert all(value > 0 for value in record.values[f"{what}_{unit}"])
                assert len(record.values[f"warmup_{what}_{unit}"]) >= 3
            assert record.values[f"{what}_seconds"] == record.values[f"{what}_cpu_seconds"]


def test_records_are_of_one_round_and_survive_a_file(records):
    assert len({record.round for record in records}) == 1
    assert [read_record(record.line()) for record in records] == records


def test_each_had_a_process_of_its_own(records):
    assert len({record.conditions["process"] for record in records}) == len(records)


def test_conditions_say_which_kernel_ran(records):
    assert [(one.conditions["kernel_asked"], one.conditions["kernel_run"]) for one in records[:2]] == [
        ("auto", "sdpa"),
        ("explicit", "eager, explicit"),
    ]
    assert records[0].conditions | {"batch_size": 4, "inference_batch": 2, "threads": 1, "clock": "cpu"} == (
        records[0].conditions
    )
    assert "busy" in records[0].conditions
    assert records[0].machine["processor"]


def test_a_layer_that_is_refused_fails_alone(records):
    assert "landmarks must be" in records[2].error
    assert records[2].values == {}


def test_a_layer_that_is_not_its_reference_is_not_timed(records):
    assert records[3].error.startswith("failed: Broken: ")
    assert records[3].values == {}


def test_a_worker_is_given_the_subjects_terms(monkeypatch):
    def start(serve, options, **terms):
        assert terms == {"threads": 3, "allocator": "keep", "patience_seconds": 7.0}
        assert options == {"subject": asdict(subject)}
        raise WorkerFailed("killed", "enough is seen")

    monkeypatch.setattr(seconds, "Worker", start)
    subject = Subject(model="vit_nano_patch1_8", threads=3, allocator="keep")
    with pytest.raises(WorkerFailed, match="enough is seen"):
        time_rivals([subject], patience_seconds=7.0)


def test_nothing_to_repeat_or_to_time_is_refused():
    with pytest.raises(ValueError, match="at least 1 repeat"):
        time_rivals([], repeats=0)
    with pytest.raises(ValueError, match="forward, step, latency, inference"):
        time_rivals([], what=["backward"])
