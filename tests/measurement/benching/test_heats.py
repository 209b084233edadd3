"""Rivals share memory while they rest, and softmax is in every heat."""

import pytest

from saccade.measurement.benching.heats import Weight, heats

SOFTMAX = Weight("softmax", 1, 10, baseline=True)


def weights(*peaks):
    return [SOFTMAX, *(Weight(name, 1, peak) for name, peak in zip("abcd", peaks, strict=False))]


@pytest.mark.parametrize("free", [None, 15])
def test_all_are_timed_together_where_they_fit_or_nothing_is_known(free):
    assert heats(weights(10, 10, 10, 10), free) == [["softmax", "a", "b", "c", "d"]]


def test_a_heat_ends_before_resting_rivals_and_one_in_its_turn_would_not_fit():
    assert heats(weights(10, 10, 10, 10), 14) == [["softmax", "a", "b", "c"], ["softmax", "d"]]
    assert heats(weights(10, 12, 10, 10), 14) == [["softmax", "a"], ["softmax", "b"], ["softmax", "c", "d"]]


def test_who_fits_with_nobody_else_is_alone_with_softmax():
    assert heats(weights(90, 90), 14) == [["softmax", "a"], ["softmax", "b"]]


def test_an_unknown_peak_counts_as_rest():
    assert heats(weights(None, None), 13) == [["softmax", "a", "b"]]


def test_softmax_alone_is_one_heat_and_nobody_is_none_too_many():
    assert heats([SOFTMAX], 1) == [["softmax"]]
    assert heats([], 1) == [[]]


def test_a_heat_keeps_the_order_asked_for():
    late = [Weight("a", 1), SOFTMAX, Weight("b", 1)]
    assert heats(late, None) == [["a", "softmax", "b"]]
