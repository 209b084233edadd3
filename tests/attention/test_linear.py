"""Linear attention against timm's, the formula of the paper, and itself in other tiles."""

import pytest
import torch
from tests.peers import timm
from torch.testing import assert_close

from saccade.attention import Tokens, build, linear


class EluPlusOne(torch.nn.Module):
    """The feature map of the paper, in the shape in which timm takes it."""

    def __init__(self, inplace):
        super().__init__()

    def forward(self, x):
        return torch.nn.functional.elu(x) + 1


def heads(n, e, shift=0.0, dtype=torch.float64, batch=3):
    """Queries, keys and values as views of one tensor, as a layer has them; `shift` moves queries and keys."""
    drawn = torch.randn(batch, n, 3, 2, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = drawn + torch.tensor([shift, shift, 0.0], dtype=torch.float64)[:, None, None]
    return [one.transpose(1, 2).requires_grad_() for one in moved.to(dtype).unbind(2)]


def timms(q, k, v):
    """timm's linear attention after its projections: features, then sums, a column of ones as the normaliser."""
    module = timm.models.efficientvit_mit.LiteMLA(16, 16, dim=16, kernel_func=EluPlusOne, scales=(), eps=1e-6)
    ones = torch.ones_like(v[..., :1])
    return module._attn(module.kernel_func(q), module.kernel_func(k), torch.cat([v, ones], dim=-1))


def layer_mix(n, e):
    """`mix` of a layer for n tokens and heads of width e: it chooses the order by itself."""
    layer = build("linear", 2 * e, 2, Tokens((1, n)))
    return lambda q, k, v: layer.mix(q, k, v, None)


def slopes(y, leaves):
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return torch.autograd.grad((y * weights).sum(), leaves)


# Where all features are small the epsilon in the denominator counts.
@pytest.mark.parametrize("shift", [0.0, -6.0])
@pytest.mark.parametrize(("n", "e"), [(50, 16), (7, 16)])
def test_it_is_timms_linear_attention_with_elu(n, e, shift):
    leaves = heads(n, e, shift, torch.float32)
    seen, expected = layer_mix(n, e)(*leaves), timms(*leaves)
    assert_close(seen, expected, rtol=1e-4, atol=1e-5)
    assert_close(slopes(seen, leaves), slopes(expected, leaves), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("order", [linear.by_pairs, linear.by_state, linear._ByState.apply])
def test_each_order_is_the_papers_row_sums(order):
    q, k, v = heads(9, 4, -3.0)
    rows = []
    for i in range(9):
        weights = [(linear.feature(q[:, :, i]) * linear.feature(k[:, :, j])).sum(-1, keepdim=True) for j in range(9)]
        rows.append(sum(weights[j] * v[:, :, j] for j in range(9)) / (sum(weights) + 1e-6))
    expected = torch.stack(rows, dim=2)
    assert_close(order(q, k, v), expected, rtol=1e-10, atol=1e-12)
    assert_close(slopes(order(q, k, v), (q, k, v)), slopes(expected, (q, k, v)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("values", [1, 200, 10**9])
def test_the_size_of_a_tile_changes_nothing(monkeypatch, values):
    monkeypatch.setattr(linear, "_TILE_VALUES", values)
    leaves = heads(20, 4)
    seen, expected = linear._ByState.apply(*leaves), linear.by_state(*leaves)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


def test_its_backward_pass_is_the_derivative():
    assert torch.autograd.gradcheck(linear._ByState.apply, heads(5, 4, batch=2))


@pytest.mark.parametrize(("n", "pairs"), [(16, True), (17, False)])
def test_pairs_are_formed_only_where_there_are_no_more_tokens_than_channels(monkeypatch, n, pairs):
    seen = []
    original = linear.by_pairs
    monkeypatch.setattr(linear, "by_pairs", lambda q, k, v: seen.append(q.shape[2]) or original(q, k, v))
    layer_mix(n, 16)(*heads(n, 16))
    assert bool(seen) == pairs


def test_nothing_is_kept_for_backward_but_inputs_output_and_sums():
    leaves = heads(300, 8, dtype=torch.float32)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer_mix(300, 8)(*leaves)
    needed = 4 * y.numel() * y.element_size()
    assert needed <= sum(kept.values()) < 1.1 * needed


def test_sums_are_exact_where_bf16_would_stop_counting():
    # A sum in bf16 stays at 256, since 256 + 1 is 256 there.
    q, k, v = (torch.ones(1, 2, 2000, 4, dtype=torch.bfloat16) for _ in range(3))
    assert_close(layer_mix(2000, 4)(q, k, v), v)


@pytest.mark.parametrize("n", [50, 7])
def test_autocast_does_not_reach_the_sums(n):
    leaves = heads(n, 16, dtype=torch.float32)
    expected = layer_mix(n, 16)(*leaves)
    with torch.autocast("cpu", torch.bfloat16):
        seen = layer_mix(n, 16)(*leaves)
    assert torch.equal(seen, expected)


def test_nor_does_it_when_backward_runs_inside():
    leaves = heads(50, 16, dtype=torch.float32)
    expected = slopes(linear._ByState.apply(*leaves), leaves)
    with torch.autocast("cpu", torch.bfloat16):
        seen = slopes(layer_mix(50, 16)(*leaves), leaves)
    assert_close(seen, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("options", "count"), [("", 4 * 48**2 + 4 * 48), ("(bias=False)", 4 * 48**2)])
def test_parameters_are_four_projections_and_no_bias_means_none(options, count):
    layer = build(f"linear{options}", 48, 4, Tokens((4, 7), prefix=1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


def test_its_cost_grows_with_the_number_of_tokens():
    layer = build("linear", 64, 4, Tokens((100, 100)))
    assert layer.mix_flops(10_000, 10_000) < 1.001 * 10 * layer.mix_flops(1_000, 1_000)


def test_one_wanted_row_spares_the_other_queries():
    layer = build("linear", 64, 4, Tokens((10, 10)))
    assert layer.flops(100, 1) < 0.6 * layer.flops(100)
