"""A reconstruction shows what was predicted, beside what was there, and the same mask to every model."""

import pytest
import torch
from torch.nn import functional

from saccade.data.draws import uniform
from saccade.models.embed import patchify
from saccade.models.sizes import create_model
from saccade.training.reconstructed import Normalisation, check_alike, reconstruct, unpatchify, with_mask_ratio

SIZES = {"img_size": (8, 12), "patch_size": (2, 3), "embed_dim": 16, "depth": 1, "num_heads": 2}
DECODER = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
COLOURS = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def made(attention="softmax", **options):
    decoder = {} if options.get("objective") == "simmim" else DECODER
    return create_model("mae_nano_patch1_8", attention, **{**SIZES, **decoder, "in_chans": 3, **options})


def pictures(count=3, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 8, 12), generator=generator).byte()


def by_hand(model, images):
    """Prediction and mask by the model itself, of pictures that torchvision's formula normalises."""
    mean, std = (torch.tensor(side)[:, None, None] for side in (COLOURS.mean, COLOURS.std))
    normal = (images / 255 - mean) / std
    noise = uniform(0, 0, torch.arange(len(images)), "mask", 16)
    with torch.no_grad():
        return normal, model.eval()(normal, noise, details=True)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_pixels_are_those_that_the_model_predicts(norm_pix_loss):
    model, images = made(norm_pix_loss=norm_pix_loss), pictures()
    found = reconstruct(model, images, COLOURS)
    normal, expected = by_hand(model, images)
    for number in range(3):
        for patch in range(16):
            top, left = 2 * (patch // 4), 3 * (patch % 4)
            there = normal[number, :, top : top + 2, left : left + 3]
            # Row, column, channel.
            pixels = expected.pred[number, patch].view(2, 3, 3).permute(2, 0, 1)
            if norm_pix_loss:
                pixels = pixels * (there.var() + 1e-6).sqrt() + there.mean()
            mean, std = (torch.tensor(side)[:, None, None] for side in (COLOURS.mean, COLOURS.std))
            wanted = (255 * (pixels * std + mean)).clamp(0, 255)
            shown = found.predicted[number, :, top : top + 2, left : left + 3]
            assert (shown - wanted).abs().max() < 0.51
            hidden = found.hidden[number, top : top + 2, left : left + 3]
            assert hidden.all() if expected.mask[number, patch] else not hidden.any()


def test_visible_pixels_are_the_originals_and_hidden_ones_the_predictions():
    images = pictures()
    found = reconstruct(made(), images, COLOURS)
    hidden = found.hidden[:, None].expand_as(images)
    assert hidden.float().mean() == 0.75
    assert torch.equal(found.pasted[~hidden], images[~hidden])
    assert torch.equal(found.pasted[hidden], found.predicted[hidden])
    assert not torch.equal(found.pasted[hidden], images[hidden])


@pytest.mark.parametrize("options", [{}, {"norm_pix_loss": True}, {"objective": "simmim"}], ids=str)
def test_the_loss_is_that_of_training_and_the_means_is_that_of_predicting_zeros(options):
    model, images = made(**options), pictures()
    found = reconstruct(model, images, COLOURS)
    assert found.absolute is (model.objective == "simmim")
    _, expected = by_hand(model, images)
    torch.testing.assert_close(found.loss.mean(), expected.loss, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
        model.decoder_pred.bias.zero_()
    _, zeros = by_hand(model, images)
    torch.testing.assert_close(found.mean_loss.mean(), zeros.loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(reconstruct(model, images, COLOURS).loss, found.mean_loss, atol=1e-6, rtol=1e-6)


def test_a_constant_prediction_shows_the_mean_colour():
    model = made()
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
        model.decoder_pred.bias.zero_()
    found = reconstruct(model, pictures(), COLOURS)
    assert torch.equal(found.predicted[0, :, 0, 0], torch.tensor([102, 128, 153]).byte())


def test_every_mechanism_sees_the_same_patches():
    images = pictures()
    hidden = [reconstruct(made(name), images, COLOURS, seed=3).hidden for name in ("softmax", "linear", "hydra")]
    assert torch.equal(hidden[0], hidden[1])
    assert torch.equal(hidden[0], hidden[2])


def test_the_mask_is_a_function_of_seed_and_picture():
    model, images = made(), pictures()
    first = reconstruct(model, images, COLOURS, seed=0).hidden
    torch.manual_seed(5)
    assert torch.equal(first, reconstruct(model, images, COLOURS, seed=0).hidden)
    assert torch.equal(first[:2], reconstruct(model, images[:2], COLOURS, seed=0).hidden)
    assert not torch.equal(first, reconstruct(model, images, COLOURS, seed=1).hidden)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = made().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    reconstruct(model, pictures(), COLOURS)
    assert model.training is training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_unpatchify_is_the_way_back():
    images = torch.rand(2, 3, 8, 12)
    patches = patchify(images, (2, 3)).unflatten(2, (3, 6)).transpose(2, 3).flatten(2)
    assert torch.equal(unpatchify(patches, (4, 4), (2, 3)), images)


def test_unpatchify_of_squares_is_torchs_fold():
    patches = torch.rand(2, 6, 12)
    columns = patches.unflatten(2, (4, 3)).transpose(2, 3).flatten(2).transpose(1, 2)
    expected = functional.fold(columns, (4, 6), kernel_size=2, stride=2)
    assert torch.equal(unpatchify(patches, (2, 3), (2, 2)), expected)


def test_another_share_can_be_hidden_with_the_same_weights():
    model = made(seed=4)
    half = with_mask_ratio(model, 0.5)
    assert reconstruct(half, pictures(), COLOURS).hidden.float().mean() == 0.5
    assert all(torch.equal(value, half.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="at least one must be hidden"):
        with_mask_ratio(model, 1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_size": 2}, r"b patch_size=\(2, 2\)"),
        ({"img_size": (8, 6)}, r"a has img_size=\(8, 12\) and b img_size=\(8, 6\)"),
        ({"in_chans": 1}, "b in_chans=1"),
        ({"mask_ratio": 0.5}, "give --mask-ratio"),
    ],
)
def test_models_that_cannot_see_the_same_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        check_alike([made(), made(**options)], ["a", "b"])


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="resize them"):
        reconstruct(made(), pictures(channels=3)[:, :, :, :6], COLOURS)
