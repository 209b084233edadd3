"""What every mechanism with queries and keys shares: rotary positions and qk-norm against timm, and refusals."""

import pytest
import torch
from tests.attention.agreement import enliven, images, lively, slopes, visible
from tests.peers import timm
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.parts import rotary_angles, rotate

DIM, HEADS = 24, 3


def assert_same_attention(layer, theirs, x, **more):
    """Checks output, and the gradients of the input and of every parameter; names are equal."""
    theirs.load_state_dict(layer.state_dict())
    x = x.clone().requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    seen, expected = layer(x), theirs(x, **more)
    assert_close(seen, expected)
    ours = slopes(seen, [x, *(layer.get_parameter(name) for name in names)])
    assert_close(ours, slopes(expected, [x, *(theirs.get_parameter(name) for name in names)]))


def timms_angles(grid, width):
    """Sines and cosines of timm's axial rotary positions, each pair of channels twice."""
    return timm.layers.RotaryEmbeddingCat(width, in_pixels=False, feat_shape=list(grid)).get_embed()


@pytest.mark.parametrize("grid", [(3, 4), (4, 3), (1, 7)])
def test_rotation_is_timms(grid):
    x = images(2, 12 if grid != (1, 7) else 7, 16).unsqueeze(1).requires_grad_()
    angles = rotary_angles(Tokens(grid), None, 16, x.device)
    ours, theirs = rotate(x, angles), timm.layers.apply_rot_embed_cat(x, timms_angles(grid, 16))
    assert_close(ours, theirs)
    assert_close(slopes(ours, [x]), slopes(theirs, [x]))


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_softmax_with_rotary_positions_is_timms(prefix, qk_norm):
    tokens = Tokens((3, 4), prefix)
    layer = lively(f"softmax(rope=True,qk_norm={qk_norm})", DIM, HEADS, tokens)
    norm = {"qk_norm": qk_norm, "norm_layer": timm.layers.LayerNorm}
    theirs = timm.layers.AttentionRope(DIM, HEADS, num_prefix_tokens=prefix, **norm).double()
    assert_same_attention(layer, theirs, images(2, tokens.count, DIM), rope=timms_angles((3, 4), DIM // HEADS))


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_softmax_with_qk_norm_is_timms(qkv_bias):
    tokens = Tokens((3, 4), 1)
    layer = lively(f"softmax(qk_norm=True,qkv_bias={qkv_bias})", DIM, HEADS, tokens)
    theirs = timm.layers.Attention(DIM, HEADS, qkv_bias=qkv_bias, qk_norm=True, norm_layer=timm.layers.LayerNorm)
    assert_same_attention(layer, theirs.double(), images(2, 13, DIM))


def test_visible_patches_turn_by_their_own_places():
    """As in the whole sequence, where hidden tokens are looked at by nobody."""
    tokens = Tokens((3, 4), 1)
    layer = lively("softmax(rope=True)", DIM, HEADS, tokens)
    whole, ids = images(2, 13, DIM), visible(2, tokens, 5)
    rows = torch.cat([torch.zeros(2, 1, dtype=torch.int64), 1 + ids], dim=1)
    seen = layer(whole.gather(1, rows[..., None].expand(-1, -1, DIM)), ids)
    there = torch.zeros(2, 13, dtype=torch.bool).scatter(1, rows, True)
    q, k, v = layer.split(whole)
    expected = layer.merge(torch.nn.functional.scaled_dot_product_attention(q, k, v, there[:, None, None]))
    assert_close(seen, expected.gather(1, rows[..., None].expand(-1, -1, DIM)))


def test_rotated_products_depend_on_distances_alone():
    tokens = Tokens((6, 6))
    q, k = images(1, 4, 16, seed=1).unsqueeze(1), images(1, 4, 16, seed=2).unsqueeze(1)
    corner = torch.tensor([[0, 1, 6, 8]])

    def products(ids):
        angles = rotary_angles(tokens, ids, 16, q.device)
        return rotate(q, angles) @ rotate(k, angles).mT

    assert_close(products(corner + 6 * 2 + 3), products(corner), rtol=0, atol=1e-5)
    assert (products(corner.flip(1)) - products(corner)).abs().max() > 0.1


@pytest.mark.parametrize("outputs", [slice(0, 1), slice(3, None), slice(1, 12, 2)])
def test_wanted_rows_turn_as_all_rows_do(outputs):
    layer = lively("softmax(rope=True,qk_norm=True)", DIM, HEADS, Tokens((3, 4), 1))
    x = images(2, 13, DIM)
    assert_close(layer(x, outputs=outputs), layer(x)[:, outputs])


def test_bias_false_leaves_none_and_qkv_bias_false_leaves_one():
    tokens = Tokens((3, 4))
    sizes = {
        "softmax": 4 * DIM**2 + 4 * DIM,
        "softmax(qkv_bias=False)": 4 * DIM**2 + DIM,
        "softmax(bias=False)": 4 * DIM**2,
        "softmax(qk_norm=True)": 4 * DIM**2 + 4 * DIM + 4 * DIM // HEADS,
    }
    for text, count in sizes.items():
        assert sum(parameter.numel() for parameter in build(text, DIM, HEADS, tokens).parameters()) == count


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="5 heads on width 24: the number of heads must divide the width"):
        build("softmax", DIM, 5, Tokens((3, 4)))


def test_rotary_positions_need_heads_of_a_multiple_of_four():
    with pytest.raises(ValueError, match=r"heads of width 6 \(24 / 4\): needs a multiple of 4"):
        build("softmax(rope=True)", DIM, 4, Tokens((3, 4)))


def test_regrid_keeps_the_prefix_and_may_refuse():
    layer = build("linformer(k=5)", DIM, HEADS, Tokens((3, 4), 1))
    enliven(layer)
    with pytest.raises(ValueError, match="regrid keeps the prefix of 1 tokens, not 2"):
        layer.regrid(Tokens((3, 4), 2))
    with pytest.raises(ValueError, match=r"k must be 1\.\.3"):
        layer.regrid(Tokens((2, 2), 1))
    assert layer.tokens == Tokens((3, 4), 1)


@pytest.mark.parametrize(("grid", "prefix"), [((0, 4), 0), ((3, -1), 0), ((3, 4), -1)])
def test_tokens_need_a_grid(grid, prefix):
    with pytest.raises(ValueError, match="the grid needs two sides of at least 1"):
        Tokens(grid, prefix)
