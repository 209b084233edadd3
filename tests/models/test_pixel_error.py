"""The error of pixels, a few images at a time, against torch's."""

import pytest
import torch
from torch.testing import assert_close

import saccade
from saccade.models import pixel_error
from saccade.models.pixel_error import tiled_error

ERRORS = {False: torch.nn.functional.mse_loss, True: torch.nn.functional.l1_loss}


def values(seed, dtype=torch.float64):
    return torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("images", [1, 2, 5])
def test_value_and_gradient_are_torch_s_however_many_images_at_a_time(absolute, images, monkeypatch):
    monkeypatch.setattr(pixel_error, "TILE_BYTES", images * 3 * 7 * 8)
    ours, theirs, true, asked = values(0).requires_grad_(), values(0).requires_grad_(), values(1), []

    def targets(few):
        asked.append(len(true[few]))
        return true[few]

    error = tiled_error(ours, targets, absolute)
    (3 * error).backward()
    wanted = ERRORS[absolute](theirs, true)
    (3 * wanted).backward()
    assert_close(error, wanted)
    assert_close(ours.grad, theirs.grad)
    assert max(asked) == images
    assert sum(asked) == 5


@pytest.mark.parametrize("absolute", [False, True])
def test_in_bf16_the_error_is_summed_in_float32_and_the_gradient_is_bf16(absolute):
    ours, theirs = (values(0, torch.bfloat16).requires_grad_() for _ in range(2))
    true = values(1, torch.float32)
    error = tiled_error(ours, lambda few: true[few], absolute)
    error.backward()
    wanted = ERRORS[absolute](theirs.float(), true)
    wanted.backward()
    assert error.dtype == torch.float32
    assert_close(error, wanted)
    assert torch.equal(ours.grad, theirs.grad)


def test_the_gradient_may_be_asked_for_twice():
    ours, true = values(0).requires_grad_(), values(1)
    error = tiled_error(ours, lambda few: true[few], False)
    first, second = (torch.autograd.grad(error, ours, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("options", [{}, {"norm_pix_loss": True, "patch_size": 2}, {"objective": "simmim"}])
def test_a_model_in_training_and_in_eval_mode_has_the_same_loss_and_gradients(options):
    model = saccade.create_model("mae_nano_patch1_8", seed=0, **options)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(4, model.tokens.patches, generator=torch.Generator().manual_seed(1))
    found = {}
    for mode in (True, False):
        loss = model.train(mode)(images, noise).loss
        found[mode] = [loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)]
    assert_close(found[True], found[False])
    of_images = [
        torch.autograd.grad(model.train(mode)(x, noise).loss, x)[0]
        for mode in (True, False)
        for x in [images.clone().requires_grad_()]
    ]
    assert_close(*of_images)
