"""What happens to an image depends on seed, epoch and image, and on nothing else."""

import pytest
import torch

from saccade.data.augment import Augment, augment

KINDS = {
    "nothing": Augment(),
    "crop and flip": Augment(crop_padding=2, flip=0.5),
    "resized crop": Augment(resized_crop=(0.2, 1.0), flip=0.5),
    "erasing": Augment(erasing=0.5),
    "mixup": Augment(mixup=0.8, flip=0.5),
    "cutmix": Augment(cutmix=1.0, crop_padding=1),
    "everything": Augment(resized_crop=(0.3, 1.0), flip=0.5, erasing=0.25, mixup=0.8, cutmix=1.0),
}
SHAPES = {"one shape": ((12, 12),), "three shapes": ((12, 12), (12, 16), (20, 12))}
every_kind = pytest.mark.parametrize("kind", KINDS)
WHOLE = torch.arange(40)


@pytest.fixture(params=SHAPES, ids=str)
def data(request, dataset_of):
    return dataset_of(n=40, sizes=SHAPES[request.param], img_size=(12, 12))


def run(data, kind, index=WHOLE, seed=0, epoch=0):
    images, targets = augment(data, index, KINDS[kind], seed=seed, epoch=epoch)
    return images, targets if targets is not None else data.train.labels[index]


@every_kind
def test_an_image_does_not_depend_on_its_batch(data, kind):
    whole, targets = run(data, kind)
    order = torch.randperm(40)
    for some in (order[:7], order[7:], order, WHOLE[5:6]):
        images, labels = run(data, kind, some)
        assert torch.equal(images, whole[some])
        assert torch.equal(labels, targets[some])


@every_kind
@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}], ids=str)
def test_seed_and_epoch_change_what_is_drawn(data, kind, other):
    changed = not torch.equal(run(data, kind)[0], run(data, kind, **other)[0])
    assert changed == (kind != "nothing")


@every_kind
def test_images_have_the_models_size(data, kind):
    images, _ = run(data, kind)
    assert images.shape == (40, 3, 12, 12)
    assert images.dtype == (torch.float32 if KINDS[kind].mixes else torch.uint8)


def test_nothing_is_the_crop_of_evaluation(data):
    assert torch.equal(run(data, "nothing")[0], data.train.images.centre(WHOLE, (12, 12)))


def test_half_of_the_images_are_turned(dataset_of):
    data = dataset_of(n=1000, sizes=((2, 2),), img_size=(2, 2))
    images, _ = augment(data, torch.arange(1000), Augment(flip=0.3), seed=0, epoch=0)
    still = (images == data.train.images.centre(torch.arange(1000), (2, 2))).flatten(1).all(dim=1)
    assert abs(still.float().mean() - 0.7) < 0.04


def test_erased_boxes_have_the_mean_colour(dataset_of):
    data = dataset_of(n=400, sizes=((16, 16),), img_size=(16, 16))
    index = torch.arange(400)
    images, _ = augment(data, index, Augment(erasing=0.25), seed=0, epoch=0)
    changed = (images != data.train.images.centre(index, (16, 16))).any(dim=1)
    assert torch.tensor([128, 102, 76]).eq(images.permute(0, 2, 3, 1)[changed]).all()
    assert abs(changed.flatten(1).any(dim=1).float().mean() - 0.25) < 0.06
    share = changed.flatten(1).float().mean(dim=1)
    assert share[share > 0].min() > 0.01
    assert share.max() < 0.4


def test_the_partner_comes_from_the_whole_training_set(dataset_of):
    data = dataset_of(n=40, sizes=((2, 2),), img_size=(2, 2), classes=10)
    partners = set()
    for epoch in range(20):
        _, targets = augment(data, torch.tensor([0]), Augment(mixup=1.0), seed=0, epoch=epoch)
        partners |= set(targets[0].nonzero()[:, 0].tolist())
    assert len(partners) > 6


def test_the_partner_is_augmented_as_the_epoch_augments_it(dataset_of):
    # As many classes as images: a target tells which two were mixed, and how.
    data = dataset_of(n=10, classes=10)
    options = {"flip": 0.5, "crop_padding": 2}
    alone, _ = augment(data, torch.arange(10), Augment(**options), seed=0, epoch=0)
    images, targets = augment(data, torch.arange(10), Augment(**options, mixup=1.0), seed=0, epoch=0)
    assert (targets > 0).sum() > 16
    expected = torch.einsum("bk,kcyx->bcyx", targets, alone.float())
    assert torch.allclose(images, expected, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5},
        {"flip": -0.1},
        {"flip": float("nan")},
        {"erasing": 2.0},
        {"crop_padding": -1},
        {"mixup": -0.5},
        {"cutmix": float("inf")},
        {"resized_crop": (0.0, 1.0)},
        {"resized_crop": (0.9, 0.1)},
        {"resized_crop": (0.5, 1.5)},
        {"resized_crop": (0.1, 1.0), "resized_ratio": (2.0, 1.0)},
        {"resized_crop": (0.1, 1.0), "crop_padding": 4},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"augment.{next(iter(wrong)).replace('resized_crop', 'resized_')}"):
        Augment(**wrong)
