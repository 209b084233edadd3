"""Crops are the pixels of the picture, and resized ones are Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.boxes import DRAWS, Boxes, middle_boxes, random_boxes
from saccade.data.crops import flipped, padded_crops, resized_crops
from saccade.data.draws import uniform

SIZES = {"one shape": ((16, 16),), "three shapes": ((16, 16), (16, 20), (24, 16))}
INDEX = torch.tensor([5, 0, 17, 3, 3, 29, 11])


@pytest.fixture(params=SIZES, ids=str)
def pictures(request, dataset_of):
    return dataset_of(n=30, sizes=SIZES[request.param]).train.images


def test_padded_crops_are_slices_of_the_padded_picture(pictures):
    drawn = uniform(0, 0, INDEX, "crop", 2)
    crops = padded_crops(pictures, INDEX, drawn, (16, 16), 4)
    for crop, i, (row, column) in zip(crops, INDEX.tolist(), drawn, strict=True):
        wide = torch.nn.functional.pad(pictures[i], (4, 4, 4, 4))
        top, left = int(row * (wide.shape[1] - 15)), int(column * (wide.shape[2] - 15))
        assert torch.equal(crop, wide[:, top : top + 16, left : left + 16])


def test_padded_crops_reach_every_place(dataset_of):
    pictures = dataset_of(n=1, sizes=((4, 4),), img_size=(4, 4), classes=2).train.images
    index = torch.zeros(3000, dtype=torch.int64)
    crops = padded_crops(pictures, index, torch.rand(3000, 2), (4, 4), 1)
    assert len(crops.flatten(1).unique(dim=0)) == 9


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(16, 16), (7, 11), (40, 33)], ids=str)
def test_resized_crops_are_pillows(pictures, interpolation, size):
    drawn = uniform(1, 2, INDEX, "resized crop", DRAWS)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    crops = resized_crops(pictures, INDEX, drawn, size, scale, ratio, interpolation)
    heights, widths = pictures.heights[INDEX], pictures.widths[INDEX]
    boxes, found = random_boxes(drawn, heights, widths, scale, ratio)
    fallback = middle_boxes(heights, widths, ratio)
    for place, i in enumerate(INDEX.tolist()):
        top, left, height, width = (int(side[place]) for side in (boxes if found[place] else fallback))
        whole = Image.fromarray(pictures[i].permute(1, 2, 0).numpy())
        kind = Image.Resampling[interpolation.upper()]
        theirs = whole.crop((left, top, left + width, top + height)).resize(size[::-1], kind)
        difference = crops[place].permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs)
        # On noise; a box that is one pixel off differs by dozens.
        assert np.abs(difference).mean() < 0.6
        assert abs(difference.mean()) < 0.1


def test_shrunk_crops_are_antialiased(dataset_of):
    pictures = dataset_of(n=1, sizes=((64, 64),), classes=2).train.images
    pictures.pixels.copy_(torch.tensor([0, 255], dtype=torch.uint8).repeat(3 * 64 * 32))
    drawn = torch.full((1, DRAWS), 0.5)
    crop = resized_crops(pictures, torch.tensor([0]), drawn, (8, 8), (1.0, 1.0), (1.0, 1.0), "bicubic")
    assert (crop[:, :, 1:-1, 1:-1].float() - 127.5).abs().max() < 2


def test_grey_pictures_are_cropped_too(dataset_of):
    pictures = dataset_of(n=5, channels=1).train.images
    index = torch.arange(5)
    assert padded_crops(pictures, index, torch.rand(5, 2), (8, 8), 2).shape == (5, 1, 8, 8)
    crops = resized_crops(pictures, index, torch.rand(5, DRAWS), (8, 8), (0.2, 1.0), (1.0, 1.0), "bicubic")
    assert crops.shape == (5, 1, 8, 8)


def test_a_mirror_image_is_turned_left_for_right():
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    turned = flipped(images, torch.tensor([True, False, False, True]))
    assert torch.equal(turned[1:3], images[1:3])
    assert torch.equal(turned[[0, 3]], images[[0, 3]].flip(3))


def test_boxes_of_whole_pictures_keep_every_pixel(pictures):
    heights, widths = pictures.heights, pictures.widths
    whole = Boxes(torch.zeros_like(heights), torch.zeros_like(widths), heights, widths)
    assert all(torch.equal(a, b) for a, b in zip(middle_boxes(heights, widths, (0.1, 10.0)), whole, strict=True))
