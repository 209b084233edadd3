"""The search for the largest batch finds it, by few predictions, whatever the bytes look like."""

from hypothesis import assume, given
from hypothesis import strategies as st

from saccade.measurement.largest_batch.largest import FAR, FIRST, MOST, Line, largest, settle

LINES = st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**7)), min_size=1, max_size=4)


def highest(lines):
    """Predictions of a peak that is the highest of several lines."""

    def predict(batch):
        size, rise = max((start + rise * batch, rise) for start, rise in lines)
        return Line(batch, size, rise)

    return predict


def heard(predict, asked):
    return lambda batch: asked.append(batch) or predict(batch)


@given(LINES, st.integers(1, 3 * 10**9))
def test_on_the_highest_of_several_lines_the_answer_is_the_last_that_fits(lines, allowed):
    # Of each line the last batch that fits, by division.
    right = max(min((allowed - start) // rise if start <= allowed else 0 for start, rise in lines), 0)
    assume(right < FAR)
    asked = []
    found = largest(heard(highest(lines), asked), allowed)
    at, more = (highest(lines)(batch).at_bytes for batch in (right, right + 1))
    assert found.batch_size == right
    if right:
        assert right in asked
        assert found.at_bytes == at <= allowed < found.next_bytes <= more
    else:
        assert (found.at_bytes, found.next_bytes, found.bytes_per_image) == (None, more, None)
    # Each line is met once or twice.
    assert len(asked) == len(set(asked)) <= 2 * len(lines) + 2


@given(st.integers(0, 10**9), st.integers(1000, 10**6), st.integers(1, 10**5))
def test_on_one_line_two_or_three_predictions_are_enough(start, rise, answer):
    asked = []
    found = largest(heard(highest([(start, rise)]), asked), start + rise * answer + rise // 2)
    assert (found.batch_size, found.bytes_per_image) == (answer, rise)
    assert found.next_bytes - found.at_bytes == rise
    assert len(asked) <= (2 if answer < FIRST - 1 else 3)
    assert max(asked) <= FAR or start > FAR * rise


@given(st.integers(0, 10**6), st.integers(10**4, 10**6), st.integers(FAR + 1, 10**5))
def test_far_away_the_line_is_that_of_two_predictions_not_a_guess_from_one(start, rise, answer):
    # One prediction takes what is fixed for a part of the images.
    found = largest(lambda batch: Line(batch, start + rise * batch, rise + start / batch / 4), start + rise * answer)
    assert found.batch_size == answer


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=40), st.integers(0, 10**6), st.integers(0, 10**5))
def test_of_bytes_that_rise_and_fall_the_answer_fits_and_was_predicted(sizes, allowed, rise):
    asked = []
    predict = heard(lambda batch: Line(batch, sizes[batch] if batch < len(sizes) else 2 * 10**6, rise), asked)
    found = largest(predict, allowed)
    assert found.at_bytes is None if found.batch_size == 0 else sizes[found.batch_size] <= allowed
    assert found.next_bytes > allowed
    assert len(asked) <= 32


def test_where_the_optimiser_is_the_peak_far_away_the_line_of_the_images_is_looked_for():
    found = largest(highest([(10**9, 1), (0, 10**6)]), 2 * 10**9)
    assert (found.batch_size, found.bytes_per_image) == (2000, 10**6)


def test_where_not_one_image_fits_its_bytes_are_known():
    found = largest(highest([(0, 100)]), 99)
    assert (found.batch_size, found.at_bytes, found.next_bytes, found.bytes_per_image) == (0, None, 100, None)


def test_bytes_that_do_not_grow_end_the_search():
    found = largest(lambda batch: Line(batch, 5, 0.0), 10)
    assert (found.batch_size, found.next_bytes) == (MOST, None)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_trying_finds_the_answer_from_wherever_it_begins(answer, near):
    asked = []
    assert settle(lambda batch: asked.append(batch) or batch <= answer, near) == answer
    assert len(asked) == len(set(asked)) <= 32
    assert min(asked) >= 1


@given(st.integers(1, 10**5))
def test_a_right_guess_takes_two_tries(answer):
    asked = []
    settle(lambda batch: asked.append(batch) or batch <= answer, answer)
    assert asked == [answer, answer + 1]


def test_a_guess_that_is_off_by_one_takes_one_try_more():
    for guess in (99, 101):
        asked = []
        assert settle(lambda batch, asked=asked: asked.append(batch) or batch <= 100, guess) == 100
        assert len(asked) <= 3
