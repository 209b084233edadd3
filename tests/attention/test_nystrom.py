"""Nyström attention against two packages, and its pieces against torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nystrom_attention import NystromAttention
from tests.attention.agreement import slopes, visible
from tests.peers import transformers
from torch.testing import assert_close
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from saccade.attention import Tokens, build
from saccade.attention.nystrom import (
    Nystrom,
    block_members,
    nystrom_attention,
    pseudo_inverse,
    segment_bounds,
    segment_means,
)


def lively(attention, tokens, dim=32, num_heads=4):
    """A layer whose scores are of order one."""
    layer = build(attention, dim, num_heads, tokens).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return layer


def images(tokens, dim=32, batch=2):
    return torch.randn(batch, tokens.count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def assert_equal_with_gradients(ours, theirs, x):
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(one), theirs(other)
    # The package's identity matrix is float32.
    assert_close(y, expected, rtol=1e-6, atol=1e-8)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-8)


# That package starts its inverse from the largest sums of the whole batch and all heads: with one image and one head
# they are the matrix's own. Its landmarks are means of equal segments where their number divides the tokens'.
@pytest.mark.parametrize("options", ["landmarks=6", "landmarks=8, iterations=3", "landmarks=4, convolution=5"])
def test_it_is_the_packages_attention(options):
    tokens = Tokens((6, 8))
    ours = lively(f"nystrom(qkv_bias=False, {options})", tokens, num_heads=1)
    theirs = NystromAttention(
        32,
        dim_head=32,
        heads=1,
        num_landmarks=ours.landmarks,
        pinv_iterations=ours.iterations,
        residual=ours.convolution > 0,
        residual_conv_kernel=ours.convolution,
    ).double()
    weights = {"to_qkv.weight": ours.qkv.weight, "to_out.0.weight": ours.proj.weight, "to_out.0.bias": ours.proj.bias}
    if ours.conv is not None:
        weights["res_conv.weight"] = ours.conv.weight
    theirs.load_state_dict(weights)
    assert_equal_with_gradients(ours, theirs, images(tokens, batch=1))


@pytest.mark.parametrize("convolution", [0, 7])
def test_it_is_transformers_attention_with_the_exact_start(convolution):
    tokens = Tokens((6, 8))
    ours = lively(f"nystrom(landmarks=8, convolution={convolution})", tokens)
    config = transformers.NystromformerConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_landmarks=8,
        segment_means_seq_len=48,
        conv_kernel_size=convolution or 1,
        attention_probs_dropout_prob=0.0,
    )
    theirs = NystromformerSelfAttention(config).double()
    # The option that should say so is misspelt there.
    theirs.init_option = "exact"
    names = ("query", "key", "value")
    weights = {f"{name}.weight": one for name, one in zip(names, ours.qkv.weight.chunk(3), strict=True)}
    weights |= {f"{name}.bias": one for name, one in zip(names, ours.qkv.bias.chunk(3), strict=True)}
    weights["conv.weight"] = torch.zeros(4, 1, 1, 1) if ours.conv is None else ours.conv.weight
    theirs.load_state_dict(weights)
    assert_equal_with_gradients(ours, lambda x: ours.proj(theirs(x)[0]), images(tokens))


def test_segments_are_short_ones_then_long_ones_and_prefix_tokens_stand_alone():
    assert segment_bounds(13, 1, 5) == [(0, 1), (1, 3), (3, 5), (5, 7), (7, 10), (10, 13)]


@given(prefix=st.integers(0, 3), landmarks=st.integers(1, 12), more=st.integers(0, 40))
def test_segments_cover_every_token_once_and_differ_by_one(prefix, landmarks, more):
    count = prefix + landmarks + more
    bounds = segment_bounds(count, prefix, landmarks)
    assert [token for first, end in bounds for token in range(first, end)] == list(range(count))
    sizes = [end - first for first, end in bounds]
    assert sizes[:prefix] == [1] * prefix
    assert sizes[prefix:] == sorted(sizes[prefix:])
    assert sizes[-1] - sizes[prefix] <= 1
    x = torch.randn(1, 1, count, 2, dtype=torch.float64)
    means = torch.stack([x[:, :, first:end].mean(2) for first, end in bounds], dim=2)
    assert_close(segment_means(x, prefix, landmarks), means)


def test_fewer_patches_than_landmarks_are_refused_by_the_layer_itself():
    layer = build("nystrom(landmarks=8)", 32, 4, Tokens((4, 5)))
    with pytest.raises(ValueError, match="8 landmarks of 7 patches"):
        layer(torch.randn(1, 7, 32), torch.arange(7)[None])


def test_the_iteration_converges_to_torchs_pseudo_inverse():
    matrix = torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    errors = [
        (pseudo_inverse(matrix, steps) - torch.linalg.pinv(matrix)).abs().amax((-1, -2)).max() for steps in (2, 6, 30)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8


def test_a_matrix_does_not_feel_the_others_of_its_batch():
    flat, sharp = torch.full((1, 1, 5, 5), 0.2).double(), torch.eye(5).double()[None, None]
    assert_close(pseudo_inverse(torch.cat([flat, sharp]), 2)[1:], pseudo_inverse(sharp, 2))


def test_no_matrix_of_all_pairs_is_kept():
    layer = build("nystrom(landmarks=8)", 32, 4, Tokens((20, 20)))
    largest = 0

    def note(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(1, 400, 32))
    assert largest < 4 * 400 * 400 / 4


@pytest.mark.parametrize("bf16", [False, True])
def test_the_inverse_is_formed_in_float32(monkeypatch, bf16):
    seen = []
    original = pseudo_inverse
    monkeypatch.setattr(
        "saccade.attention.nystrom.pseudo_inverse", lambda a, steps: seen.append(a.dtype) or original(a, steps)
    )
    layer, x = build("nystrom", 32, 4, Tokens((4, 5))), torch.randn(2, 20, 32)
    with torch.autocast("cpu", torch.bfloat16):
        (layer.bfloat16() if bf16 else layer)(x)
    assert seen == [torch.float32]


@pytest.mark.parametrize(
    ("attention", "patches", "says"),
    [
        (
            "nystrom(landmarks=49)",
            None,
            "on 50 tokens, 49 of them patches: landmarks must be 1..48; more would be softmax",
        ),
        ("nystrom(landmarks=12)", 12, "on 13 tokens, 12 of them patches: landmarks must be 1..11"),
        ("nystrom(landmarks=1)", 1, "landmarks need at least 2 patches"),
        ("nystrom(landmarks=0)", None, "landmarks must be a whole number of at least 1"),
        ("nystrom(iterations=0)", None, "iterations must be a whole number of at least 1"),
        ("nystrom(convolution=4)", None, "must be odd, or 0 for none"),
        ("nystrom(landmark=4)", None, "did you mean landmarks?"),
    ],
)
def test_what_makes_no_sense_is_refused(attention, patches, says):
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        build(attention, 32, 4, Tokens((7, 7), prefix=1), patches=patches)


@pytest.mark.parametrize(("convolution", "more"), [(0, 0), (33, 4 * 33)])
def test_parameters_are_four_projections_and_one_kernel_a_head(convolution, more):
    layer = build(f"nystrom(convolution={convolution})", 32, 4, Tokens((7, 7)))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * 32**2 + 4 * 32 + more


def test_the_proposed_options_are_never_refused_on_two_patches_or_more():
    for patches in range(2, 200):
        tokens = Tokens((1, patches))
        assert Nystrom(32, 4, tokens, **Nystrom.options_for(tokens, patches)).refusal(patches) is None


def blocks_in_loops(layer, q, k, v, ids):
    """The published steps on the blocks of one image and head that have a visible patch, found by their bounds."""
    prefix, (rows, columns), side = layer.tokens.prefix, layer.tokens.grid, int(layer.landmarks**0.5)
    groups = [[token] for token in range(prefix)]
    for down in range(side):
        for across in range(side):
            inside = [
                prefix + place
                for place, one in enumerate(ids.tolist())
                if down <= one // columns * side / rows < down + 1
                and across <= one % columns * side / columns < across + 1
            ]
            groups += [inside] if inside else []
    q_marks, k_marks = (torch.stack([x[group].mean(0) for group in groups]) for x in (q, k))
    scale = q.shape[1] ** -0.5
    k2 = (scale * q_marks @ k_marks.T).softmax(1)
    z, one = k2.T / k2.sum(0).max(), torch.eye(len(groups), dtype=q.dtype)
    for _ in range(layer.iterations):
        z = z @ (13 * one - k2 @ z @ (15 * one - k2 @ z @ (7 * one - k2 @ z))) / 4
    return (scale * q @ k_marks.T).softmax(1) @ z @ (scale * q_marks @ k.T).softmax(1) @ v


# Of 3 x 3 blocks of a 7 x 5 grid none is as large as another; of 4 x 4 most are empty where 6 patches are visible.
@pytest.mark.parametrize(("landmarks", "patches"), [(9, None), (9, 11), (4, 20), (16, 17)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_blocks_of_the_grid_are_means_of_their_visible_patches(landmarks, patches, prefix):
    tokens = Tokens((7, 5), prefix)
    layer = lively(f"nystrom(two_d=True, landmarks={landmarks})", tokens)
    whole = torch.arange(tokens.patches).expand(2, -1)
    ids = None if patches is None else visible(2, tokens, patches)
    x = images(tokens)[:, : prefix + (patches or tokens.patches)].requires_grad_()
    q, k, v = layer.split(x)
    rows = [
        torch.stack([blocks_in_loops(layer, *(one[image, head] for one in (q, k, v)), places) for head in range(4)])
        for image, places in enumerate(whole if ids is None else ids)
    ]
    expected = layer.merge(torch.stack(rows))
    y = layer(x, ids)
    assert_close(y, expected)
    assert_close(slopes(y, [x, layer.qkv.weight]), slopes(expected, [x, layer.qkv.weight]))


def test_an_empty_block_is_no_landmark():
    tokens = Tokens((6, 6))
    layer = lively("nystrom(two_d=True, landmarks=9)", tokens)
    corner = torch.tensor([[0, 1, 6, 7, 14, 15, 20, 21, 34, 35]])
    members = block_members(tokens, corner, 3, corner.device)
    assert members.sum(2).tolist() == [[4, 0, 0, 0, 4, 0, 0, 0, 2]]
    x = images(tokens)[:1, :10].requires_grad_()
    y = layer(x, corner)
    assert all(values.isfinite().all() for values in (y, *slopes(y, [x])))
    # Three landmarks of their own: nothing of the other six is left.
    q, k, v = layer.split(x)
    marks = [torch.stack([one[:, :, a:z].mean(2) for a, z in ((0, 4), (4, 8), (8, 10))], dim=2) for one in (q, k)]
    assert_close(y, layer.merge(nystrom_attention(q, k, v, *marks)))


def test_one_visible_patch_a_block_or_none_gives_numbers_in_float32():
    tokens = Tokens((12, 12), prefix=1)
    layer = build("nystrom(two_d=True, landmarks=36)", 32, 4, tokens)
    ids = visible(2, tokens, 37)
    x = torch.randn(2, 38, 32, requires_grad=True)
    y = layer(x, ids)
    assert all(values.isfinite().all() for values in (y, *slopes(y, [x, *layer.parameters()])))


def test_blocks_of_a_single_column_are_segments():
    # One block a side is one segment of everything.
    tokens = Tokens((4, 5), prefix=1)
    blocks, segments = (lively(f"nystrom(landmarks=1, two_d={two_d})", tokens) for two_d in (True, False))
    assert_close(blocks(images(tokens)), segments(images(tokens)))


@pytest.mark.parametrize(
    ("landmarks", "grid", "says"),
    [
        (8, (7, 7), "landmarks must be a square number"),
        (16, (3, 20), "grid of 3 x 20: there must be no more blocks a side than patches, so landmarks must be 1..9"),
        (49, (7, 7), "49 of them patches: landmarks must be 1..48"),
    ],
)
def test_blocks_that_do_not_fit_the_grid_are_refused(landmarks, grid, says):
    with pytest.raises(ValueError, match=says):
        build(f"nystrom(two_d=True, landmarks={landmarks})", 32, 4, Tokens(grid))
