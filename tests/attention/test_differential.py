"""Differential attention against timm's, and the formula written out."""

import math

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.peers import timm
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.contract import gate
from saccade.attention.differential import Differential, differential_attention
from saccade.attention.made import enlivened

DIM, HEADS = 24, 3
TOKENS = Tokens((3, 4), prefix=1)


def assert_timms(layer, theirs, x, **tolerances):
    """Checks output, and the gradients of the input and of every parameter; names are equal."""
    theirs.double().load_state_dict(layer.state_dict())
    x = x.requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    y, expected = layer(x), theirs(x)
    assert_close(y, expected, **tolerances)
    ours = slopes(y, [x, *(layer.get_parameter(name) for name in names)])
    wanted = slopes(expected, [x, *(theirs.get_parameter(name) for name in names)])
    for name, gradient, other in zip(("x", *names), ours, wanted, strict=True):
        assert_close(gradient, other, **tolerances, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("depth", [0, 1, 11])
@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_with_two_numbers_it_is_timms(depth, qkv_bias, qk_norm):
    layer = Differential(DIM, HEADS, TOKENS, layer=depth, dual=True, qkv_bias=qkv_bias, qk_norm=qk_norm)
    layer = enlivened(layer, TOKENS.patches)
    theirs = timm.layers.DiffAttention(
        DIM, HEADS, qkv_bias, qk_norm, norm_layer=timm.layers.LayerNorm, depth=depth, dual_lambda=True
    )
    assert_timms(layer, theirs, images(2, 13, DIM))


@pytest.mark.parametrize("depth", [0, 5])
def test_with_four_vectors_it_is_timms(depth):
    layer = enlivened(Differential(DIM, HEADS, TOKENS, layer=depth), TOKENS.patches)
    theirs = timm.layers.DiffAttention(DIM, HEADS, qkv_bias=True, depth=depth)
    # Theirs rounds λ to float32.
    assert_timms(layer, theirs, images(2, 13, DIM), rtol=1e-5, atol=1e-6)


def literally(q, k, v, lambda_):
    """(A₁ - λA₂) V, number by number."""
    half = q.shape[-1] // 2
    y = torch.zeros(*q.shape[:3], v.shape[3], dtype=v.dtype)
    for image in range(q.shape[0]):
        for head in range(q.shape[1]):
            rows = []
            for query in q[image, head]:
                maps = []
                for c in (slice(0, half), slice(half, 2 * half)):
                    weights = torch.stack([(query[c] @ key[c] / math.sqrt(half)).exp() for key in k[image, head]])
                    maps.append(weights / weights.sum())
                rows.append((maps[0] - lambda_ * maps[1]) @ v[image, head])
            y[image, head] = torch.stack(rows)
    return y


def test_it_is_the_papers_sum_over_the_visible_patches_and_the_prefix():
    layer = enlivened(Differential(DIM, HEADS, TOKENS, layer=3), TOKENS.patches)
    x, ids = images(2, 1 + 5, DIM).requires_grad_(), visible(2, TOKENS, 5)
    q1, k1, q2, k2 = layer.lambda_q1, layer.lambda_k1, layer.lambda_q2, layer.lambda_k2
    lambda_0 = 0.8 - 0.6 * math.exp(-0.3 * 3)
    lambda_ = (q1 @ k1).exp() - (q2 @ k2).exp() + lambda_0
    y = literally(*layer.split(x), lambda_)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.sub_norm.weight * (1 - lambda_0)
    y = layer.proj(y.transpose(1, 2).flatten(2))
    seen = layer(x, ids)
    assert_close(seen, y)
    leaves = [x, layer.qkv.weight, q1, k1, q2, k2, layer.sub_norm.weight]
    assert_close(slopes(seen, leaves), slopes(y, leaves))


def test_the_function_is_the_difference_of_two_softmax_attentions():
    q, k, v = (images(2 * HEADS, 7, 8, seed).unflatten(0, (2, HEADS)).requires_grad_() for seed in range(3))
    expected = [
        torch.nn.functional.scaled_dot_product_attention(a, b, v)
        for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)
    ]
    y, wanted = differential_attention(q, k, v, 0.7), expected[0] - 0.7 * expected[1]
    assert_close(y, wanted)
    assert_close(slopes(y, [q, k, v]), slopes(wanted, [q, k, v]))
    assert_close(y, literally(q, k, v, 0.7))


def test_rows_of_the_map_sum_to_one_less_lambda_and_hold_negative_weights():
    q, k = (3 * images(2, 7, 8, seed)[:, None] for seed in range(2))
    weights = differential_attention(q, k, torch.eye(7, dtype=torch.float64).expand(2, 1, 7, 7), 0.7)
    assert_close(weights.sum(-1), torch.full((2, 1, 7), 0.3, dtype=torch.float64))
    assert weights.min() < -0.1


def test_rotary_positions_turn_each_half_by_itself():
    """As a softmax layer of twice the heads rotates its own, whose heads are these halves."""
    rotated = lively("differential(rope=True)", 48, 3, TOKENS)
    softmax = build("softmax(rope=True)", 48, 6, TOKENS).double()
    softmax.load_state_dict({name: value for name, value in rotated.state_dict().items() if name[0] in "qp"})
    x, ids = images(2, 6, 48), visible(2, TOKENS, 5)
    for rows in (None, slice(2, 5)):
        for ours, theirs in zip(rotated.split(x, ids, rows)[:2], softmax.split(x, ids, rows)[:2], strict=True):
            assert_close(torch.stack(ours.chunk(2, -1), 2).flatten(1, 2), theirs)


def test_lambda_starts_near_the_layers_own_constant():
    for depth, expected in ((0, 0.2), (1, 0.8 - 0.6 * math.exp(-0.3)), (11, 0.8 - 0.6 * math.exp(-3.3))):
        assert Differential(DIM, HEADS, TOKENS, layer=depth, dual=True).lambda_().item() == pytest.approx(expected)
        assert Differential(DIM, HEADS, TOKENS, layer=depth).lambda_().item() == pytest.approx(expected, abs=0.3)
    assert build("differential", DIM, HEADS, TOKENS, layer=4).lambda_0 == pytest.approx(0.8 - 0.6 * math.exp(-1.2))


def test_the_vectors_start_normal_of_a_tenth():
    layer = Differential(2048, 1, TOKENS)
    for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
        assert layer.get_parameter(name).std().item() == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(layer.lambda_q1, layer.lambda_q2)


@pytest.mark.parametrize("depth", [0, 11])
def test_in_half_precision_a_deep_layer_keeps_its_digits(depth):
    """λ near 0.8 takes most of a flat map away: what is left must not be rounding."""
    layer = Differential(48, 4, Tokens((14, 14), 1), layer=depth)
    x = images(1, 197, 48).bfloat16()
    half = layer.bfloat16()(x).float()
    exact = layer.float()(x.float())
    assert (half - exact).norm() / exact.norm() < 0.02


def test_in_half_precision_the_gradient_of_lambda_keeps_its_digits():
    """It is a sum over all weights of the second map, of either sign: scores rounded to bf16 put it 4 % off."""
    gate("differential", 48, 4, Tokens((14, 14), prefix=1), dtype=torch.bfloat16)


@pytest.mark.parametrize(("options", "more"), [("", 3 * DIM // HEADS), ("(dual=True)", 2 + DIM // HEADS)])
def test_parameters_are_four_projections_and_three_widths_of_a_head(options, more):
    layer = build(f"differential{options}", DIM, HEADS, TOKENS)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM + more


def test_both_maps_cost_one_softmax_of_whole_heads():
    layer, softmax = (build(name, DIM, HEADS, TOKENS) for name in ("differential", "softmax"))
    assert layer.mix_flops(12, 13) == softmax.mix_flops(12, 13) == 2 * 2 * 13**2 * DIM
    assert layer.flops(12, 1) == 2 * DIM**2 * (1 + 2 * 13 + 1) + 2 * 2 * 13 * DIM


def test_a_head_of_odd_width_is_refused():
    with pytest.raises(ValueError, match=r"heads of width 3 \(24 / 8\): needs an even width"):
        build("differential", 24, 8, TOKENS)
    build("differential", 24, 12, TOKENS)


def test_rotary_positions_need_halves_of_four_channels():
    with pytest.raises(ValueError, match=r"differential\(rope=True\) with heads of width 12 .*: needs a multiple of 8"):
        build("differential(rope=True)", 48, 4, TOKENS)
    build("differential(rope=True)", 48, 3, TOKENS)
