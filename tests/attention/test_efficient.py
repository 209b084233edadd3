"""Efficient attention against lucidrains' linear attention, and the weights that it never forms."""

import inspect

import pytest
import torch
from linear_attention_transformer.linear_attention_transformer import linear_attn
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.efficient import Efficient, efficient_attention
from saccade.attention.flops import counted_flops

DIM, HEADS = 24, 3


def heads(n, e=8, rows=None, batch=2, dtype=torch.float64):
    """Queries, keys and values as views of one tensor, as a layer has them."""
    drawn = torch.randn(batch, n, 3, 2, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    q, k, v = (one.transpose(1, 2) for one in drawn.unbind(2))
    return [one.detach().requires_grad_() for one in (q[:, :, :rows], k, v)]


# Fewer tokens than channels are multiplied in the other order.
@pytest.mark.parametrize("n", [1, 5, 8, 13, 50])
def test_it_is_lucidrains_linear_attention_without_its_factor(n):
    leaves = heads(n)
    seen, theirs = efficient_attention(*leaves), linear_attn(*leaves) * 8**0.5
    assert_close(seen, theirs)
    assert_close(slopes(seen, leaves), slopes(theirs, leaves))


@pytest.mark.parametrize(("n", "rows"), [(9, 9), (3, 3), (9, 2)])
@pytest.mark.parametrize("norm", ["softmax", "scale"])
def test_it_is_sums_token_by_token(norm, n, rows):
    q, k, v = leaves = heads(n, rows=rows)
    out = []
    for i in range(rows):
        row = torch.zeros(2, 2, 8, dtype=torch.float64)
        for j in range(n):
            if norm == "softmax":
                query = q[:, :, i].exp() / q[:, :, i].exp().sum(-1, keepdim=True)
                key = k[:, :, j].exp() / sum(k[:, :, other].exp() for other in range(n))
            else:
                query, key = q[:, :, i] / n**0.5, k[:, :, j] / n**0.5
            row = row + (query * key).sum(-1, keepdim=True) * v[:, :, j]
        out.append(row)
    expected, seen = torch.stack(out, dim=2), efficient_attention(q, k, v, norm)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("n", [1, 5, 50])
def test_its_rows_sum_to_one_without_a_normaliser(n):
    q, k, v = heads(n)
    assert_close(efficient_attention(q, k, torch.ones_like(v)), torch.ones_like(v))


def test_a_layer_is_the_function_between_projections():
    for norm in ("softmax", "scale"):
        layer = lively(f'efficient(norm="{norm}")', DIM, HEADS, Tokens((3, 4), 1))
        x = images(2, 13, DIM)
        q, k, v = (one.unflatten(2, (HEADS, -1)).transpose(1, 2) for one in layer.qkv(x).chunk(3, dim=2))
        assert_close(layer(x), layer.proj(efficient_attention(q, k, v, norm).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("norm", ["softmax", "scale"])
def test_visible_patches_are_all_there_is(norm):
    few, whole = (lively(f'efficient(norm="{norm}")', DIM, HEADS, Tokens(grid, 1)) for grid in ((1, 5), (3, 4)))
    x = images(2, 6, DIM)
    assert_close(whole(x, visible(2, Tokens((3, 4), 1), 5)), few(x))


def test_sums_are_exact_where_bf16_would_stop_counting():
    # A sum in bf16 stays at 256, since 256 + 1 is 256 there.
    for n, e in ((2000, 4), (300, 600)):
        q, k, v = (torch.ones(1, 2, n, e, dtype=torch.bfloat16) for _ in range(3))
        assert_close(efficient_attention(q, k, v), v)


@pytest.mark.parametrize("n", [50, 7])
@pytest.mark.parametrize("norm", ["softmax", "scale"])
def test_in_bf16_only_the_result_is_rounded(n, norm):
    leaves = heads(n, 16, dtype=torch.bfloat16)
    exact = efficient_attention(*(x.double() for x in leaves), norm)
    assert_close(efficient_attention(*leaves, norm), exact.bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("n", [50, 7])
@pytest.mark.parametrize("norm", ["softmax", "scale"])
def test_autocast_does_not_reach_the_sums(n, norm):
    leaves = heads(n, 16, dtype=torch.float32)
    expected = efficient_attention(*leaves, norm)
    with torch.autocast("cpu", torch.bfloat16):
        seen = efficient_attention(*leaves, norm)
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("options", ["", '(norm="scale")'])
def test_parameters_are_four_projections(options):
    layer = build(f"efficient{options}", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


def test_its_cost_grows_with_the_number_of_tokens():
    layer = build("efficient", 64, 4, Tokens((100, 100)))
    assert layer.mix_flops(10_000, 10_000) == 4 * 10_000 * 64 * 16
    # Where there are fewer tokens than channels, softmax's own two products are less work.
    assert layer.mix_flops(10, 10) == 4 * 10 * 10 * 64


@pytest.mark.parametrize(("n", "rows"), [(5, 5), (8, 8), (50, 50), (50, 3)])
def test_the_cheaper_order_runs(n, rows):
    q, k, v = heads(n, rows=rows, batch=1)
    orders = 2 * n * rows, 8 * (n + rows)
    assert counted_flops(lambda: efficient_attention(q, k, v)) == 2 * 2 * 8 * min(orders)


@pytest.mark.parametrize("norm", ["none", 1, True])
def test_another_norm_is_refused(norm):
    # The tests' own checks of types would refuse it first.
    unchecked = inspect.unwrap(Efficient.__init__)
    with pytest.raises(ValueError, match=r'efficient\(norm=.*\): norm must be "softmax" or "scale"'):
        unchecked(Efficient.__new__(Efficient), DIM, HEADS, Tokens((3, 4)), norm=norm)
