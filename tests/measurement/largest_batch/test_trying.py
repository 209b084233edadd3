"""Trying ends at what fits while one image more does not, both seen twice; a crash is never taken for too large."""

from dataclasses import asdict

import pytest

from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.largest_batch import trying
from saccade.measurement.largest_batch.trying import Tried, attempts, find_by_trying
from saccade.measurement.subject import Subject

SUBJECT = Subject(model="vit_nano_patch1_8")


def fitting(most):
    return lambda batch: Tried(batch_size=batch, fits=batch <= most, reason="ok" if batch <= most else "out of memory")


def seen(trials):
    return [(one.batch_size, one.fits) for one in trials.tried]


def test_what_was_predicted_rightly_is_tried_twice_on_both_sides():
    trials = find_by_trying(fitting(84), near=84)
    assert (trials.batch_size, trials.next_fits, trials.error) == (84, "never", None)
    assert seen(trials) == [(84, True), (85, False), (84, True), (85, False)]


@pytest.mark.parametrize("near", [1, 50, 83, 85, 300])
def test_from_a_wrong_prediction_the_search_goes_on_to_the_truth(near):
    trials = find_by_trying(fitting(84), near)
    assert (trials.batch_size, trials.next_fits) == (84, "never")
    assert seen(trials)[-2:] == [(84, True), (85, False)]


def test_where_not_one_image_fits_that_is_tried_twice():
    trials = find_by_trying(fitting(0), near=3)
    assert (trials.batch_size, trials.next_fits) == (0, "never")
    assert seen(trials)[-2:] == [(1, False), (1, False)]


@pytest.mark.parametrize("reason", ["failed", "timed out"])
def test_what_says_nothing_about_memory_ends_the_search_with_its_own_message(reason):
    def attempt(batch):
        if batch <= 10:
            return fitting(84)(batch)
        return Tried(batch_size=batch, fits=None, reason=reason, because=f"{reason}: it was I")

    trials = find_by_trying(attempt, near=10)
    assert (trials.batch_size, trials.next_fits) == (None, None)
    assert trials.error == f"batch_size=11: {reason}: it was I"
    assert seen(trials) == [(10, True), (11, None)]


def test_what_fits_only_now_and_then_does_not_fit():
    times = []

    def attempt(batch):
        times.append(batch)
        return fitting(84 if times.count(84) == 1 else 83)(batch)

    trials = find_by_trying(attempt, near=84)
    assert (trials.batch_size, trials.next_fits) == (83, "at times")


def test_one_image_more_that_fits_the_second_time_is_not_hidden():
    times = []

    def attempt(batch):
        times.append(batch)
        return fitting(85 if times.count(85) == 2 else 84)(batch)

    trials = find_by_trying(attempt, near=84)
    assert (trials.batch_size, trials.next_fits) == (84, "at times")


class Process(Worker):
    """In place of a worker: what it would answer, and what it was given."""

    given = ()
    answer: object = None

    def __init__(self, serve, options, *, threads, patience_seconds):
        type(self).given = (serve, options, threads, patience_seconds)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def ready(self):
        return None

    def ask(self, call):
        if isinstance(self.answer, WorkerFailed):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "fits", "reason"),
    [
        ({"peak_bytes": 100, "baseline_bytes": 50, "optimiser_steps": 2}, True, "ok"),
        ({"peak_bytes": 101, "baseline_bytes": 50, "optimiser_steps": 2}, False, "out of memory"),
        (WorkerFailed("out of memory", "not enough memory"), False, "out of memory"),
        (WorkerFailed("killed", "SIGKILL"), False, "killed"),
        (WorkerFailed("failed", "ValueError: a typo"), None, "failed"),
        (WorkerFailed("timed out", "too long"), None, "timed out"),
    ],
)
def test_only_lack_of_memory_means_that_it_does_not_fit(monkeypatch, answer, fits, reason):
    monkeypatch.setattr(trying, "Worker", Process)
    monkeypatch.setattr(Process, "answer", answer)
    heard = []
    tried = attempts(SUBJECT, True, 100, patience_seconds=5.0, heard=heard.append)(7)
    assert (tried.batch_size, tried.fits, tried.reason) == (7, fits, reason)
    assert heard == [tried]
    serve, options, threads, patience_seconds = Process.given
    assert (threads, patience_seconds) == (1, 5.0)
    assert options == {"subject": {**asdict(SUBJECT), "batch_size": 7}, "training": True, "budget_bytes": 100}
    assert serve == "saccade.measurement.largest_batch.batch_worker:Trial"
