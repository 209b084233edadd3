"""Cross-covariance attention against timm's, vit-pytorch's, and channels written out."""

import pytest
import torch
from tests.attention.agreement import enliven, images, lively, slopes, visible
from tests.peers import timm
from torch.testing import assert_close
from vit_pytorch.xcit import XCAttention

from saccade.attention import Tokens, build
from saccade.attention.xca import xca_attention

DIM, HEADS = 24, 3


def heads(n, e=8, dtype=torch.float64):
    drawn = torch.randn(2, n, 3, HEADS, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return [one.transpose(1, 2).detach().requires_grad_() for one in drawn.unbind(2)]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("tokens", [Tokens((3, 4), 1), Tokens((7, 7), 1), Tokens((1, 1))])
def test_it_is_timms(tokens, fused):
    layer = lively("xca", DIM, HEADS, tokens)
    theirs = timm.models.xcit.XCA(DIM, HEADS, qkv_bias=True).double()
    theirs.fused_attn = fused
    state = layer.state_dict()
    theirs.load_state_dict({**state, "temperature": state["temperature"].view(HEADS, 1, 1)})
    x = images(2, tokens.count, DIM).requires_grad_()
    y, expected = layer(x), theirs(x)
    assert_close(y, expected)
    leaves = [[x, *(module.get_parameter(name) for name in state)] for module in (layer, theirs)]
    for seen, wanted in zip(slopes(y, leaves[0]), slopes(expected, leaves[1]), strict=True):
        assert_close(seen, wanted.view_as(seen))


def test_it_is_vit_pytorchs_whose_temperature_is_the_exponential_of_a_parameter():
    layer = lively("xca(qkv_bias=False)", DIM, HEADS, Tokens((3, 4)))
    theirs = XCAttention(DIM, HEADS, DIM // HEADS).double()
    enliven(theirs)
    theirs.norm.reset_parameters()
    with torch.no_grad():
        layer.qkv.weight.copy_(theirs.to_qkv.weight)
        layer.proj.weight.copy_(theirs.to_out[0].weight)
        layer.proj.bias.copy_(theirs.to_out[0].bias)
        layer.temperature.copy_(theirs.temperature.exp().flatten())
    x = images(2, 12, DIM)
    assert_close(layer(theirs.norm(x)), theirs(x))


def test_it_is_products_channel_by_channel():
    q, k, v = leaves = heads(5, 4)
    temperature = torch.tensor([0.5, 1.0, 7.0], dtype=torch.float64, requires_grad=True)
    images_ = []
    for image in range(2):
        heads_ = []
        for head in range(HEADS):
            columns = []
            for a in range(4):
                query = q[image, head, :, a] / q[image, head, :, a].square().sum().sqrt()
                scores = []
                for b in range(4):
                    key = k[image, head, :, b] / k[image, head, :, b].square().sum().sqrt()
                    scores.append(temperature[head] * (query * key).sum())
                weights = torch.stack(scores).softmax(0)
                columns.append(sum(weights[b] * v[image, head, :, b] for b in range(4)))
            heads_.append(torch.stack(columns, dim=1))
        images_.append(torch.stack(heads_))
    expected, seen = torch.stack(images_), xca_attention(q, k, v, temperature)
    assert_close(seen, expected)
    assert_close(slopes(seen, [*leaves, temperature]), slopes(expected, [*leaves, temperature]))


def test_without_a_temperature_it_is_one():
    leaves = heads(9)
    assert_close(xca_attention(*leaves), xca_attention(*leaves, torch.ones(HEADS, dtype=torch.float64)))


def test_a_lone_token_has_channels_of_plus_and_minus_one():
    q, k, v = heads(1)
    weights = (q.sign().mT * k.sign()).softmax(-1)
    assert_close(xca_attention(q, k, v), v @ weights.mT)


def test_channels_of_zeros_weigh_all_alike_with_finite_gradients():
    leaves = heads(5)
    with torch.no_grad():
        leaves[0][..., 2] = 0
        leaves[1][..., 3] = 0
    y = xca_attention(*leaves)
    assert_close(y[..., 2], leaves[2].mean(-1))
    assert all(slope.isfinite().all() for slope in slopes(y, leaves))


def test_the_size_of_queries_and_keys_does_not_matter():
    q, k, v = heads(9)
    assert_close(xca_attention(1e-3 * q, 1e4 * k, v), xca_attention(q, k, v))


def test_visible_patches_are_all_there_is():
    few, whole = (lively("xca", DIM, HEADS, Tokens(grid, 1)) for grid in ((1, 5), (3, 4)))
    x = images(2, 6, DIM)
    assert_close(whole(x, visible(2, Tokens((3, 4), 1), 5)), few(x))


def test_in_bf16_scores_are_not_rounded():
    # A score of 50 is known to 0.1 in bf16.
    temperature = torch.full((HEADS,), 50.0)
    leaves = heads(2000, dtype=torch.bfloat16)
    exact = xca_attention(*(x.double() for x in leaves), temperature.double())
    assert_close(xca_attention(*leaves, temperature).double(), exact, rtol=2**-7, atol=2**-7)


def test_autocast_does_not_reach_the_sums():
    leaves = heads(50, dtype=torch.float32)
    expected = xca_attention(*leaves)
    with torch.autocast("cpu", torch.bfloat16):
        seen = xca_attention(*leaves)
    assert torch.equal(seen, expected)


def test_parameters_are_four_projections_and_a_temperature_a_head():
    layer = build("xca", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM + HEADS
    assert layer.temperature.tolist() == [1.0] * HEADS


def test_weight_decay_leaves_the_temperature_alone():
    # The optimiser decays what has two axes or more.
    assert build("xca", DIM, HEADS, Tokens((3, 4))).temperature.ndim == 1


def test_it_is_cheaper_than_softmax_where_there_are_more_tokens_than_channels_in_a_head():
    for patches, cheaper in ((8, False), (9, True)):
        tokens = Tokens((1, patches))
        xca, softmax = (build(name, DIM, HEADS, tokens).mix_flops(patches, patches) for name in ("xca", "softmax"))
        assert (xca < softmax) is cheaper


@pytest.mark.parametrize("option", ["rope", "qk_norm"])
def test_options_of_tokens_are_refused(option):
    with pytest.raises(ValueError, match=rf"xca\({option}=True\): {option} must be False, for it compares channels"):
        build(f"xca({option}=True)", DIM, HEADS, Tokens((3, 4)))
