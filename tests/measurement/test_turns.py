"""Rivals take turns, everything they say is kept, and who fails is left out."""

import pytest

from saccade.measurement import turns
from saccade.measurement.isolate import Worker, WorkerFailed


class Spoken(Worker):
    """Stands for a worker: writes down what it is asked, and fails where it is told to."""

    def __init__(self, name, heard, fails_at=None, reason="killed", **more):
        self.process = self.name = name
        self.heard, self.fails_at, self.reason, self.more, self.closed = heard, fails_at, reason, more, False

    def ready(self):
        self.ask("ready")

    def ask(self, call, what=""):
        assert not self.closed
        self.heard.append((call, what, self.name))
        if self.fails_at in (call, f"{call} {what}"):
            raise WorkerFailed(self.reason, "by the test")
        one = {"seconds": 1.5, "cpu_seconds": 2.5}
        return {"facts": {"kernel_run": self.name}, "repeat": one}.get(
            call, {"laps": [one, one], "steady": True, "calls": 4, **self.more}
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


def test_everybody_is_warm_before_anything_counts_and_one_thing_is_done_before_the_next_begins(heard):
    turns.take_turns([turns.Rival(Spoken(name, heard)) for name in "ab"], ["step", "latency"], 2)
    assert [(call, what) for call, what, _ in heard] == [
        (call, what) for what in ("step", "latency") for call in ["warm_up"] * 2 + ["repeat"] * 4
    ]


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
def test_who_is_killed_is_left_out_and_the_others_go_on(heard, fails_at):
    broken, whole = turns.Rival(Spoken("a", heard, fails_at)), turns.Rival(Spoken("b", heard))
    broken.get_ready()
    turns.take_turns([broken, whole], ["step"], 2)
    assert (broken.error, broken.worker.closed) == ("killed: by the test", True)
    assert "step_seconds" not in broken.values
    assert whole.error is None
    assert len(whole.values["step_seconds"]) == 2


def test_who_has_no_memory_for_one_thing_is_timed_at_the_others(heard):
    rival = turns.Rival(Spoken("a", heard, "repeat step", "out of memory"))
    turns.take_turns([rival], ["forward", "step", "latency"], 2)
    assert rival.failed == {"step": "out of memory: by the test"}
    assert rival.error == "out of memory: by the test"
    assert [len(rival.values[f"{what}_seconds"]) for what in ("forward", "latency")] == [2, 2]
    # It is not asked again.
    assert heard.count(("repeat", "step", "a")) == 1


@pytest.mark.parametrize("reason", ["killed", "timed out"])
def test_what_was_measured_before_a_process_was_gone_is_kept(heard, reason):
    rival = turns.Rival(Spoken("a", heard, "warm_up step", reason))
    turns.take_turns([rival], ["forward", "step", "latency"], 2)
    assert rival.failed == {"step": f"{reason}: by the test"}
    assert len(rival.values["forward_seconds"]) == 2
    assert ("warm_up", "latency", "a") not in heard


def test_compiling_is_told_apart_from_the_times(heard):
    rival = turns.Rival(Spoken("a", heard, compile_seconds=7.5, graph_breaks=2))
    turns.take_turns([rival], ["step"], 1)
    assert (rival.values["warmup_step_compile_seconds"], rival.values["step_graph_breaks"]) == (7.5, 2)
    assert rival.values["step_seconds"] == [1.5]


def test_who_does_not_compile_is_marked_and_not_timed(heard):
    rival = turns.Rival(Spoken("a", heard, does_not_compile="Unsupported: a loop"))
    turns.take_turns([rival], ["step"], 2)
    assert rival.failed == {"step": "does not compile: Unsupported: a loop"}
    assert rival.values == {}
    assert not rival.worker.closed


def test_a_busy_machine_is_marked():
    assert turns.crowding([0.1, 0.1], 10.0) == {"pressure_percent": 2.0, "busy": False}
    assert turns.crowding([0.5, 0.5], 10.0) == {"pressure_percent": 10.0, "busy": True}
    assert turns.crowding([0.5, None], 10.0) == {"pressure_percent": None, "busy": None}


def test_only_the_turns_count_as_busy(monkeypatch, heard):
    waited = iter([0.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(turns, "stalled_seconds", lambda: heard.append(("pressure", "", "")) or next(waited))
    turns.take_turns([turns.Rival(Spoken("a", heard))], ["step", "latency"], 1)
    assert [call for call, _, _ in heard] == ["warm_up", "pressure", "repeat", "pressure"] * 2
