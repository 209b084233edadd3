"""Rivals take turns, everything they say is kept, and who fails is left out."""

import pytest

from saccade.measurement import turns
from saccade.measurement.isolate import Worker, WorkerFailed


class Spoken(Worker):
    """Stands for a worker: writes down what it is asked, and fails where it is told to."""

    def __init__(self, name, heard, fails_at=None):
        self.process = self.name = name
        self.heard, self.fails_at, self.closed = heard, fails_at, False

    def ready(self):
        self.ask("ready")

    def ask(self, call, what=""):
        assert not self.closed
        self.heard.append((call, what, self.name))
        if call == self.fails_at:
            raise WorkerFailed("killed", "by the test")
        one = {"seconds": 1.5, "cpu_seconds": 2.5}
        return {"facts": {"kernel_run": self.name}, "repeat": one}.get(
            call, {"laps": [one, one], "steady": True, "calls": 4}
        )

    def close(self):
        self.closed = True


@pytest.fixture
def heard():
    return []


def test_the_order_moves_on_by_one_each_time(heard):
    rivals = [turns.Rival(Spoken(name, heard)) for name in "abc"]
    turns.take_turns(rivals, ["step", "latency"], 4)
    repeats = [(what, name) for call, what, name in heard if call == "repeat"]
    assert [name for what, name in repeats if what == "step"] == list("abcbcacababc")
    assert repeats[:6] == [("step", "a"), ("step", "b"), ("step", "c"), *[("latency", name) for name in "abc"]]


def test_everybody_is_warm_before_anything_counts(heard):
    turns.take_turns([turns.Rival(Spoken(name, heard)) for name in "ab"], ["step", "latency"], 1)
    assert [call for call, _, _ in heard] == ["warm_up"] * 4 + ["repeat"] * 4


def test_every_warm_up_and_every_turn_is_told(heard):
    done = []
    turns.take_turns([turns.Rival(Spoken(name, heard)) for name in "ab"], ["step", "latency"], 3, done.append)
    assert done == list(range(1, 2 * 2 * (1 + 3) + 1))


def test_every_repeat_is_kept_and_the_warm_up_apart(heard):
    rival = turns.Rival(Spoken("a", heard))
    rival.get_ready()
    turns.take_turns([rival], ["step"], 3)
    assert rival.values == {
        "step_calls": 4,
        "step_steady": True,
        "warmup_step_seconds": [1.5] * 2,
        "warmup_step_cpu_seconds": [2.5] * 2,
        "step_seconds": [1.5] * 3,
        "step_cpu_seconds": [2.5] * 3,
    }
    assert rival.conditions == {"process": "a", "kernel_run": "a"}


@pytest.mark.parametrize("fails_at", ["ready", "facts", "warm_up", "repeat"])
def test_who_fails_is_left_out_and_the_others_go_on(heard, fails_at):
    broken, whole = turns.Rival(Spoken("a", heard, fails_at)), turns.Rival(Spoken("b", heard))
    broken.get_ready()
    turns.take_turns([broken, whole], ["step"], 2)
    assert (broken.error, broken.values, broken.worker.closed) == ("killed: by the test", {}, True)
    assert whole.error is None
    assert len(whole.values["step_seconds"]) == 2


def test_a_busy_machine_is_marked():
    assert turns.crowding(10.0, 10.2, 10.0) == {"pressure_percent": 2.0, "busy": False}
    assert turns.crowding(10.0, 11.0, 10.0) == {"pressure_percent": 10.0, "busy": True}
    assert turns.crowding(None, None, 10.0) == {"pressure_percent": None, "busy": None}


def test_only_the_turns_count_as_busy(monkeypatch, heard):
    waited = iter([0.0, 0.0])
    monkeypatch.setattr(turns, "stalled_seconds", lambda: heard.append(("pressure", "", "")) or next(waited))
    turns.take_turns([turns.Rival(Spoken("a", heard))], ["step"], 1)
    assert [call for call, _, _ in heard] == ["warm_up", "pressure", "repeat", "pressure"]
