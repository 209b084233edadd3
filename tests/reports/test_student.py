import math
import statistics

import numpy as np
import pytest

from saccade.reports.student import probability_below, quantile

# Upper points of Student's t (Fisher & Yates 1963, table III; also NIST's engineering handbook, 1.3.6.7.2).
TABLE = {
    1: {0.90: 3.078, 0.95: 6.314, 0.975: 12.706, 0.99: 31.821},
    2: {0.90: 1.886, 0.95: 2.920, 0.975: 4.303, 0.99: 6.965},
    3: {0.90: 1.638, 0.95: 2.353, 0.975: 3.182, 0.99: 4.541},
    4: {0.90: 1.533, 0.95: 2.132, 0.975: 2.776, 0.99: 3.747},
    5: {0.90: 1.476, 0.95: 2.015, 0.975: 2.571, 0.99: 3.365},
    12: {0.90: 1.356, 0.95: 1.782, 0.975: 2.179, 0.99: 2.681},
    29: {0.90: 1.311, 0.95: 1.699, 0.975: 2.045, 0.99: 2.462},
    30: {0.90: 1.310, 0.95: 1.697, 0.975: 2.042, 0.99: 2.457},
    100: {0.90: 1.290, 0.95: 1.660, 0.975: 1.984, 0.99: 2.364},
}


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_the_tabulated_ones(degrees):
    for probability, t in TABLE[degrees].items():
        assert quantile(probability, degrees) == pytest.approx(t, abs=5.1e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 15])
def test_probabilities_are_the_integral_of_the_density(degrees):
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    grid = np.linspace(0, 2.7, 200_001)
    density = np.exp(log_scale) * (1 + grid**2 / degrees) ** (-(degrees + 1) / 2)
    expected = 0.5 + np.trapezoid(density, grid)
    assert probability_below(np.array([2.7]), degrees) == pytest.approx(expected, abs=1e-9)
    assert probability_below(np.array([-2.7]), degrees) == pytest.approx(1 - expected, abs=1e-9)


def test_many_degrees_are_the_normal_distribution():
    assert quantile(0.975, 1_001) == pytest.approx(statistics.NormalDist().inv_cdf(0.975), abs=3e-3)


def test_no_degree_of_freedom_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        probability_below(np.array([0.0]), 0)
