"""The procedure by its formulas, on cases worked out by hand, and by simulation of its error rates."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from saccade.reports.statistics import ALPHA, MOST_SEEDS, Difference, differences, holm, paired, verdicts
from saccade.reports.student import probability_below, quantile

SIMULATIONS = 1500


def drawn(rng, accuracies, seeds, images, *, image=1.5, taste=0.3, seed=0.1, simulations=SIMULATIONS):
    """Right answers (simulations, m, s, n) of mechanisms whose accuracy over all possible images and seeds is given.

    An answer is right where a sum of normal effects is above 0: of the image, of the image for this mechanism, of the
    seed for this mechanism, and of chance.
    """
    total = math.sqrt(1 + image**2 + taste**2 + seed**2)
    level = np.array([NormalDist().inv_cdf(accuracy) * total for accuracy in accuracies], dtype=np.float32)
    m = len(accuracies)

    def effect(scale, *shape):
        return np.float32(scale) * rng.standard_normal((simulations, *shape), dtype=np.float32)

    score = level[:, None, None] + effect(image, 1, 1, images) + effect(taste, m, 1, images)
    return score + effect(seed, m, seeds, 1) + effect(1, m, seeds, images) > 0


def at_most(count, rate):
    """Whether so many of SIMULATIONS agree with a true rate of `rate` or less (three binomial standard deviations)."""
    return count <= SIMULATIONS * rate + 3 * math.sqrt(SIMULATIONS * rate * (1 - rate))


# Mechanisms, seeds, images, and how much seeds differ: from "only the images matter" to "only the seeds do".
CASES = [(2, 3, 360, 0.0), (2, 3, 360, 0.3), (2, 5, 500, 0.1), (6, 3, 360, 0.1), (6, 3, 500, 0.4), (4, 5, 360, 0.2)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_truly_equal_mechanisms_are_rarely_called_different(case):
    m, s, n, seed = case
    found = verdicts(paired(drawn(np.random.default_rng(1), [0.9] * m, s, n, seed=seed)), 1.0)
    # At most 2.5 % of comparisons call any mechanism better, and still fewer call any worse.
    assert at_most((found == "better").any(-1).sum(), ALPHA)
    assert at_most((found == "worse").any(-1).sum(), ALPHA)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mechanisms_worse_by_just_the_margin_are_rarely_passed_or_condemned(case):
    m, s, n, seed = case
    found = verdicts(paired(drawn(np.random.default_rng(2), [0.9] + [0.89] * (m - 1), s, n, seed=seed)), 1.0)
    passed = (found == "not worse") | (found == "better")
    assert at_most(passed.any(-1).sum(), ALPHA)
    assert at_most((found == "worse").any(-1).sum(), ALPHA)


def test_the_interval_holds_the_true_difference_at_least_as_often_as_it_says():
    table = paired(drawn(np.random.default_rng(3), [0.9, 0.88], 3, 360, seed=0.3))
    reach = quantile(1 - ALPHA, table.degrees(3)) * table.standard_error(3)
    assert at_most((np.abs(table.difference + 0.02) > reach).sum(), 2 * ALPHA)


def test_true_differences_are_found():
    found = verdicts(
        paired(drawn(np.random.default_rng(4), [0.8, 0.7, 0.88, 0.8], 5, 2000, seed=0.02, simulations=200)), 4.0
    )
    worse, better, equal = found.T
    # The power of this case, as simulated: nearly always found, for each of the three.
    assert (worse == "worse").mean() > 0.95
    assert (better == "better").mean() > 0.95
    assert (equal == "not worse").mean() > 0.95


def test_counting_the_images_degrees_of_freedom_in_would_break_the_promise():
    """Why `Paired.degrees` is (M - 1)(S - 1): Welch and Satterthwaite's number calls too many equal pairs different."""
    table = paired(drawn(np.random.default_rng(5), [0.9, 0.9], 3, 2000, image=1.5, taste=0.2, seed=0.3))
    seeds_part = 2 * table.residual[:, 0] / 3
    image_part = table.image_variance[:, 0]
    degrees = (seeds_part + image_part) ** 2 / (seeds_part**2 / 2 + image_part**2 / 1999)
    t = np.abs(table.difference[:, 0]) / table.standard_error(3)[:, 0]
    whole = np.minimum(np.maximum(degrees.round(), 1), 30)
    called = sum((probability_below(t[whole == number], number) > 1 - ALPHA).sum() for number in range(1, 31))
    assert not at_most(called, 2 * ALPHA)
    assert at_most((probability_below(t, 2) > 1 - ALPHA).sum(), 2 * ALPHA)


def test_the_standard_error_is_the_protocols():
    correct = np.random.default_rng(6).random((3, 4, 50)) < np.array([0.9, 0.8, 0.7])[:, None, None]
    table = paired(correct)
    accuracy = correct.mean(-1)
    residual = sum(
        (accuracy[m, s] - accuracy[m].mean() - accuracy[:, s].mean() + accuracy.mean()) ** 2
        for m in range(3)
        for s in range(4)
    ) / (2 * 3)
    b = np.mean([(correct[2, s] & ~correct[0, s]).sum() for s in range(4)])
    c = np.mean([(~correct[2, s] & correct[0, s]).sum() for s in range(4)])
    expected = 2 * residual / 4 + (b + c) / 50**2 - (b - c) ** 2 / 50**3
    assert table.standard_error(4)[1] ** 2 == pytest.approx(expected)
    assert table.difference[1] == pytest.approx(accuracy[2].mean() - accuracy[0].mean())
    assert table.degrees(4) == 6
    one = differences(correct, 1.0)[1]
    half = 100 * quantile(0.975, 6) * math.sqrt(expected)
    assert (one.low_points, one.high_points) == (pytest.approx(one.points - half), pytest.approx(one.points + half))


def test_holm_multiplies_the_smallest_most_and_never_falls():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([[0.5, 0.9], [0.02, 0.001]])) == pytest.approx(np.array([[1.0, 1.0], [0.02, 0.002]]))


def answers(*wrong, seeds=3, images=1000):
    """A model each that gets the first `wrong` images wrong, at every seed."""
    return np.stack([np.tile(np.arange(images) >= count, (seeds, 1)) for count in wrong])


def test_the_first_question_answered_with_yes_names_the_verdict():
    found = differences(answers(100, 300, 20, 101, 110), 1.0)
    assert [one.verdict for one in found] == ["worse", "better", "not worse", "undecided"]
    assert [one.points for one in found] == pytest.approx([-20, 8, -0.1, -1])


def test_a_gain_smaller_than_the_margin_is_better():
    (one,) = differences(answers(1000, 970, images=10_000), 1.0)
    assert (one.verdict, one.points) == ("better", pytest.approx(0.3))


def test_models_that_answer_alike_are_not_worse():
    (one,) = differences(answers(100, 100), 1.0)
    assert one == Difference(0.0, 0.0, 0.0, "not worse", None)


def test_a_verdict_never_contradicts_the_interval():
    for correct in drawn(np.random.default_rng(7), [0.9, 0.9, 0.87, 0.93], 3, 360, simulations=25):
        for one in differences(correct, 1.0):
            assert one.verdict != "worse" or one.high_points < -1
            assert one.verdict != "better" or one.low_points > 0
            assert one.verdict != "not worse" or one.low_points > -1


def test_undecided_says_how_many_seeds_would_decide():
    correct = drawn(np.random.default_rng(8), [0.9, 0.9], 3, 20_000, seed=0.2, simulations=1)[0]
    (one,) = differences(correct, 1.0)
    assert one.verdict == "undecided"
    assert 3 < one.seeds_needed < MOST_SEEDS
    assert f"about {one.seeds_needed:.0f} seeds" in one.remedy
    table = paired(correct[None])
    assert verdicts(table, 1.0, one.seeds_needed) != "undecided"
    assert verdicts(table, 1.0, one.seeds_needed - 1) == "undecided"


def test_a_test_set_that_is_too_small_is_said():
    (one,) = differences(drawn(np.random.default_rng(9), [0.9, 0.9], 3, 40, simulations=1)[0], 1.0)
    assert one.verdict == "undecided"
    assert math.isinf(one.seeds_needed)
    assert one.remedy == "no number of seeds decides: the test set is too small"


def test_more_seeds_than_anybody_has_are_no_advice():
    assert Difference(0.0, -1.0, 1.0, "undecided", MOST_SEEDS + 1.0).remedy == "more than 1,000 seeds would be needed"
    assert Difference(0.0, -1.0, 1.0, "not worse").remedy == ""


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_give_neither_interval_nor_verdict(seeds):
    (one,) = differences(answers(100, 300, seeds=seeds), 1.0)
    assert one.points == pytest.approx(-20)
    assert one.low_points is one.high_points is one.verdict is one.seeds_needed is None


def test_softmax_alone_differs_from_nothing():
    assert differences(answers(100), 1.0) == []
