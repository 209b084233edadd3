from functools import partial

import pytest
import torch

import saccade
from saccade.data.batches import Batch
from saccade.data.draws import uniform
from saccade.training.objective import Classification

LABELS = torch.tensor([3, 1, 4])


def batch(targets=None, index=(5, 6, 7)):
    torch.manual_seed(0)
    return Batch(torch.randn(3, 1, 8, 8), LABELS, targets, torch.tensor(index))


def model(**options):
    return saccade.create_model("vit_nano_patch1_8", **options).train()


def loss(made, given, smoothing=0.0, seed=0):
    return Classification(smoothing)(made, given, partial(uniform, seed, 0, given.index))


def by_hand(made, given, targets):
    return -(targets * made.eval()(given.images).log_softmax(1)).sum(1).mean()


def one_hot():
    return torch.nn.functional.one_hot(LABELS, 10).float()


def test_it_is_the_cross_entropy_with_the_labels():
    made = model()
    torch.testing.assert_close(loss(made, batch()), by_hand(made, batch(), one_hot()))


def test_mixed_targets_take_the_place_of_labels():
    made, targets = model(), torch.rand(3, 10).softmax(1)
    torch.testing.assert_close(loss(made, batch(targets)), by_hand(made, batch(), targets))


@pytest.mark.parametrize("mixed", [False, True])
def test_label_smoothing_spreads_a_share_over_all_classes(mixed):
    made, targets = model(), one_hot()
    wanted = 0.8 * targets + 0.2 / 10
    found = loss(made, batch(targets if mixed else None), smoothing=0.2)
    torch.testing.assert_close(found, by_hand(made, batch(), wanted))


def test_stochastic_depth_is_a_function_of_seed_and_image():
    made = model(drop_path_rate=0.5, depth=4)
    with torch.no_grad():
        torch.nn.init.normal_(made.head.weight)
    torch.manual_seed(1)
    first = loss(made, batch())
    torch.manual_seed(2)
    assert torch.equal(first, loss(made, batch()))
    assert not torch.equal(first, loss(made, batch(index=(8, 9, 10))))
    assert not torch.equal(first, loss(made, batch(), seed=1))


def test_a_bf16_model_gets_bf16_images_and_gives_a_float32_loss():
    made = model().to(torch.bfloat16)
    found = loss(made, batch())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(model(), batch()).item(), rel=0.02)
