"""Linformer against the package of lucidrains, softmax, and the sums written out."""

import pytest
import torch
from linformer import LinformerSelfAttention
from tests.attention.agreement import enliven, images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.linformer import Linformer

DIM, HEADS, K = 24, 3, 4


def packages(layer):
    """The package's layer with our weights; it knows no prefix and no bias but the output's."""
    theirs = LinformerSelfAttention(DIM, layer.tokens.patches, k=K, heads=HEADS).double()
    q, k, v = layer.qkv.weight.detach().chunk(3)
    F = layer.E if layer.F is None else layer.F
    state = {"to_q.weight": q, "to_k.weight": k, "to_v.weight": v, "proj_k": layer.E.detach().T, "proj_v": F.detach().T}
    state |= {"to_out.weight": layer.proj.weight.detach(), "to_out.bias": layer.proj.bias.detach()}
    theirs.load_state_dict(state)
    return theirs


def their_slopes(theirs, y, x):
    """The package's gradients in our order: input, qkv, output projection and its bias, E, F."""
    names = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.weight", "to_out.bias", "proj_k", "proj_v")
    x_slope, q, k, v, out, bias, E, F = slopes(y, [x, *(theirs.get_parameter(name) for name in names)])
    return x_slope, torch.cat([q, k, v]), out, bias, E.T, F.T


def test_it_is_the_packages_linformer():
    layer = lively(f"linformer(k={K},qkv_bias=False)", DIM, HEADS, Tokens((3, 5)))
    theirs, x = packages(layer), images(2, 15, DIM).requires_grad_()
    y, expected = layer(x), theirs(x)
    assert_close(y, expected)
    ours = slopes(y, [x, layer.qkv.weight, layer.proj.weight, layer.proj.bias, layer.E, layer.F])
    assert_close(ours, their_slopes(theirs, expected, x))


def test_the_first_patches_alone_are_the_packages_shorter_sequence():
    layer = lively(f"linformer(k={K},qkv_bias=False,rescale=False)", DIM, HEADS, Tokens((3, 5)))
    x = images(2, 9, DIM)
    assert_close(layer(x, torch.arange(9).expand(2, -1)), packages(layer)(x))


def test_shared_keys_and_values_are_the_packages_with_equal_projections():
    layer = lively(f"linformer(k={K},qkv_bias=False,share_kv=True)", DIM, HEADS, Tokens((3, 5)))
    theirs, x = packages(layer), images(2, 15, DIM).requires_grad_()
    y, expected = layer(x), theirs(x)
    assert_close(y, expected)
    *_, E, F = their_slopes(theirs, expected, x)
    assert_close(slopes(y, [layer.E])[0], E + F)


@pytest.mark.parametrize("prefix", [0, 2])
def test_with_a_sum_for_each_patch_it_is_softmax(prefix):
    tokens = Tokens((3, 4), prefix)
    layer = Linformer(DIM, HEADS, tokens, k=tokens.patches).double()
    softmax = build("softmax", DIM, HEADS, tokens).double()
    enliven(layer)
    with torch.no_grad():
        layer.E.copy_(torch.eye(tokens.patches))
        layer.F.copy_(torch.eye(tokens.patches))
    softmax.load_state_dict({name: value for name, value in layer.state_dict().items() if name not in ("E", "F")})
    x = images(2, tokens.count, DIM).requires_grad_()
    assert_close(layer(x), softmax(x))
    assert_close(
        slopes(layer(x), [x, layer.qkv.weight, layer.qkv.bias]),
        slopes(softmax(x), [x, softmax.qkv.weight, softmax.qkv.bias]),
    )


def test_a_visible_patch_meets_its_own_column_and_the_prefix_none():
    tokens = Tokens((3, 4), prefix=2)
    layer = lively(f"linformer(k={K})", DIM, HEADS, tokens)
    x, ids = images(2, 2 + 5, DIM), visible(2, tokens, 5)
    q, k, v = layer.split(x)
    rows = torch.zeros(2, HEADS, 7, DIM // HEADS, dtype=torch.float64)
    for image in range(2):
        for head in range(HEADS):
            keys, values = list(k[image, head, :2]), list(v[image, head, :2])
            for sum_ in range(K):
                for kept, weights, seen in ((keys, layer.E, k), (values, layer.F, v)):
                    terms = [weights[sum_, ids[image, p]] * seen[image, head, 2 + p] for p in range(5)]
                    kept.append((12 / 5) ** 0.5 * torch.stack(terms).sum(0))
            scores = torch.stack(keys) @ q[image, head].T / (DIM // HEADS) ** 0.5
            rows[image, head] = scores.softmax(0).T @ torch.stack(values)
    assert_close(layer(x, ids), layer.merge(rows))


def test_rescaling_keeps_the_size_of_the_sums():
    tokens = Tokens((14, 14))
    x, ids = images(4, 196, DIM), visible(4, tokens, 49)
    few = x.gather(1, ids[..., None].expand(-1, -1, DIM))

    def size(text, x, ids):
        layer = build(text, DIM, HEADS, tokens).double()
        _, k, _ = layer.split(x)
        return layer._summed(layer._columns(layer.E, ids), k).square().mean().sqrt().item()

    torch.manual_seed(0)
    whole = size("linformer(k=64)", x, None)
    assert size("linformer(k=64)", few, ids) / whole == pytest.approx(1, abs=0.1)
    assert size("linformer(k=64,rescale=False)", few, ids) / whole == pytest.approx(0.5, abs=0.05)


def test_a_finer_grid_keeps_sums_of_what_varies_slowly():
    layer = build("linformer(k=3)", DIM, HEADS, Tokens((8, 8), 1)).double()
    along = (torch.arange(8) + 0.5) / 8
    with torch.no_grad():
        layer.E.copy_(torch.stack([torch.ones(8, 8), along.expand(8, 8), along.square()[:, None] * along]).flatten(1))
    for grid in ((16, 16), (4, 4), (8, 24)):
        finer = layer.regrid(Tokens(grid, 1))
        assert finer.E.shape == (3, grid[0] * grid[1])
        assert_close(finer.E.sum(1), layer.E.sum(1), rtol=0.02, atol=0)
    assert layer.E.shape == (3, 64)
    assert_close(layer.regrid(Tokens((8, 8), 1)).F, layer.F)


def test_it_starts_from_numbers_uniform_in_one_over_the_root_of_k():
    layer = build("linformer(k=16)", DIM, HEADS, Tokens((14, 14)))
    assert 0.24 < layer.E.abs().max() <= 0.25
    assert not torch.equal(layer.E, layer.F)


@pytest.mark.parametrize(("options", "more"), [("k=5", 2 * 5 * 12), ("k=5,share_kv=True", 5 * 12)])
def test_parameters_are_four_projections_and_the_columns(options, more):
    layer = build(f"linformer({options})", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM + more


def test_as_many_sums_as_patches_are_refused():
    with pytest.raises(ValueError, match=r"linformer\(k=12\) on 13 tokens, 12 of them patches: k must be 1..11"):
        build("linformer(k=12)", DIM, HEADS, Tokens((3, 4), 1))
    with pytest.raises(ValueError, match=r"k must be 1..4"):
        build("linformer(k=11)", DIM, HEADS, Tokens((3, 4), 1), patches=5)
    build("linformer(k=11)", DIM, HEADS, Tokens((3, 4), 1))


@pytest.mark.parametrize("k", [0, -1, True])
def test_k_is_a_whole_number(k):
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        build(f"linformer(k={k})", DIM, HEADS, Tokens((3, 4)))


@pytest.mark.parametrize("patches", [2, 3, 12, 49, 196])
def test_the_proposed_options_are_cheaper_than_softmax(patches):
    tokens = Tokens((1, patches))
    layer = Linformer(DIM, HEADS, tokens, **Linformer.options_for(tokens, patches))
    assert layer.refusal(patches) is None
    assert layer.mix_flops(patches, patches) <= build("softmax", DIM, HEADS, tokens).mix_flops(patches, patches)


def test_it_multiplies_the_patches_by_their_columns_and_every_token_by_prefix_and_sums():
    layer = build("linformer(k=5)", DIM, HEADS, Tokens((3, 4), prefix=2))
    projecting, looking = 2 * 2 * 5 * 12 * DIM, 2 * 2 * 14 * (2 + 5) * DIM
    assert layer.flops(12) == 2 * 14 * 4 * DIM**2 + projecting + looking
    assert layer.flops(12, 1) == 2 * 2 * (14 + 1) * DIM**2 + projecting + looking // 14
