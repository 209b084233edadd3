"""Who is set aside depends on names and classes alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.splits import name_keys, set_aside

NAMES = [f"cat/{i}.jpg" for i in range(200)]
LABELS = torch.arange(200) % 4


@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0.05, 0.4))
def test_each_class_gives_its_share_and_the_sum_is_exact(sizes, share):
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    count = max(1, round(share * len(labels)))
    stays, taken = set_aside(labels, name_keys([str(i) for i in range(len(labels))]), count, "test")
    assert len(taken) == count
    assert torch.equal(torch.cat([stays, taken]).sort().values, torch.arange(len(labels)))
    for label, size in enumerate(sizes):
        assert abs(int((labels[taken] == label).sum()) - size * count / len(labels)) < 1


def test_the_order_of_the_pictures_does_not_matter():
    keys, order = name_keys(NAMES), torch.randperm(200)
    _, taken = set_aside(LABELS, keys, 40, "test")
    _, shuffled = set_aside(LABELS[order], keys[order], 40, "test")
    assert torch.equal(order[shuffled].sort().values, taken)


def test_a_new_picture_moves_at_most_one_of_its_class():
    keys = name_keys([*NAMES, "cat/new.jpg"])
    labels = torch.cat([LABELS, torch.tensor([0])])
    before = set(set_aside(LABELS, keys[:-1], 40, "test")[1].tolist())
    after = set(set_aside(labels, keys, 40, "test")[1].tolist())
    assert len(before ^ after) <= 2


def test_other_purposes_take_others():
    keys = name_keys(NAMES)
    assert not torch.equal(set_aside(LABELS, keys, 40, "test")[1], set_aside(LABELS, keys, 40, "validation")[1])


def test_the_test_pictures_of_today_are_those_of_tomorrow():
    _, taken = set_aside(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), name_keys(list("abcdefgh")), 2, "test")
    assert taken.tolist() == [2, 7]


def test_classes_of_one_leave_it_to_the_others():
    labels = torch.tensor([0, 1, 2, 3, *[4] * 6, *[5] * 6])
    _, taken = set_aside(labels, name_keys([str(i) for i in range(16)]), 8, "test")
    assert labels[taken].bincount(minlength=6).tolist() == [0, 0, 0, 0, 4, 4]


def test_every_class_keeps_one():
    with pytest.raises(ValueError, match="every class keeps one"):
        set_aside(torch.tensor([0, 1]), name_keys(["a", "b"]), 1, "test")


def test_names_that_are_no_text_have_keys():
    assert len(set(name_keys(["a", "b", "ä", "\udcff"]).tolist())) == 4
