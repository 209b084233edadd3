"""The clock counts every call, and a warm-up ends."""

import time

import torch

from saccade.measurement import clock

CPU = torch.device("cpu")


class Ticking:
    """Stands for the time module and for what is timed: time passes in calls only, each costing the next of `costs`."""

    def __init__(self, costs):
        self.costs = iter(costs)
        self.calls = 0
        self.now = 0.0

    def __call__(self):
        self.calls += 1
        self.now += next(self.costs)

    def perf_counter(self):
        return self.now

    def process_time(self):
        return 2 * self.now


def ticking(monkeypatch, costs) -> Ticking:
    act = Ticking(costs)
    monkeypatch.setattr(clock, "time", act)
    return act


def test_a_lap_is_the_mean_of_its_calls(monkeypatch):
    act = ticking(monkeypatch, [1.0, 2.0, 3.0])
    assert clock.lap(act, 3, CPU) == clock.Lap(seconds=2.0, cpu_seconds=4.0)
    assert act.calls == 3


def test_processor_time_is_taken_where_asked_for(monkeypatch):
    assert clock.lap(ticking(monkeypatch, [1.0]), 1, CPU, "cpu") == clock.Lap(seconds=2.0, cpu_seconds=2.0)


def test_a_warm_up_goes_on_until_it_gets_no_faster(monkeypatch):
    warm = clock.warm_up(ticking(monkeypatch, [9.0, 2.0, 1.5, 1.01, 1.0, 1.3, 7.0]), CPU)
    assert [lap.seconds for lap in warm.laps] == [9.0, 2.0, 1.5, 1.01, 1.0, 1.3]
    assert warm.steady


def test_noise_alone_does_not_keep_a_warm_up_going(monkeypatch):
    warm = clock.warm_up(ticking(monkeypatch, [1.0, 2.0, 1.0, 2.0, 1.0]), CPU)
    assert warm.steady
    assert len(warm.laps) == 3


def test_a_warm_up_that_never_settles_ends_and_says_so(monkeypatch):
    warm = clock.warm_up(ticking(monkeypatch, [0.9**lap for lap in range(50)]), CPU)
    assert not warm.steady
    assert len(warm.laps) == clock.MOST_LAPS


def test_a_long_warm_up_ends_by_time(monkeypatch):
    warm = clock.warm_up(ticking(monkeypatch, [100 * 0.9**lap for lap in range(50)]), CPU)
    assert len(warm.laps) == clock.LAST_LAPS + 2
    assert not warm.steady


def test_a_repeat_of_short_calls_has_many_and_of_long_ones_a_single_one(monkeypatch):
    act = ticking(monkeypatch, [0.004] * 1000)
    warm = clock.warm_up(act, CPU)
    assert warm.calls == round(clock.REPEAT_SECONDS / 0.004)
    assert act.calls == 2 + warm.calls * (len(warm.laps) - 2)
    assert len(warm.laps) > 2
    assert clock.warm_up(ticking(monkeypatch, [5.0] * 9), CPU).calls == 1


def test_a_clock_too_coarse_for_one_call_does_no_harm(monkeypatch):
    warm = clock.warm_up(ticking(monkeypatch, [0.0, 0.0, *[1e-7] * 10**6]), CPU)
    assert warm.calls > 1


def test_the_clock_waits_for_a_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    device = torch.device("mps")
    clock.lap(lambda: waited.append("call"), 2, device)
    assert waited == [device, "call", "call", device]


def test_real_time_passes():
    assert clock.lap(lambda: time.sleep(0.01), 2, CPU).seconds >= 0.01
