"""What is left out of a prediction is left out of nothing else."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from saccade.attention.elsewhere import in_turn, one_for_all

TILES = [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 13)]


def test_all_tiles_of_tensors_with_values_are_computed_though_a_prediction_is_being_made():
    with one_for_all():
        assert list(in_turn(TILES, torch.ones(13, 2), ())) == TILES


def test_of_tensors_without_values_two_tiles_of_each_size_are():
    with FakeTensorMode(), one_for_all():
        assert list(in_turn(TILES, torch.ones(13, 2), (torch.empty(13, 3),))) == [TILES[0], TILES[1], TILES[3]]
    with FakeTensorMode():
        assert list(in_turn(TILES, torch.ones(13, 2), ())) == TILES


def test_tiles_over_several_axes_are_told_apart_by_all_of_them():
    tiles = [(slice(0, 2), slice(start, start + 2)) for start in range(0, 7, 2)]
    with FakeTensorMode(), one_for_all():
        assert list(in_turn(tiles, torch.ones(2, 7), ())) == [tiles[0], tiles[1], tiles[3]]
