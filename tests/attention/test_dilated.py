"""Dilated attention against timm's grid partition of MaxViT, and torch's attention with a mask made pair by pair."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.attention.dense import DIM, HEADS, SIZES, agrees, agrees_in_half_precision_where, largest_tensor, mask_of
from tests.peers import timm
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.buckets import takes_buckets
from saccade.attention.dilated import Dilated, dilated_attention, dilated_cover


def steps(k):
    return lambda y, x, v, u: abs(y - v) in range(0, 100, k) and abs(x - u) in range(0, 100, k)


@pytest.mark.parametrize(("grid", "k"), [((14, 14), 2), ((12, 18), 3), ((8, 20), 4)])
def test_it_is_the_grid_attention_of_maxvit(grid, k):
    maxxvit = timm.models.maxxvit
    layer = lively(f"dilated(k={k})", DIM, HEADS, Tokens(grid))
    x = images(2, grid[0] * grid[1], DIM).requires_grad_()
    size = [side // k for side in grid]
    groups = [maxxvit.grid_partition(y.transpose(1, 2).flatten(2).unflatten(1, grid), size) for y in layer.split(x)]
    heads = [y.flatten(1, 2).unflatten(2, (HEADS, -1)).transpose(1, 2) for y in groups]
    mixed = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    expected = layer.proj(maxxvit.grid_reverse(mixed.unflatten(1, size), size, grid).flatten(1, 2))
    y = layer(x)
    assert_close(y, expected)
    assert_close(slopes(y, [x, layer.qkv.weight]), slopes(expected, [x, layer.qkv.weight]))


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_softmax_over_whole_steps_also_where_they_do_not_divide_the_grid(size, k):
    agrees(f"dilated(k={k})", *size, steps(k))


@pytest.mark.parametrize("grid", [(1, 40), (41, 2), (2, 90)])
def test_a_strip_has_steps_on_one_axis(grid):
    agrees("dilated(k=4)", grid, 1, None, steps(4))


@pytest.mark.parametrize(("patches", "buckets"), [(196, True), (180, True), (49, False)])
def test_the_sizes_above_take_both_ways(patches, buckets):
    assert takes_buckets(dilated_cover(Tokens((14, 14)), 2), 1, patches) is buckets


def test_groups_meet_through_the_prefix_alone():
    layer = build("dilated(k=2)", DIM, HEADS, Tokens((14, 14), 1))
    reach = layer.reach().double()
    assert (reach[1:, 1:] @ reach[1:, 1:] > 0).sum() == 196 * 49
    assert (reach @ reach > 0).all()


def test_every_patch_is_a_query_once():
    for grid, k in (((56, 56), 2), ((9, 13), 4), ((1, 7), 3), ((5, 40), 7)):
        cover = dilated_cover(Tokens(grid), k)
        asked = cover.queries[cover.queries >= 0]
        assert torch.equal(asked.sort().values, torch.arange(grid[0] * grid[1]))
        assert cover.complete == bool((cover.queries >= 0).all())


def test_the_function_stands_alone():
    tokens = Tokens((14, 13), 1)
    layer = lively("dilated(k=3)", DIM, HEADS, tokens)
    ids = visible(2, tokens, 150)
    q, k, v = layer.split(images(2, 151, DIM))
    mask = mask_of(tokens, ids, steps(3))[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert_close(dilated_attention(q, k, v, tokens, ids, step=3), expected)


def test_a_group_without_any_visible_patch_makes_nothing_infinite():
    agrees_in_half_precision_where("dilated(k=2)", (28, 28), lambda y, x: y % 2 == 1 or x % 2 == 1)


def test_nothing_as_large_as_all_pairs_is_made():
    tokens = Tokens((56, 56), 1)
    assert largest_tensor("dilated(k=7)", tokens) < tokens.count**2 / 30


def test_its_cost_is_that_of_the_groups():
    layer = build("dilated(k=4)", DIM, HEADS, Tokens((56, 56), 1))
    assert layer.mix_flops(56**2, 56**2 + 1) == 4 * DIM * (56**2 * (14**2 + 1) + 56**2 + 1)


def test_parameters_are_four_projections():
    layer = build("dilated", DIM, HEADS, Tokens((14, 14), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


@pytest.mark.parametrize(("grid", "k"), [((7, 7), 1), ((7, 7), 4), ((7, 7), 7), ((7, 7), 30)])
def test_one_group_and_groups_of_one_are_refused(grid, k):
    with pytest.raises(ValueError, match=rf"dilated\(k={k}\) on a grid of 7 x 7: k must be 2..3; one group would be"):
        build(f"dilated(k={k})", DIM, HEADS, Tokens(grid, 1))


def test_a_grid_of_which_no_k_makes_groups_is_refused():
    with pytest.raises(ValueError, match="needs a larger grid"):
        build("dilated(k=2)", DIM, HEADS, Tokens((3, 3)))


@pytest.mark.parametrize("k", [0, -2, True])
def test_k_is_a_whole_number(k):
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        build(f"dilated(k={k})", DIM, HEADS, Tokens((14, 14)))


@pytest.mark.parametrize("grid", [(1, 4), (4, 4), (7, 7), (14, 14), (2, 9)])
def test_the_default_is_refused_on_no_usual_grid(grid):
    assert Dilated(DIM, HEADS, Tokens(grid)).refusal(grid[0] * grid[1]) is None
