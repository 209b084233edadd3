"""What stays in processes is asked of all of them at once, and one that dies of an attention is replaced."""

import pytest

from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.largest_batch import foretelling
from saccade.measurement.largest_batch.foretelling import Foretellers
from saccade.measurement.memory.baseline import Baselines
from saccade.measurement.subject import Subject

NAMES = ["softmax", "linear", "deadly", "lambda", "xca"]


class Process(Worker):
    """In place of a worker: dies of "deadly"."""

    started = 0

    def __init__(self, serve, options, *, threads, patience_seconds):
        type(self).started += 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def ready(self):
        pass

    def ask(self, call, /, *, subjects):
        names = [one["attention"] for one in subjects]
        if "deadly" in names:
            raise WorkerFailed("killed", "it was the second")
        return [[len(names) * 100 + place, place] for place, _ in enumerate(names)]


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(Process, "started", 0)
    monkeypatch.setattr(foretelling, "Worker", Process)
    return Process


def test_each_process_weighs_its_share_behind_softmax(processes):
    with Foretellers(2, 60.0) as foretellers:
        told = foretellers.baselines([Subject(model="vit_nano_patch1_8", attention=name) for name in NAMES])
    # One process has softmax, linear and lambda; the other dies of its share, and counts it as softmax.
    assert told == {
        "softmax": Baselines(300, 0),
        "linear": Baselines(301, 1),
        "lambda": Baselines(302, 2),
        "deadly": Baselines(100, 0),
        "xca": Baselines(100, 0),
    }
    assert processes.started == 3


def test_where_softmax_itself_fails_that_is_told(processes):
    with Foretellers(1, 60.0) as foretellers, pytest.raises(WorkerFailed, match="it was the second"):
        foretellers.baselines([Subject(model="vit_nano_patch1_8", attention="deadly")])
