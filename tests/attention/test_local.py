"""Local attention against torch's attention with a mask made pair by pair."""

import pytest
import torch
from tests.attention.agreement import images, lively, visible
from tests.attention.dense import DIM, HEADS, SIZES, agrees, agrees_in_half_precision_where, largest_tensor, mask_of
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.buckets import takes_buckets
from saccade.attention.local import Local, local_attention, local_cover


def square(radius):
    return lambda y, x, v, u: max(abs(y - v), abs(x - u)) <= radius


def disc(radius):
    return lambda y, x, v, u: (y - v) ** 2 + (x - u) ** 2 < radius**2


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_softmax_over_the_square_around_a_patch(size, radius):
    agrees(f"local(radius={radius})", *size, square(radius))


@pytest.mark.parametrize("radius", [2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_in_euclids_metric_it_is_softmax_over_the_open_disc(size, radius):
    agrees(f'local(radius={radius}, metric="euclid")', *size, disc(radius))


def test_a_strip_has_neighbours_on_one_axis():
    agrees("local(radius=2)", (1, 40), 1, None, square(2))
    agrees("local(radius=2)", (40, 2), 1, None, square(2))


def test_with_rotary_positions_and_without_biases_it_is_the_same_softmax():
    tokens = Tokens((9, 14), 1)
    layer = lively("local(radius=1, rope=True, qk_norm=True, bias=False)", DIM, HEADS, tokens)
    x, ids = images(2, 101, DIM), visible(2, tokens, 100)
    mask = mask_of(tokens, ids, square(1))
    q, k, v = layer.split(x, ids)
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    assert_close(layer(x, ids), layer.merge(seen))
    assert_close(local_attention(q, k, v, tokens, ids, radius=1), seen)


@pytest.mark.parametrize(("prefix", "patches", "buckets"), [(1, 196, True), (0, 190, True), (1, 49, False)])
def test_the_sizes_above_take_both_ways(prefix, patches, buckets):
    assert takes_buckets(local_cover(Tokens((14, 14), prefix), 1, "chebyshev"), prefix, patches) is buckets


@pytest.mark.parametrize(("grid", "radius"), [((56, 56), 3), ((30, 41), 2), ((64, 9), 1)])
def test_every_patch_is_a_query_once_beside_all_its_neighbours(grid, radius):
    tokens = Tokens(grid)
    cover = local_cover(tokens, radius, "chebyshev")
    asked = cover.queries[cover.queries >= 0]
    assert torch.equal(asked.sort().values, torch.arange(tokens.patches))
    for queries, keys in zip(cover.queries.tolist(), cover.keys.tolist(), strict=True):
        held = [key for key in keys if key >= 0]
        assert len(held) == len(set(held))
        for y, x in (divmod(query, grid[1]) for query in queries if query >= 0):
            around = {
                v * grid[1] + u
                for v in range(max(0, y - radius), min(grid[0], y + radius + 1))
                for u in range(max(0, x - radius), min(grid[1], x + radius + 1))
            }
            assert around <= set(held)


def test_a_tile_without_any_visible_patch_makes_nothing_infinite():
    agrees_in_half_precision_where("local(radius=1)", (28, 28), lambda y, x: y < 20 and x < 20)


def test_nothing_as_large_as_all_pairs_is_made():
    tokens = Tokens((56, 56), 1)
    assert largest_tensor("local(radius=3)", tokens) < tokens.count**2 / 12


def test_its_cost_grows_with_the_patches_and_not_with_their_square():
    def cost(side):
        return build("local(radius=3)", DIM, HEADS, Tokens((side, side))).mix_flops(side**2, side**2)

    # Tiles of 7 x 7 queries beside 13 x 13 keys.
    assert cost(56) == 4 * DIM * 56**2 * 13**2
    assert cost(112) == 4 * cost(56)
    # Of 8 x 8, which divide it.
    assert cost(32) == 4 * DIM * 32**2 * 14**2


@pytest.mark.parametrize(("grid", "hidden", "partners"), [((14, 14), 0.75, 2.75), ((7, 7), 0.755, 2.5)])
def test_few_visible_patches_leave_few_neighbours(grid, hidden, partners):
    tokens = Tokens(grid)
    count = int(tokens.patches * (1 - hidden))
    layer = build("local(radius=1)", DIM, HEADS, tokens)
    seen = torch.stack([layer.reach(ids) for ids in visible(200, tokens, count)])
    assert seen.sum(-1).double().mean().item() == pytest.approx(partners, abs=0.1)


def test_parameters_are_four_projections():
    layer = build("local", DIM, HEADS, Tokens((14, 14), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


def test_a_neighbourhood_of_the_whole_grid_is_refused():
    with pytest.raises(
        ValueError, match=r"local\(radius=6, metric='chebyshev'\) on a grid of 7 x 5: radius must be 1..5;"
    ):
        build("local(radius=6)", DIM, HEADS, Tokens((7, 5), 1))
    build("local(radius=5)", DIM, HEADS, Tokens((7, 5), 1))
    # The corners are √(36 + 16) = 7.2 apart.
    with pytest.raises(ValueError, match=r"radius must be 2..7;"):
        build('local(radius=8, metric="euclid")', DIM, HEADS, Tokens((7, 5), 1))
    build('local(radius=7, metric="euclid")', DIM, HEADS, Tokens((7, 5), 1))
    # 3² + 4² = 5², and a disc has no rim.
    build('local(radius=5, metric="euclid")', DIM, HEADS, Tokens((4, 5), 1))
    with pytest.raises(ValueError, match="needs a larger grid"):
        build("local(radius=1)", DIM, HEADS, Tokens((2, 2)))


@pytest.mark.parametrize("written", ["radius=0", "radius=True", 'radius=1, metric="euclid"'])
def test_a_radius_is_a_whole_number_that_reaches_a_neighbour(written):
    with pytest.raises(ValueError, match=r"radius must be a whole number of at least [12]"):
        build(f"local({written})", DIM, HEADS, Tokens((14, 14)))


def test_other_metrics_are_refused():
    with pytest.raises(ValueError, match="metric"):
        build('local(metric="manhattan")', DIM, HEADS, Tokens((14, 14)))


@pytest.mark.parametrize("grid", [(3, 3), (1, 4), (7, 7), (14, 14), (8, 15)])
def test_the_proposed_options_are_no_refused_ones(grid):
    tokens = Tokens(grid)
    assert Local(DIM, HEADS, tokens, **Local.options_for(tokens, tokens.patches)).refusal(tokens.patches) is None
