"""Random boxes fit, and have the areas and shapes that were asked for."""

import math

import pytest
import torch
from tests.peers import timm  # noqa: F401  (it makes torchvision importable)

from saccade.data.boxes import DRAWS, below, middle_boxes, random_boxes
from saccade.data.draws import uniform

from torchvision.transforms import RandomResizedCrop  # isort: skip


def drawn(n, purpose="boxes"):
    return uniform(0, 0, torch.arange(n), purpose, DRAWS)


def sides(n, height, width):
    return torch.full((n,), height), torch.full((n,), width)


@pytest.mark.parametrize("size", [(32, 32), (20, 50), (1, 1), (3, 300)])
def test_boxes_lie_inside(size):
    boxes, found = random_boxes(drawn(2000), *sides(2000, *size), (0.08, 1.0), (3 / 4, 4 / 3))
    top, left, height, width = (side[found] for side in boxes)
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()


def test_areas_are_uniform_and_shapes_log_uniform():
    # Boxes of at most a quarter of the area always fit, so the first try counts and nothing is selected.
    boxes, found = random_boxes(drawn(20_000), *sides(20_000, 1000, 1000), (0.05, 0.25), (1 / 2, 2.0))
    assert found.all()
    area = (boxes.height * boxes.width) / 1e6
    ratio = (boxes.width / boxes.height).log() / math.log(2)
    for values, low, high in ((area, 0.05, 0.25), (ratio, -1.0, 1.0)):
        assert abs(values.mean() - (low + high) / 2) < 0.01 * (high - low)
        assert abs(values.std() - (high - low) / math.sqrt(12)) < 0.01 * (high - low)


def test_positions_are_uniform():
    boxes, _ = random_boxes(drawn(50_000), *sides(50_000, 8, 8), (0.25, 0.25), (1.0, 1.0))
    assert boxes.height.unique().tolist() == [4]
    for start in (boxes.top, boxes.left):
        assert (start.bincount(minlength=5) / 50_000 - 0.2).abs().max() < 0.01


def test_boxes_are_distributed_as_torchvisions():
    n, size = 1500, (20, 50)
    boxes, found = random_boxes(drawn(n), *sides(n, *size), (0.3, 1.0), (3 / 4, 4 / 3))
    assert found.float().mean() < 1
    ours = torch.stack(
        [torch.where(found, a, b) for a, b in zip(boxes, middle_boxes(*sides(n, *size), (3 / 4, 4 / 3)), strict=True)]
    )
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, (0.3, 1.0), (3 / 4, 4 / 3)) for _ in range(n)]).T
    for one, other in zip(ours.double(), theirs.double(), strict=True):
        error = math.sqrt((one.var() + other.var()) / n)
        assert abs(one.mean() - other.mean()) < 5 * error
        assert abs(one.std() - other.std()) < 5 * error


def test_where_nothing_fits_the_middle_is_taken():
    _, found = random_boxes(drawn(50), *sides(50, 10, 1000), (0.9, 1.0), (3 / 4, 4 / 3))
    assert not found.any()
    middle = middle_boxes(torch.tensor([10, 1000, 30]), torch.tensor([1000, 10, 30]), (3 / 4, 4 / 3))
    assert [side.tolist() for side in middle] == [[0, 493, 0], [493, 0, 0], [10, 13, 30], [13, 10, 30]]


def test_masks_are_true_inside_and_boxes_may_stick_out():
    boxes, _ = random_boxes(drawn(1), *sides(1, 8, 8), (0.25, 0.25), (1.0, 1.0))
    mask = boxes._replace(top=torch.tensor([-2]), left=torch.tensor([5])).masks((8, 8))[0, 0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:2, 5:] = True
    assert torch.equal(mask, expected)


def test_whole_numbers_stay_below_their_end():
    almost_one = torch.tensor(1 - 2.0**-24)
    for end in (1, 2, 3, 7, 1000, 2**20 + 1):
        assert below(almost_one, torch.tensor(end)) == end - 1
        assert below(torch.tensor(0.0), torch.tensor(end)) == 0
