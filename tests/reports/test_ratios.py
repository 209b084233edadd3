import numpy as np
import pytest

from saccade.reports.ratios import Ratio, cost_ratio


def test_a_slow_phase_of_the_machine_cancels():
    slow = [1.0, 1.0, 3.0, 3.0, 1.5]
    ratio = cost_ratio([0.7 * seconds for seconds in slow], slow)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.7, 0.7, 0.7))


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(100):
        ours, softmax = 0.8 * np.exp(0.05 * rng.standard_normal((2, 15)) + np.log([[1.0], [1 / 0.8]]))
        ratio = cost_ratio(ours.tolist(), softmax.tolist(), seed=trial)
        held += ratio.low <= 0.8 <= ratio.high
    # 95 % of 100; four standard deviations are 9.
    assert held >= 86


def test_the_same_repeats_give_the_same_interval():
    rng = np.random.default_rng(1)
    ours, softmax = rng.uniform(1, 2, (2, 7)).tolist()
    assert cost_ratio(ours, softmax) == cost_ratio(ours, softmax)


def test_two_repeats_give_no_interval():
    assert cost_ratio([1.0, 1.0], [2.0, 2.0]) == Ratio(0.5)


def test_unlike_numbers_of_repeats_and_worthless_costs_are_refused():
    with pytest.raises(ValueError, match="same number"):
        cost_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="same number"):
        cost_ratio([], [])
    with pytest.raises(ValueError, match="0 or less"):
        cost_ratio([0.0], [1.0])


def test_cheaper_and_dearer_need_more_than_chance_and_more_than_a_tenth():
    assert Ratio(0.8, 0.7, 0.9).cheaper
    assert not Ratio(0.95, 0.94, 0.96).cheaper
    assert not Ratio(0.8, 0.6, 1.05).cheaper
    assert Ratio(1.2, 1.1, 1.3).dearer
    assert not Ratio(1.05, 1.04, 1.06).dearer
    assert not Ratio(1.2, 0.9, 1.5).dearer
