import pytest
import torch
from torch import nn

from saccade.data.batches import eval_batches
from saccade.data.sources import load_data
from saccade.training.evaluate import evaluate


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", img_size=(8, 8))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))


def by_hand(model, digits):
    (batch,) = eval_batches(digits.test, digits, len(digits.test), "cpu")
    with torch.no_grad():
        return model.eval()(batch.images), batch.labels


@pytest.mark.parametrize("batch_size", [1, 7, 256, 360, 1000])
def test_every_image_counts_once_whatever_the_batch(digits, model, batch_size):
    found = evaluate(model, digits.test, digits, batch_size=batch_size)
    logits, labels = by_hand(model, digits)
    assert torch.equal(found.correct, logits.argmax(1) == labels)
    assert found.top1_percent == 100 * (logits.argmax(1) == labels).double().mean()
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits.double(), labels).item(), rel=1e-6)


def test_top5_counts_the_right_class_among_five(digits, model):
    found = evaluate(model, digits.test, digits)
    logits, labels = by_hand(model, digits)
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert found.top5_percent == 100 * (rank < 5).double().mean()


def test_with_five_classes_there_is_no_top5(digits):
    five = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    few = digits.test.select(torch.nonzero(digits.test.labels < 5)[:, 0])
    found = evaluate(five, few, digits)
    assert found.top5_correct is None
    assert found.top5_percent is None


def test_the_models_mode_stays_as_it_was(digits, model):
    for mode in (True, False):
        model.train(mode)
        evaluate(model, digits.validation, digits)
        assert model.training is mode


def test_correct_answers_are_bits_first_image_first(digits, model):
    found = evaluate(model, digits.test, digits)
    bits = bin(int(found.correct_hex, 16))[2:].zfill(360)
    assert [bit == "1" for bit in bits] == found.correct.tolist()


def test_a_part_without_images_is_refused(digits, model):
    with pytest.raises(ValueError, match="has no images"):
        evaluate(model, digits.test.select(torch.arange(0)), digits)


def test_autocast_changes_little(digits, model):
    plain, cast = (evaluate(model, digits.test, digits, amp_dtype=one) for one in (None, "bf16"))
    assert cast.loss != plain.loss
    assert cast.loss == pytest.approx(plain.loss, rel=0.02)
