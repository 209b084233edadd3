"""Pooling against timm and transformers, and the averages written out."""

import pytest
import torch
from tests.attention.agreement import images, slopes, visible
from tests.peers import timm, transformers
from torch.testing import assert_close

from saccade.attention import Tokens, build

DIM, HEADS = 12, 3


def on_grid(x, grid):
    """Tokens as the peers take them: (b, channels, rows, columns)."""
    return x.mT.unflatten(2, grid)


def peers(side):
    poolformer = transformers.models.poolformer.modeling_poolformer
    return timm.models.metaformer.Pooling(side), poolformer.PoolFormerPooling(side)


def written_out(x, ids, tokens, side):
    """The average of the visible neighbours minus the patch; of all patches minus the prefix token."""
    rows = []
    for image, own in zip(x, ids.tolist(), strict=True):
        prefix, patches = image[: tokens.prefix], image[tokens.prefix :]
        found = [patches.mean(0) - token for token in prefix]
        for n, place in enumerate(own):
            row, column = divmod(place, tokens.grid[1])
            near = [
                patches[m]
                for m, other in enumerate(own)
                if abs(other // tokens.grid[1] - row) <= side // 2 and abs(other % tokens.grid[1] - column) <= side // 2
            ]
            found.append(torch.stack(near).mean(0) - patches[n])
        rows.append(torch.stack(found))
    return torch.stack(rows)


@pytest.mark.parametrize("side", [3, 5, 9])
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (3, 8), (1, 5)])
def test_it_is_timms_and_transformers_pooling(grid, side):
    layer = build(f"pooling(pool_size={side})", DIM, HEADS, Tokens(grid))
    x = images(2, grid[0] * grid[1], DIM).requires_grad_()
    for theirs in peers(side):
        y, expected = layer(x), theirs(on_grid(x, grid)).flatten(2).mT
        assert_close(y, expected)
        assert_close(slopes(y, [x]), slopes(expected, [x]))


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("prefix", [0, 2])
def test_averages_are_of_the_visible_patches_alone(prefix, side):
    tokens = Tokens((4, 6), prefix)
    layer = build(f"pooling(pool_size={side})", DIM, HEADS, tokens)
    ids, x = visible(2, tokens, 9), images(2, prefix + 9, DIM).requires_grad_()
    y, expected = layer(x, ids), written_out(x, ids, tokens, side)
    assert_close(y, expected)
    assert_close(slopes(y, [x]), slopes(expected, [x]))


def test_prefix_tokens_get_the_average_of_all_patches_minus_themselves():
    tokens = Tokens((3, 4), prefix=2)
    x = images(2, 14, DIM)
    y = build("pooling", DIM, HEADS, tokens)(x)
    assert_close(y[:, :2], x[:, 2:].mean(1, keepdim=True) - x[:, :2])
    assert_close(y[:, 2:], build("pooling", DIM, HEADS, Tokens((3, 4)))(x[:, 2:]))


def test_a_patch_alone_in_its_neighbourhood_gets_zero_and_reaches_nothing():
    tokens = Tokens((5, 5), prefix=1)
    layer, ids = build("pooling", DIM, HEADS, tokens), torch.tensor([[0, 2, 3, 22]])
    y = layer(images(1, 5, DIM), ids)
    assert torch.equal(y[:, [1, 4]], torch.zeros(1, 2, DIM, dtype=y.dtype))
    near = torch.zeros(5, 5, dtype=torch.bool)
    near[0] = True
    near[2:4, 2:4] = True
    assert torch.equal(layer.reach(ids[0]), near)


def test_where_the_neighbourhood_is_the_grid_order_is_free():
    layer = build("pooling(pool_size=7)", DIM, HEADS, Tokens((3, 4)))
    assert layer.order_free
    assert not build("pooling(pool_size=5)", DIM, HEADS, Tokens((3, 4))).order_free
    x, order = images(2, 12, DIM), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert_close(layer(x[:, order]), layer(x)[:, order])
    assert_close(layer(x), x.mean(1, keepdim=True) - x)


def test_equal_patches_leave_nothing():
    layer = build("pooling", DIM, HEADS, Tokens((14, 14), prefix=1))
    assert_close(layer(torch.ones(1, 197, DIM).bfloat16()), torch.zeros(1, 197, DIM).bfloat16(), rtol=0, atol=0)


def test_nothing_is_learned_and_nothing_multiplied():
    layer = build("pooling", DIM, HEADS, Tokens((14, 14), prefix=1))
    assert layer.state_dict() == {}
    assert layer.flops(196) == 0


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (4, "pool_size must be odd"),
        (1, "pool_size must be a whole number of at least 3"),
        (0, "pool_size must be a whole number of at least 3"),
    ],
)
def test_a_neighbourhood_without_a_middle_or_neighbours_is_refused(side, words):
    with pytest.raises(ValueError, match=rf"pooling\(pool_size={side}\): {words}"):
        build(f"pooling(pool_size={side})", DIM, HEADS, Tokens((3, 4)))


def test_heads_and_rotary_positions_are_no_options():
    with pytest.raises(ValueError, match="pooling has no option 'rope': its options are pool_size"):
        build("pooling(rope=True)", DIM, HEADS, Tokens((3, 4)))


@pytest.mark.parametrize("patches", [49, 12])
def test_in_half_precision_only_input_and_output_are_rounded(patches):
    tokens = Tokens((7, 7), prefix=1)
    layer, ids = build("pooling", DIM, HEADS, tokens), None if patches == 49 else visible(2, tokens, patches)
    x = (images(2, 1 + patches, DIM) + 3).bfloat16()
    assert torch.equal(layer(x, ids), layer(x.float(), ids).bfloat16())
