"""Pictures of one shape and of many behave alike, and share their bytes."""

import pytest
import torch

from saccade.data.pictures import Pictures


@pytest.fixture(params=[((8, 8),), ((8, 8), (8, 10), (12, 8))], ids=["one shape", "three shapes"])
def pictures(request, dataset_of):
    return dataset_of(n=12, sizes=request.param).train.images


def test_a_picture_is_where_it_was_put():
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    made = Pictures.of(images)
    assert len(made) == 5
    assert made.shape == (4, 6)
    assert all(torch.equal(made[i], images[i]) for i in range(5))


def test_a_selection_keeps_the_order_and_shares_the_bytes(pictures):
    some = pictures.select(torch.tensor([7, 2, 2]))
    assert [torch.equal(some[i], pictures[j]) for i, j in enumerate([7, 2, 2])] == [True] * 3
    assert some.pixels.data_ptr() == pictures.pixels.data_ptr()


def test_shapes_that_differ_have_no_common_shape(pictures, dataset_of):
    assert dataset_of(sizes=((8, 8), (8, 10))).train.images.shape is None
    assert pictures.select(torch.tensor([0, 3])).shape == (8, 8)
    assert pictures.select(torch.tensor([], dtype=torch.int64)).shape is None


def test_the_middle_is_cut_out_of_each(pictures):
    index = torch.tensor([3, 1, 2, 0, 11])
    cut = pictures.centre(index, (6, 4))
    for place, i in enumerate(index.tolist()):
        top, left = (pictures[i].shape[1] - 6) // 2, (pictures[i].shape[2] - 4) // 2
        assert torch.equal(cut[place], pictures[i][:, top : top + 6, left : left + 4])


def test_the_middle_of_a_selection_is_that_of_the_selected(pictures):
    some = pictures.select(torch.tensor([9, 3, 6]))
    assert torch.equal(some.centre(torch.tensor([2, 0]), (6, 6)), pictures.centre(torch.tensor([6, 9]), (6, 6)))


def test_a_picture_without_room_for_the_middle_is_refused(pictures):
    with pytest.raises(ValueError, match="hold no middle"):
        pictures.centre(torch.tensor([0]), (9, 9))


def test_pictures_of_one_shape_among_others_are_found(dataset_of):
    pictures = dataset_of(n=9, sizes=((8, 8), (5, 7), (8, 8))).train.images
    alike = pictures.select(torch.tensor([0, 2, 3, 5, 6, 8]))
    cut = alike.centre(torch.tensor([5, 0, 3]), (8, 8))
    assert [torch.equal(cut[place], pictures[i]) for place, i in enumerate((8, 0, 5))] == [True] * 3
