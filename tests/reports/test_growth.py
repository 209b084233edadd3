"""How a cost grows is fitted to the larger sizes on log axes, and told with what the repeats leave open."""

import math

import numpy as np
import pytest

from saccade.reports.growth import growth

TOKENS = [49, 196, 784, 3136]


@pytest.mark.parametrize(("exponent", "scale"), [(1.0, 2.0), (2.0, 1e-9), (0.0, 1.0), (-0.5, 3.0)])
def test_a_power_law_is_found_exactly(exponent, scale):
    found = growth(TOKENS, [[scale * size**exponent] * 3 for size in TOKENS])
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((exponent, exponent), abs=1e-9)
    assert found.r2 == pytest.approx(1.0)
    assert found.cost(1000) == pytest.approx(scale * 1000**exponent)


def test_slope_and_r2_are_those_of_numpys_line():
    costs = [1.0, 7.0, 20.0, 300.0]
    found = growth([4, 16, 64, 256], [[cost] for cost in costs])
    x, y = np.log([16, 64, 256]), np.log(costs[1:])
    slope, start = np.polyfit(x, y, 1)
    assert found.exponent == pytest.approx(slope)
    assert found.scale == pytest.approx(math.exp(start))
    assert found.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found.tokens == (16, 64, 256)


def test_overhead_of_small_sizes_does_not_pull_the_power_down():
    tokens = [4, 9, 16, 49, 196, 784, 3136]
    found = growth(tokens, [[1.0 + 1e-2 * size**2] for size in tokens])
    assert found.tokens == (49, 196, 784, 3136)
    assert found.exponent == pytest.approx(2.0, abs=0.02)


def test_noisy_repeats_leave_an_interval_around_the_power():
    noise = np.random.default_rng(1)
    costs = [(size**1.5 * np.exp(0.1 * noise.standard_normal(9))).tolist() for size in TOKENS]
    found = growth(TOKENS, costs)
    assert found.low < 1.5 < found.high
    assert found.low < found.exponent < found.high
    assert 0.02 < found.high - found.low < 0.2


def test_bytes_have_no_repeats_and_so_no_interval():
    found = growth(TOKENS, [[size * 8] for size in TOKENS])
    assert found.exponent == pytest.approx(1.0)
    assert found.low is found.high is None


def test_two_sizes_or_a_cost_of_nothing_tell_no_power():
    assert growth([49, 196], [[1.0], [2.0]]) is None
    assert growth([], []) is None
    assert growth([49, 196, 784], [[0], [100], [200]]) is None


def test_a_negative_power_has_a_true_minus():
    assert str(growth(TOKENS, [[1 / size] for size in TOKENS])) == "−1.00"
