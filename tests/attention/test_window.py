"""Window attention against Swin's own layer of transformers, and torch's attention with a mask made pair by pair."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.attention.dense import DIM, HEADS, SIZES, agrees, agrees_in_half_precision_where, largest_tensor, mask_of
from tests.peers import transformers
from torch import nn
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.buckets import takes_buckets
from saccade.attention.window import Window, window_attention, window_cover

TABLE = "relative_position_bias_table"


def same(w, shift):
    def sees(y, x, v, u):
        cuts = range(shift, 100, w)
        return all(sum(cut <= i for cut in cuts) == sum(cut <= j for cut in cuts) for i, j in ((y, v), (x, u)))

    return sees


def swins(layer):
    """Swin's layer with our weights and without its norm and MLP, so that it is x + attention(x)."""
    swin = transformers.models.swin.modeling_swin.SwinLayer(
        transformers.SwinConfig(window_size=layer.w, attn_implementation="sdpa"),
        DIM,
        layer.tokens.grid,
        HEADS,
        shift_size=layer.shift,
    ).double()
    swin.layernorm_before = nn.Identity()
    for parameter in swin.mlp.parameters():
        nn.init.zeros_(parameter)
    state = {f"relative_position_bias.{TABLE}": getattr(layer, TABLE).detach()}
    for part in ("weight", "bias"):
        three = getattr(layer.qkv, part).detach().chunk(3)
        state |= {f"{name}_proj.{part}": values for name, values in zip("qkv", three, strict=True)}
        state[f"o_proj.{part}"] = getattr(layer.proj, part).detach()
    swin.attention.load_state_dict(state, strict=False)
    return swin.eval()


@pytest.mark.parametrize(("w", "shift"), [(7, 0), (7, 3), (7, 5), (2, 1), (14, 6)])
def test_it_is_swins_attention_shift_and_bias_included(w, shift):
    layer = lively(f"window(w={w}, shift={shift}, relative_bias=True)", DIM, HEADS, Tokens((14, 28)))
    swin, x = swins(layer), images(2, 14 * 28, DIM).requires_grad_()
    if w == 14:
        # transformers shifts no window that is as long as a side; Swin's function knows no such rule.
        swin.set_shift_and_window_size = lambda size: None
    y, expected = layer(x), swin(x, (14, 28))[0] - x
    assert_close(y, expected)
    own = [x, getattr(layer, TABLE), layer.proj.weight, layer.qkv.weight]
    theirs = dict(swin.attention.named_parameters())
    names = [f"relative_position_bias.{TABLE}", "o_proj.weight", *(f"{name}_proj.weight" for name in "qkv")]
    x_slope, table, proj, *qkv = slopes(expected, [x, *(theirs[name] for name in names)])
    assert_close(slopes(y, own), (x_slope, table, proj, torch.cat(qkv)))


@pytest.mark.parametrize(("w", "shift"), [(7, 0), (7, 3), (4, 3), (5, 1), (12, 6)])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_softmax_within_windows_also_where_they_do_not_divide_the_grid(size, w, shift):
    agrees(f"window(w={w}, shift={shift})", *size, same(w, shift))


@pytest.mark.parametrize("shift", [0, 3, 6])
def test_a_strip_is_cut_on_one_axis(shift):
    agrees(f"window(w=7, shift={shift})", (4, 30), 1, None, same(7, shift))
    agrees(f"window(w=7, shift={shift})", (30, 7), 0, 200, same(7, shift))


@pytest.mark.parametrize(("patches", "buckets"), [(None, True), (190, True), (60, False)])
def test_the_bias_belongs_to_pairs_of_places_also_on_a_visible_subset(patches, buckets):
    tokens = Tokens((15, 14), 1)
    layer = lively("window(w=5, shift=2, relative_bias=True)", DIM, HEADS, tokens)
    ids = visible(2, tokens, patches or tokens.patches)
    assert takes_buckets(window_cover(tokens, 5, 2), 1, ids.shape[1]) is buckets
    x = images(2, 1 + ids.shape[1], DIM).requires_grad_()
    table = getattr(layer, TABLE).unflatten(0, (9, 9))
    (y, v), (x_, u) = ((place[:, :, None], place[:, None, :]) for place in (ids // 14, ids % 14))
    within = mask_of(tokens, ids, same(5, 2))[:, 1:, 1:]
    bias = torch.where(within[..., None], table[(y - v).clamp(-4, 4) + 4, (x_ - u).clamp(-4, 4) + 4], -torch.inf)
    mask = nn.functional.pad(bias.permute(0, 3, 1, 2), (1, 0, 1, 0))
    q, k, values = layer.split(x)
    expected = layer.merge(nn.functional.scaled_dot_product_attention(q, k, values, attn_mask=mask))
    seen = layer(x, None if patches is None else ids)
    assert_close(seen, expected)
    assert_close(layer.reference(x, ids), expected)
    assert_close(slopes(seen, [x, getattr(layer, TABLE)]), slopes(expected, [x, getattr(layer, TABLE)]))


def test_no_window_continues_at_the_other_side():
    reach = build("window(w=7, shift=3)", DIM, HEADS, Tokens((14, 14))).reach()
    first, last = 0, 195
    assert not reach[first, last]
    assert reach[first].sum() == 9
    assert reach[last].sum() == 16


def test_every_second_layer_is_shifted_by_half_a_window():
    layers = [build("window(w=7)", DIM, HEADS, Tokens((14, 14)), layer=layer) for layer in range(4)]
    assert [layer.shift for layer in layers] == [0, 3, 0, 3]
    reached = layers[1].reach().double() @ layers[0].reach().double() > 0
    assert reached[0].sum() == 49
    # The patch in the middle sees all four windows within two layers.
    assert reached[7 * 14 + 7].all()
    fixed = [build("window(w=7, shift=2)", DIM, HEADS, Tokens((14, 14)), layer=layer).shift for layer in range(2)]
    assert fixed == [2, 2]


def test_cut_windows_at_both_ends_share_a_bucket():
    for shift in range(7):
        cover = window_cover(Tokens((56, 56)), 7, shift)
        assert cover.queries.shape == (64, 49)
        assert torch.equal(cover.queries.flatten().sort().values, torch.arange(56**2))
    assert window_cover(Tokens((56, 56)), 7, 0).complete
    assert not window_cover(Tokens((56, 56)), 7, 3).complete
    assert not window_cover(Tokens((56, 55)), 7, 0).complete


def test_the_function_stands_alone():
    tokens = Tokens((14, 14), 1)
    layer = lively("window(w=7, shift=3)", DIM, HEADS, tokens)
    q, k, v = layer.split(images(2, 197, DIM))
    assert_close(window_attention(q, k, v, tokens, w=7, shift=3), layer.reference_mix(q, k, v, None))


def test_a_window_without_any_visible_patch_makes_nothing_infinite():
    agrees_in_half_precision_where("window(w=7, shift=3)", (28, 28), lambda y, x: y < 15 and x < 25)
    agrees_in_half_precision_where("window(w=7, relative_bias=True)", (28, 28), lambda y, x: y < 15 and x < 25)


@pytest.mark.parametrize("shift", [0, 3])
def test_nothing_as_large_as_all_pairs_is_made(shift):
    tokens = Tokens((56, 56), 1)
    assert largest_tensor(f"window(w=7, shift={shift}, relative_bias=True)", tokens) < tokens.count**2 / 30


def test_its_cost_is_a_window_for_each_patch():
    layer = build("window(w=7, shift=3)", DIM, HEADS, Tokens((56, 56), 1))
    assert layer.mix_flops(56**2, 56**2 + 1) == 4 * DIM * (56**2 * (49 + 1) + 56**2 + 1)


@pytest.mark.parametrize(("options", "more"), [("", 0), (", relative_bias=True", HEADS * 13**2)])
def test_parameters_are_four_projections_and_the_table(options, more):
    layer = build(f"window(w=7{options})", DIM, HEADS, Tokens((14, 14), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM + more


def test_the_table_starts_near_zero_and_fits_any_grid():
    layer = build("window(w=7, relative_bias=True)", DIM, 16, Tokens((14, 14), 1))
    assert getattr(layer, TABLE).std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(getattr(layer.regrid(Tokens((28, 20), 1)), TABLE), getattr(layer, TABLE))


def test_a_window_of_the_whole_grid_is_refused():
    with pytest.raises(
        ValueError, match=r"window\(w=14\) on a grid of 10 x 14: w must be 2..13; a window of everything"
    ):
        build("window(w=14)", DIM, HEADS, Tokens((10, 14), 1))
    build("window(w=13)", DIM, HEADS, Tokens((10, 14), 1))
    with pytest.raises(ValueError, match="needs a larger grid"):
        build("window(w=2)", DIM, HEADS, Tokens((2, 2)))


@pytest.mark.parametrize("w", [1, 0, True])
def test_a_window_holds_more_than_one_patch(w):
    with pytest.raises(ValueError, match="w must be a whole number of at least 2"):
        build(f"window(w={w})", DIM, HEADS, Tokens((14, 14)))


@pytest.mark.parametrize("shift", [7, -1])
def test_a_shift_is_less_than_a_window(shift):
    with pytest.raises(ValueError, match=r"shift must be 0..6 or \"alternate\""):
        build(f"window(w=7, shift={shift})", DIM, HEADS, Tokens((14, 14)))


@pytest.mark.parametrize("grid", [(3, 3), (1, 4), (7, 7), (14, 14), (8, 15)])
def test_the_proposed_options_are_no_refused_ones(grid):
    tokens = Tokens(grid)
    assert Window(DIM, HEADS, tokens, **Window.options_for(tokens, tokens.patches)).refusal(tokens.patches) is None
