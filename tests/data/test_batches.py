"""Batches: every image as often as it should, normalised, with its number."""

import pytest
import torch

from saccade.data.augment import Augment
from saccade.data.batches import eval_batches, train_batches

PLAIN = Augment()


@pytest.fixture
def data(dataset_of):
    return dataset_of(n=40)


def epoch_of(data, batch_size, **options):
    return list(train_batches(data, batch_size, **({"seed": 0, "epoch": 0, "augment": PLAIN} | options)))


def numbers(batches):
    return torch.cat([batch.index for batch in batches]).tolist()


def test_an_epoch_without_dropping_sees_every_image_once(data):
    batches = epoch_of(data, 16, drop_last=False)
    assert [len(batch) for batch in batches] == [16, 16, 8]
    assert sorted(numbers(batches)) == list(range(40))


def test_full_batches_alone_leave_out_the_end_of_the_order(data):
    batches = epoch_of(data, 16)
    assert [len(batch) for batch in batches] == [16, 16]
    assert numbers(batches) == numbers(epoch_of(data, 16, drop_last=False))[:32]


def test_other_images_sit_out_in_other_epochs(data):
    out = [frozenset(range(40)) - set(numbers(epoch_of(data, 16, epoch=epoch))) for epoch in range(5)]
    assert len(set(out)) == 5


def test_the_order_depends_on_seed_and_epoch_alone(data):
    assert numbers(epoch_of(data, 8)) == numbers(epoch_of(data, 20))
    assert numbers(epoch_of(data, 8)) != numbers(epoch_of(data, 8, seed=1))
    assert numbers(epoch_of(data, 8)) != numbers(epoch_of(data, 8, epoch=1))


def test_images_and_labels_belong_to_their_numbers(data):
    for batch in epoch_of(data, 8):
        assert torch.equal(batch.labels, data.train.labels[batch.index])
        pixels = data.train.images.centre(batch.index, (8, 8)).double() / 255
        mean, std = (torch.tensor(side, dtype=torch.float64)[:, None, None] for side in (data.mean, data.std))
        assert torch.allclose(batch.images.double(), (pixels - mean) / std, atol=1e-5)
        assert batch.images.dtype == torch.float32
        assert batch.targets is None


def test_mixed_images_carry_mixed_targets(data):
    for batch in epoch_of(data, 8, augment=Augment(mixup=1.0)):
        assert batch.targets.shape == (8, 3)
        assert torch.allclose(batch.targets.sum(dim=1), torch.ones(8))
        assert torch.equal(batch.labels, data.train.labels[batch.index])


def test_an_epoch_is_the_same_however_it_is_batched(data):
    options = {"augment": Augment(crop_padding=2, flip=0.5, cutmix=1.0), "drop_last": False}
    one, other = (torch.cat([batch.images for batch in epoch_of(data, size, **options)]) for size in (7, 40))
    assert torch.equal(one, other)


@pytest.mark.parametrize("batch_size", [1, 9, 10, 100])
def test_evaluation_sees_every_image_once_in_order(data, batch_size):
    batches = list(eval_batches(data.test, data, batch_size))
    assert numbers(batches) == list(range(10))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), data.test.labels)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_evaluation_of_nothing_is_no_batch(data):
    assert list(eval_batches(data.test.select(torch.tensor([], dtype=torch.int64)), data, 4)) == []


@pytest.mark.parametrize("batch_size", [0, -1, 41])
def test_batches_that_cannot_be_full_are_refused_at_once(data, batch_size):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size} on 40 training images: must be 1..40"):
        train_batches(data, batch_size, seed=0, epoch=0, augment=PLAIN)


def test_a_batch_larger_than_the_data_is_the_data_where_none_is_dropped(data):
    assert [len(batch) for batch in epoch_of(data, 100, drop_last=False)] == [40]


def test_evaluation_needs_a_batch_size(data):
    with pytest.raises(ValueError, match="batch_size=0"):
        eval_batches(data.test, data, 0)


def test_training_images_have_mean_zero_and_deviation_one():
    from saccade.data.sources import load_data

    digits = load_data("digits", img_size=8)
    images = torch.cat([batch.images for batch in eval_batches(digits.train, digits, 500)]).double()
    assert abs(images.mean()) < 1e-6
    assert abs(images.std(correction=0) - 1) < 1e-5
