"""Global attention against torch's masked attention, with the mask written from its definition."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.global_tokens import Global, global_attention

DIM, HEADS = 24, 3
SDPA = torch.nn.functional.scaled_dot_product_attention


def mask_of(tokens, global_ids):
    """g_i or g_j, and the diagonal."""
    g = torch.zeros(tokens.count, dtype=torch.bool)
    g[: tokens.prefix] = True
    g[[tokens.prefix + id_ for id_ in global_ids]] = True
    return g[:, None] | g[None, :] | torch.eye(tokens.count, dtype=torch.bool)


@pytest.mark.parametrize(
    ("options", "prefix", "global_ids"),
    [
        ("every=0", 2, []),
        ("every=3", 0, [9, 12, 27 + 6, 27 + 9]),
        ("every=3", 1, [9, 12, 33, 36]),
        ("every=4,patches=(0,47)", 1, [0, 18, 22, 47]),
        ("every=0,patches=(5,)", 0, [5]),
    ],
)
def test_it_is_torchs_attention_under_its_mask(options, prefix, global_ids):
    tokens = Tokens((6, 8), prefix)
    if options == "every=3":
        global_ids = [8 * row + column for row in (1, 4) for column in (1, 4, 7)]
    layer = lively(f"global({options})", DIM, HEADS, tokens)
    x, mask = images(2, tokens.count, DIM).requires_grad_(), mask_of(tokens, global_ids)
    expected = layer.merge(SDPA(*layer.split(x), attn_mask=mask))
    y = layer(x)
    assert_close(y, expected)
    leaves = [x, layer.qkv.weight, layer.proj.weight]
    assert_close(slopes(y, leaves), slopes(expected, leaves))
    assert torch.equal(layer.mask(None)[0], mask)


@pytest.mark.parametrize("count", [1, 2, 20])
def test_of_visible_patches_those_are_global_that_are_global_on_the_grid(count):
    tokens = Tokens((6, 8), 1)
    layer = lively("global(every=3)", DIM, HEADS, tokens)
    x, ids = images(3, 1 + count, DIM).requires_grad_(), visible(3, tokens, count)
    mask = mask_of(tokens, layer.global_ids.tolist())
    kept = torch.cat([torch.zeros(3, 1, dtype=torch.long), ids + 1], dim=1)
    own = mask[kept[:, :, None], kept[:, None, :]]
    # The images have different numbers of global patches.
    assert count < 20 or len(set(own[:, 1:].all(2).sum(1).tolist())) > 1
    expected = layer.merge(SDPA(*layer.split(x), attn_mask=own[:, None]))
    y = layer(x, ids)
    assert_close(y, expected)
    assert_close(slopes(y, [x, layer.qkv.weight]), slopes(expected, [x, layer.qkv.weight]))


def test_more_places_than_visible_patches_are_no_matter():
    tokens = Tokens((6, 8))
    layer = lively("global(every=2)", DIM, HEADS, tokens)
    ids = torch.tensor([[0, 9, 11], [0, 1, 2], [9, 11, 13]])
    x = images(3, 3, DIM)
    mask = mask_of(tokens, layer.global_ids.tolist())[ids[:, :, None], ids[:, None, :]]
    assert_close(layer(x, ids), layer.merge(SDPA(*layer.split(x), attn_mask=mask[:, None])))


def test_a_patch_that_is_not_global_sees_itself():
    layer = build("global(every=0)", DIM, HEADS, Tokens((3, 4), 1))
    assert layer.reach()[1:, 1:].equal(torch.eye(12, dtype=torch.bool))
    assert layer.reach()[0].all()


def test_without_global_patches_it_sees_a_set():
    assert build("global(every=0)", DIM, HEADS, Tokens((3, 4), 1)).order_free
    assert not build("global(every=3)", DIM, HEADS, Tokens((3, 4), 1)).order_free
    assert not build("global(every=0,patches=(1,))", DIM, HEADS, Tokens((3, 4), 1)).order_free


def test_no_square_of_scores_is_computed():
    tokens = Tokens((14, 14), 1)
    layer = build("global", DIM, HEADS, tokens)
    assert layer.global_ids.tolist() == [14 * row + column for row in (2, 6, 10) for column in (2, 6, 10)]
    assert layer.mix_flops(196, 197) == 4 * DIM * 10 * (196 + 197)
    assert layer.mix_flops(4, 5) == 4 * DIM * 5 * 9


def test_named_patches_move_with_the_grid():
    layer = build("global(every=0,patches=(0,13,195))", DIM, HEADS, Tokens((14, 14), 1))
    assert layer.regrid(Tokens((7, 7), 1)).global_ids.tolist() == [0, 6, 48]
    assert layer.regrid(Tokens((28, 28), 1)).global_ids.tolist() == [28 + 1, 28 + 27, 28 * 27 + 27]
    assert layer.regrid(Tokens((14, 14), 1)).global_ids.tolist() == [0, 13, 195]
    assert build("global", DIM, HEADS, Tokens((14, 14))).regrid(Tokens((7, 6))).global_ids.tolist() == [14, 38]


def test_places_that_are_not_there_are_not_seen():
    q, k, v = (images(2 * 3, 5, 4, seed).unflatten(0, (2, 3)) for seed in range(3))
    places, there = torch.tensor([[2, 0]]), torch.tensor([[True, False]])
    mask = mask_of(Tokens((1, 4), 1), [2])
    assert_close(global_attention(q, k, v, 1, places, there), SDPA(q, k, v, attn_mask=mask))


def test_parameters_are_four_projections_and_nothing_more_is_saved():
    layer = build("global", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM
    assert set(layer.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}


def test_a_layer_without_global_tokens_is_refused():
    with pytest.raises(ValueError, match="has no global token: no patch would see another"):
        build("global(every=0)", DIM, HEADS, Tokens((3, 4)))


@pytest.mark.parametrize("options", ["every=1", "every=0,patches=(0,1,2,3,4,5)"])
def test_half_of_the_patches_are_refused(options):
    with pytest.raises(ValueError, match=r"of 12 patches global: half of them is as much work as softmax"):
        build(f"global({options})", DIM, HEADS, Tokens((3, 4), 1))
    build("global(every=0,patches=(0,1,2,3,4))", DIM, HEADS, Tokens((3, 4), 1))


@pytest.mark.parametrize("patches", [(-1,), (0, True)])
def test_named_patches_are_ids(patches):
    with pytest.raises(ValueError, match=r"global\(patches=.*\): patches must be ids, whole numbers of at least 0"):
        Global(DIM, HEADS, Tokens((3, 4)), patches=patches)


def test_named_patches_are_on_the_grid():
    with pytest.raises(ValueError, match=r"names a patch that is not there: ids on a grid of 12 patches are 0..11"):
        build("global(patches=(12,))", DIM, HEADS, Tokens((3, 4), 1))


def test_the_spacing_is_a_whole_number():
    with pytest.raises(ValueError, match="every must be a whole number of at least 0"):
        Global(DIM, HEADS, Tokens((3, 4)), every=-1)


@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (1, 4), (2, 2), (3, 5), (14, 14), (1, 50)])
def test_the_proposed_options_are_not_refused(grid):
    tokens = Tokens(grid, 1)
    layer = Global(DIM, HEADS, tokens, **Global.options_for(tokens, tokens.patches))
    assert layer.refusal(tokens.patches) is None or grid in ((1, 2), (2, 1))
