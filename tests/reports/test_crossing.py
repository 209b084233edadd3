"""Where a mechanism meets softmax is found on log axes; where it does not, that is said."""

import pytest

from saccade.reports.crossing import EVERYWHERE, LIKE_SOFTMAX, NEVER_DEARER, NOWHERE, crossing
from saccade.reports.ratios import Ratio


def power(tokens, meets, slope):
    """Ratios (N / meets)^slope, which pass 1 at `meets`."""
    return [Ratio((size / meets) ** slope) for size in tokens]


@pytest.mark.parametrize("meets", [50, 197, 1000, 3000])
@pytest.mark.parametrize("slope", [-1, -0.3, 0.7])
def test_a_power_law_is_found_exactly_between_the_sizes(meets, slope):
    tokens = [49, 196, 784, 3136]
    (found,) = crossing(tokens, power(tokens, meets, slope)).tokens
    assert found == pytest.approx(meets)


def test_only_the_two_sizes_around_it_count():
    ratios = [Ratio(5.0), Ratio(2.0), Ratio(0.5), Ratio(0.01)]
    assert crossing([10, 100, 400, 1000], ratios).tokens == pytest.approx((200,))


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([0.9, 0.5, 0.2], EVERYWHERE),
        ([0.5, 0.95, 0.95], NEVER_DEARER),
        ([0.95, 0.5, 0.2], NEVER_DEARER),
        ([1.0, 1.5, 2.0], NOWHERE),
        ([1.05, 1.2, 1.01], NOWHERE),
        ([0.92, 0.95, 0.99], LIKE_SOFTMAX),
        ([1.02, 1.09, 1.0], LIKE_SOFTMAX),
        ([2.0, 2.0, 0.5], "from 200"),
        ([0.5, 2.0, 2.0], "up to 20"),
        ([2.0, 0.5, 2.0], "from 20 to 200"),
        ([0.5, 2.0, 0.5], "up to 20 and from 200"),
    ],
)
def test_where_it_is_cheaper_is_said(ratios, words):
    found = crossing([10, 40, 1000], list(map(Ratio, ratios)))
    assert found.words == words
    assert bool(found.tokens) == any(sign in words for sign in ("from", "up to"))


def test_large_numbers_are_rounded_to_what_is_known():
    assert crossing([196, 12544], [Ratio(2.0), Ratio(0.4)]).words == "from 1,200"


def test_the_ends_of_the_intervals_bound_the_crossing():
    tokens = [100, 400]
    ratios = [Ratio(2.0, 1.5, 3.0), Ratio(0.5, 0.4, 0.8)]
    found = crossing(tokens, ratios)
    low, high = (crossing(tokens, list(map(Ratio, ends))).tokens[0] for ends in ((1.5, 0.4), (3.0, 0.8)))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low < found.tokens[0] < found.high


def test_towards_dearer_the_bounds_are_in_order_too():
    found = crossing([100, 400], [Ratio(0.5, 0.4, 0.8), Ratio(2.0, 1.5, 3.0)])
    assert found.low < found.tokens[0] < found.high


@pytest.mark.parametrize(
    "ratios",
    [
        [Ratio(2.0), Ratio(0.5)],
        [Ratio(2.0, 1.5, 3.0), Ratio(0.9, 0.8, 1.2)],
        [Ratio(1.2, 0.9, 1.5), Ratio(0.5, 0.4, 0.6)],
    ],
)
def test_without_both_ends_there_are_no_bounds(ratios):
    found = crossing([100, 400], ratios)
    assert len(found.tokens) == 1
    assert found.low is found.high is None


@pytest.mark.parametrize("tokens", [[], [4], [16, 4], [4, 4]])
def test_sizes_ascend_and_have_a_ratio_each(tokens):
    with pytest.raises(ValueError, match="ascending sizes"):
        crossing(tokens, [Ratio(1.0)] * 2)
