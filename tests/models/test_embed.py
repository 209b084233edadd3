"""Patches, the convolutional stem and fixed positions, each against code that is not ours."""

import pytest
import torch
from tests.peers import timm  # noqa: F401
from torch.testing import assert_close

from saccade.attention.initial import seeded
from saccade.models.embed import ConvStem, PatchEmbed, patchify, sine_positions

SHAPES = [((32, 32), (4, 4), 3), ((24, 16), (8, 2), 1), ((14, 21), (7, 7), 5), ((8, 8), (1, 1), 2)]


@pytest.mark.parametrize(("img_size", "patch_size", "in_chans"), SHAPES)
def test_a_patch_embedding_is_the_convolution_of_its_weight(img_size, patch_size, in_chans):
    embed = PatchEmbed(img_size, patch_size, in_chans, 12).double()
    images = torch.randn(2, in_chans, *img_size, dtype=torch.float64, requires_grad=True)
    tokens = embed(images)
    expected = embed.proj(images).flatten(2).transpose(1, 2)
    assert_close(tokens, expected)
    weights = torch.randn_like(tokens)
    ours = torch.autograd.grad((tokens * weights).sum(), (images, embed.proj.weight))
    theirs = torch.autograd.grad((expected * weights).sum(), (images, embed.proj.weight))
    assert_close(ours, theirs)


def test_patches_come_in_raster_order_and_run_channel_row_column():
    images = torch.arange(2 * 4 * 4).reshape(1, 2, 4, 4).float()
    assert patchify(images, (2, 2))[0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


@pytest.mark.parametrize(("img_size", "patch_size"), [((30, 32), (4, 4)), ((32, 30), (4, 4))])
def test_a_patch_that_does_not_divide_the_image_is_refused_with_those_that_do(img_size, patch_size):
    with pytest.raises(ValueError, match=r"img_size 3\d x 3\d with patch_size 4 x 4.*1, 2, 3, 5, 6, 10, 15, 30"):
        PatchEmbed(img_size, patch_size, 3, 8)


def test_the_stem_has_the_parameters_of_its_original():
    stem = ConvStem((32, 32), (1, 1), 3, 128)
    assert sum(parameter.numel() for parameter in stem.parameters()) == 93_248


def test_the_stem_makes_a_token_of_every_pixel_in_raster_order():
    stem = ConvStem((4, 6), (1, 1), 2, 8).double()
    images = torch.randn(1, 2, 4, 6, dtype=torch.float64)
    changed = images.clone()
    changed[0, :, 0, 5] += 1
    touched = (stem(images) - stem(changed)).abs().sum(-1)[0].reshape(4, 6) > 0
    # Three 3 x 3 convolutions reach three pixels far.
    assert torch.equal(touched, torch.tensor([[False, False, True, True, True, True]]).expand(4, 6))


@pytest.mark.parametrize(
    ("patch_size", "width", "words"), [((2, 2), 8, "patch_size must be 1"), ((1, 1), 6, "multiple of 4")]
)
def test_the_stem_refuses_what_it_cannot_do(patch_size, width, words):
    with pytest.raises(ValueError, match=words):
        ConvStem((8, 8), patch_size, 3, width)


def test_sine_positions_are_those_of_timm_in_the_order_of_mae():
    from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed

    wave_by_axis = build_sincos2d_pos_embed([3, 5], 16).reshape(15, 2, 2, 4)
    column_then_row_then_wave = wave_by_axis.flip(2).transpose(1, 2).reshape(15, 16)
    assert_close(sine_positions((3, 5), 16, 15), column_then_row_then_wave)


def test_sine_positions_leave_zeros_for_the_tokens_before_the_patches():
    table = sine_positions((2, 2), 8, 6)
    assert table.shape == (6, 8)
    assert table[:2].abs().sum() == 0
    assert_close(table[2:], sine_positions((2, 2), 8, 4))


def test_sine_positions_need_a_width_of_four_parts():
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions((2, 2), 6, 4)


@pytest.mark.parametrize("make", [PatchEmbed, ConvStem])
def test_the_start_is_that_of_a_torch_convolution_and_a_function_of_the_seed(make):
    layers = [make((8, 8), (1, 1), 3, 64) for _ in range(2)]
    for layer in layers:
        layer.reset_parameters(seeded(3))
    for (name, one), other in zip(layers[0].named_parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(one, other), name
    last = dict(layers[0].named_modules())["proj" if make is PatchEmbed else "conv3"]
    bound = last.weight[0].numel() ** -0.5
    assert 0.9 * bound < last.weight.abs().max() <= bound
    assert 0.5 * bound < last.bias.abs().max() <= bound


def test_flops_are_two_for_each_weight_at_each_place():
    assert PatchEmbed((8, 12), (4, 4), 3, 16).flops() == 2 * 6 * 48 * 16
    assert ConvStem((4, 4), (1, 1), 3, 16).flops() == 2 * 16 * 9 * (3 * 4 + 4 * 8 + 8 * 16)
