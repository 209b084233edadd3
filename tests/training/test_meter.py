import time

import pytest

from saccade.training.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_a_step_is_the_wait_for_data_and_the_work(clock):
    def batches():
        for _ in range(2):
            clock(0.25)
            yield None

    meter = Meter(epoch=0, steps=2, epochs=1)
    for _ in meter.over(batches()):
        clock(1.0)
        meter.add(2.0)
    assert meter.data_seconds == [0.25, 0.25]
    assert meter.step_seconds == [1.25, 1.25]
    assert meter.full


def test_the_line_tells_of_the_steps_since_the_last(clock):
    meter = Meter(epoch=1, steps=4, epochs=3)
    lines = []
    for number, _ in enumerate(meter.over(range(4))):
        clock(0.1 if number < 2 else 0.5)
        meter.add(float(number))
        if number % 2:
            lines.append(meter.line(1e-3, 3893 * 2**20))
    assert lines == [
        "epoch: [1]  [2/4]  eta: 0:00:01  lr: 0.001  loss: 0.5000  time: 0.1000  data: 0.0000  max mem: 3893",
        "epoch: [1]  [4/4]  eta: 0:00:02  lr: 0.001  loss: 2.5000  time: 0.5000  data: 0.0000  max mem: 3893",
    ]
    assert meter.mean_loss == 1.5
