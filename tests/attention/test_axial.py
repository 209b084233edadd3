"""Axial attention against torch's attention with a mask made pair by pair."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.attention.dense import DIM, HEADS, SIZES, agrees, agrees_in_half_precision_where, largest_tensor, mask_of
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.axial import Axial, axial_attention


def in_line(y, x, v, u):
    return y == v or x == u


@pytest.mark.parametrize("size", [*SIZES, ((2, 3), 1, None), ((2, 2), 0, None), ((3, 40), 1, 100), ((9, 8), 2, 60)])
def test_it_is_softmax_over_row_and_column(size):
    agrees("axial", *size, in_line)


def test_with_rotary_positions_and_without_biases_it_is_the_same_softmax():
    tokens = Tokens((9, 14), 1)
    layer = lively("axial(rope=True, qk_norm=True, bias=False)", DIM, HEADS, tokens)
    x, ids = images(2, 101, DIM), visible(2, tokens, 100)
    q, k, v = layer.split(x, ids)
    mask = mask_of(tokens, ids, in_line)[:, None]
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert_close(layer(x, ids), layer.merge(seen))
    assert_close(axial_attention(q, k, v, tokens, ids), seen)


def test_a_patch_is_no_key_twice():
    layer = build("axial", DIM, HEADS, Tokens((5, 6))).double()
    layer.reset_parameters(lambda name: torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.qkv.weight[: 2 * DIM].zero_()
    q, k, v = layer.split(images(1, 30, DIM))
    # Equal scores: the mean of row and column.
    line = [*range(12, 18), 2, 8, 20, 26]
    assert_close(layer.mix(q, k, v, None)[:, :, 14], v[:, :, line].mean(2))


def test_it_is_no_row_attention_after_column_attention():
    reach = build("axial", DIM, HEADS, Tokens((14, 14))).reach()
    assert reach.sum(-1).unique().tolist() == [27]
    assert ((reach.double() @ reach.double()) > 0).all()


def test_on_a_single_line_it_is_softmax():
    tokens = Tokens((1, 12), 2)
    layer, softmax = Axial(DIM, HEADS, tokens).double(), build("softmax", DIM, HEADS, tokens).double()
    softmax.load_state_dict(layer.state_dict())
    x = images(2, 14, DIM).requires_grad_()
    assert_close(layer(x), softmax(x))
    assert_close(slopes(layer(x), [x]), slopes(softmax(x), [x]))


@pytest.mark.parametrize(("patches", "partners"), [(49, 7.4), (196, 27)])
def test_few_visible_patches_leave_few_in_line(patches, partners):
    tokens = Tokens((14, 14))
    layer = build("axial", DIM, HEADS, tokens)
    seen = torch.stack([layer.reach(ids) for ids in visible(50, tokens, patches)])
    assert seen.sum(-1).double().mean().item() == pytest.approx(partners, abs=0.1)


def test_rows_and_columns_without_any_visible_patch_make_nothing_infinite():
    agrees_in_half_precision_where("axial", (12, 12), lambda y, x: y < 9 and x < 9)


def test_nothing_as_large_as_all_pairs_is_made():
    tokens = Tokens((56, 56), 1)
    assert largest_tensor("axial", tokens) < tokens.count**2 / 25


def test_its_cost_is_a_row_and_a_column_for_each_patch():
    layer = build("axial", DIM, HEADS, Tokens((28, 56), 1))
    assert layer.mix_flops(28 * 56, 28 * 56 + 1) == 4 * DIM * (28 * 56 * (28 + 56 + 1) + 28 * 56 + 1)
    assert layer.mix_flops(10, 11) == 4 * DIM * (10 * 11 + 11)


def test_parameters_are_four_projections():
    layer = build("axial", DIM, HEADS, Tokens((14, 14), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1)])
def test_a_single_line_is_refused(grid):
    with pytest.raises(ValueError, match=rf"axial on a grid of {grid[0]} x {grid[1]}: needs at least 2 rows and 2 col"):
        build("axial", DIM, HEADS, Tokens(grid, 1))
