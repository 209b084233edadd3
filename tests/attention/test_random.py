"""Random attention against torch's masked attention, pair by pair, and its draws against the binomial."""

import io
import math

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.initial import seeded
from saccade.attention.listed import key_lists, listed_attention, most
from saccade.attention.random_pairs import Random

DIM, HEADS = 24, 3
KERNELS = ["auto", "gather", "dense"]


def seeded_layer(text, tokens, seed=0, layer=0):
    made = build(text, DIM, HEADS, tokens, layer=layer).double()
    made.reset_parameters(seeded(seed))
    return made


def listed(layer):
    """The ids that each patch sees, as sets."""
    return [{key for key in row if key >= 0} for row in layer.keys.tolist()]


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_torchs_attention_under_the_saved_mask(kernel, prefix):
    tokens = Tokens((6, 8), prefix)
    layer = lively(f'random(share=0.1,kernel="{kernel}")', DIM, HEADS, tokens)
    x = images(2, tokens.count, DIM).requires_grad_()
    mask = torch.zeros(tokens.count, tokens.count)
    mask[:prefix] = mask[:, :prefix] = 1
    for patch, seen in enumerate(listed(layer)):
        for other in seen:
            mask[prefix + patch, prefix + other] = 1
    assert 0.08 < mask[prefix:, prefix:].mean() < 0.16
    q, k, v = layer.split(x)
    expected = layer.merge(torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.bool()))
    y = layer(x)
    assert_close(y, expected)
    leaves = [x, layer.qkv.weight, layer.proj.weight]
    assert_close(slopes(y, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_visible_subset_keeps_the_pairs_of_its_ids(kernel):
    tokens = Tokens((6, 8), 1)
    layer = lively(f'random(share=0.1,kernel="{kernel}")', DIM, HEADS, tokens)
    x, ids = images(2, 1 + 20, DIM), visible(2, tokens, 20)
    q, k, v = layer.split(x)
    seen = listed(layer)
    rows = torch.zeros_like(q)
    for image in range(2):
        for i in range(21):
            keys = [
                j for j in range(21) if i == 0 or j == 0 or ids[image, j - 1].item() in seen[ids[image, i - 1].item()]
            ]
            for head in range(HEADS):
                scores = k[image, head, keys] @ q[image, head, i] / (DIM // HEADS) ** 0.5
                rows[image, head, i] = scores.softmax(0) @ v[image, head, keys]
    assert_close(layer(x, ids), layer.merge(rows))


def test_hidden_patches_are_as_if_removed_from_the_mask():
    tokens = Tokens((6, 8), 1)
    layer = lively("random(share=0.1)", DIM, HEADS, tokens)
    ids = visible(3, tokens, 20)
    whole = layer.mask(None)[0]
    for image, own in enumerate(ids):
        kept = torch.cat([torch.tensor([0]), own + 1])
        assert torch.equal(layer.mask(ids)[image], whole[kept][:, kept])


def test_no_row_is_empty_and_every_patch_sees_itself_first():
    layer = seeded_layer("random(share=0.01)", Tokens((14, 14), 1))
    assert torch.equal(layer.keys[:, 0], torch.arange(196))
    # Without itself and the prefix, 14 % of the rows would see nothing.
    assert (layer.keys[:, 1] < 0).float().mean() == pytest.approx(0.99**195, abs=0.1)
    assert layer.mask(None)[0].any(1).all()
    assert layer.mask(None)[0, :, 0].all()


@pytest.mark.parametrize(("share", "grid"), [(0.01, (32, 32)), (0.1, (14, 14)), (0.5, (14, 14))])
def test_pairs_are_drawn_with_the_share(share, grid):
    layer = seeded_layer(f"random(share={share})", Tokens(grid))
    others = (layer.keys[:, 1:] >= 0).sum(1).double()
    trials = layer.tokens.patches - 1
    pairs = trials * layer.tokens.patches
    assert others.sum() / pairs == pytest.approx(share, abs=4 * (share * (1 - share) / pairs) ** 0.5)
    assert others.var() == pytest.approx(trials * share * (1 - share), rel=0.35)
    assert not torch.equal(layer.mask(None)[0], layer.mask(None)[0].T)


@pytest.mark.parametrize("mean", [0.05, 1.95, 19.5, 98.0, 600.0])
def test_lists_are_long_enough_but_for_one_row_in_a_million(mean):
    count = most(mean)
    logs = [n * math.log(mean) - mean - math.lgamma(n + 1) for n in range(count + 400)]
    above = [sum(math.exp(log) for log in logs[first:]) for first in (count + 1, count)]
    assert above[0] < 1e-6
    assert above[1] > 1e-8
    assert most(0.0) == 0


def test_the_length_of_a_list_is_the_same_at_every_draw():
    lengths = {seeded_layer("random(share=0.02)", Tokens((14, 14)), seed).keys.shape for seed in range(4)}
    assert lengths == {(196, 1 + most(0.02 * 195))}


def test_a_row_that_is_too_long_loses_its_last_patches_and_never_itself():
    pairs = torch.ones(5, 5, dtype=torch.bool)
    expected = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1], [4, 0, 1]])
    assert torch.equal(key_lists(pairs, 3), expected)
    assert torch.equal(key_lists(torch.zeros(2, 2, dtype=torch.bool), 2), torch.tensor([[0, -1], [1, -1]]))


def test_the_mask_is_saved_and_loaded():
    tokens = Tokens((7, 7), 1)
    layer, other = (seeded_layer("random(share=0.05)", tokens, seed) for seed in (1, 2))
    assert not torch.equal(layer.keys, other.keys)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(layer.mask(None), other.mask(None))
    assert torch.equal(layer(images(1, 50, DIM)), other(images(1, 50, DIM)))


def test_the_mask_is_a_function_of_the_seed_and_stays_when_it_is_evaluated():
    tokens = Tokens((7, 7), 1)
    layer = seeded_layer("random(share=0.05)", tokens, 1)
    before = layer.keys.clone()
    layer.train()(images(1, 50, DIM))
    layer.eval()(images(1, 50, DIM))
    assert torch.equal(layer.keys, before)
    assert torch.equal(layer.keys, seeded_layer("random(share=0.05)", tokens, 1).keys)


def test_another_grid_has_another_draw_which_depends_on_the_layer_alone():
    tokens, wider = Tokens((7, 7), 1), Tokens((9, 8), 1)
    regridded = [
        seeded_layer("random(share=0.05)", tokens, seed, layer).regrid(wider)
        for seed, layer in ((1, 0), (2, 0), (1, 1))
    ]
    assert all(layer.keys.shape == (72, 1 + most(0.05 * 71)) for layer in regridded)
    assert torch.equal(regridded[0].keys, regridded[1].keys)
    assert not torch.equal(regridded[0].keys, regridded[2].keys)
    assert all((layer.keys[:, 1:] >= 0).float().sum() / (72 * 71) > 0.03 for layer in regridded)
    layer = seeded_layer("random(share=0.05)", tokens, 1)
    assert torch.equal(layer.regrid(tokens).keys, layer.keys)


def test_keys_are_gathered_where_the_list_is_short():
    assert not build("random", DIM, HEADS, Tokens((14, 14), 1)).gathers(196)
    long = build("random(share=0.001)", DIM, HEADS, Tokens((32, 32), 1))
    assert long.gathers(1024)
    assert long.mix_flops(1024, 1025) == 4 * DIM * (1025 + 1024 * (1 + long.longest()))
    assert not build('random(share=0.001,kernel="dense")', DIM, HEADS, Tokens((32, 32), 1)).gathers(1024)
    assert build('random(kernel="gather")', DIM, HEADS, Tokens((14, 14), 1)).gathers(196)
    # A list as long as the patches saves nothing.
    assert not build('random(share=0.9,kernel="gather")', DIM, HEADS, Tokens((3, 3), 1)).gathers(9)


def test_the_dense_kernel_declares_every_pair():
    layer = build("random", DIM, HEADS, Tokens((14, 14), 1))
    assert layer.mix_flops(196, 197) == build("softmax", DIM, HEADS, Tokens((14, 14), 1)).mix_flops(196, 197)


def test_the_function_alone_takes_one_list_for_all_images_or_one_each():
    q, k, v = (images(2 * 3, 7, 4, seed).unflatten(0, (2, 3)) for seed in range(3))
    places = torch.tensor([[0, 2, -1], [1, -1, -1], [2, 0, 5], [3, 4, -1], [4, -1, -1], [5, 1, -1]])
    y = listed_attention(q, k, v, 1, places[None])
    assert_close(listed_attention(q, k, v, 1, places.expand(2, -1, -1)), y)
    assert_close(
        y[:, :, 2],
        torch.nn.functional.scaled_dot_product_attention(q[:, :, 2:3], k[:, :, [0, 2]], v[:, :, [0, 2]])[:, :, 0],
    )
    assert_close(y[:, :, 0], torch.nn.functional.scaled_dot_product_attention(q, k, v)[:, :, 0])


def test_parameters_are_four_projections():
    layer = build("random", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_is_between_nothing_and_all(share):
    with pytest.raises(ValueError, match=r"random\(share=.*\): share must be a number above 0 and below 1"):
        Random(DIM, HEADS, Tokens((3, 4)), share=share)


def test_all_pairs_are_refused_as_softmax():
    with pytest.raises(ValueError, match="softmax under another name"):
        build("random(share=1.0)", DIM, HEADS, Tokens((3, 4)))


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"random\(kernel=.sparse.\)"):
        build('random(kernel="sparse")', DIM, HEADS, Tokens((3, 4)))
