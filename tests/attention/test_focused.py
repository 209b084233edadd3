"""Focused linear attention against the paper's sums, token by token and tap by tap."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.focused import feature, focused_attention

DIM, HEADS = 12, 3


def heads(n, rows=None, dtype=torch.float64):
    """Queries, keys and values of three heads, 4 channels each."""
    drawn = torch.randn(2, n, 3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    q, k, v = (one.transpose(1, 2) for one in drawn.unbind(2))
    return [one.detach().requires_grad_() for one in (q[:, :, :rows], k, v)]


def sharpened(x, scale, power):
    """f of a token x (channels of all heads)."""
    u = (x.relu() + 1e-6) / scale
    return u**power * u.square().sum().sqrt() / (u**power).square().sum().sqrt()


def token_by_token(q, k, v, scale, power):
    """The paper's equations on (tokens, channels) of one image: features of the whole width, then heads."""
    q, k = (torch.stack([sharpened(token, scale, power) for token in x]) for x in (q, k))
    out = []
    for head in range(HEADS):
        own = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
        state = sum(torch.outer(k[j, own], v[j, own]) for j in range(len(k))) / len(k)
        mean = sum(k[j, own] for j in range(len(k))) / len(k)
        out.append(torch.stack([q[i, own] @ state / (q[i, own] @ mean + 1e-6) for i in range(len(q))]))
    return torch.cat(out, dim=1)


def tap_by_tap(v, ids, conv, grid):
    """The depthwise convolution on (patches, channels) of one image; what is hidden is not there to be added."""
    half = conv.weight.shape[2] // 2
    rows = []
    for i in ids.tolist():
        row = conv.bias.repeat(HEADS)
        for j, seen in enumerate(ids.tolist()):
            down, right = seen // grid[1] - i // grid[1], seen % grid[1] - i % grid[1]
            if max(abs(down), abs(right)) <= half:
                row = row + conv.weight[:, 0, down + half, right + half].repeat(HEADS) * v[j]
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("options", ["", "(power=2,convolution=3)", "(convolution=0)", "(power=1,convolution=9)"])
@pytest.mark.parametrize("patches", [12, 7, 3])
@pytest.mark.parametrize("prefix", [0, 2])
def test_it_is_the_papers_sums_and_taps(prefix, patches, options):
    tokens = Tokens((3, 4), prefix)
    layer = lively(f"focused{options}", DIM, HEADS, tokens)
    ids = visible(2, tokens, patches)
    x = images(2, prefix + patches, DIM).requires_grad_()
    scale = torch.log(1 + layer.scale.exp())
    out = []
    for image in range(2):
        q, k, v = layer.qkv(x[image]).chunk(3, dim=1)
        own = torch.cat([torch.arange(prefix), prefix + ids[image]])
        y = token_by_token(q, k + layer.positions[own], v, scale, layer.power)
        if layer.conv is not None:
            near = tap_by_tap(v[prefix:], ids[image], layer.conv, tokens.grid)
            y = y + torch.cat([torch.zeros(prefix, DIM, dtype=y.dtype), near])
        out.append(layer.proj(y))
    expected, seen = torch.stack(out), layer(x, ids)
    assert_close(seen, expected)
    leaves = [x, *layer.parameters()]
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


@pytest.mark.parametrize(("n", "rows"), [(9, 9), (3, 3), (9, 2), (1, 1)])
def test_the_function_alone_is_the_linear_part(n, rows):
    leaves = heads(n, rows)
    scale = torch.linspace(0.5, 2, DIM, dtype=torch.float64)
    seen = focused_attention(*leaves, scale.view(HEADS, 1, -1), 3)
    flat = [x.transpose(1, 2).flatten(2) for x in leaves]
    expected = torch.stack([token_by_token(*(x[image] for x in flat), scale, 3) for image in range(2)])
    expected = expected.unflatten(2, (HEADS, -1)).transpose(1, 2)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("power", [1, 2, 3, 8])
def test_features_keep_the_norm_of_a_token_and_sharpen_its_direction(power):
    x = heads(9)[0].detach()
    u, sharp = feature(x, 1.0, 1), feature(x, 1.0, power)
    assert_close(sharp.norm(dim=(1, 3)), u.norm(dim=(1, 3)))
    assert_close(u, x.relu() + 1e-6)
    assert_close(sharp / sharp.amax((1, 3), keepdim=True), (u / u.amax((1, 3), keepdim=True)) ** power)


def test_norms_run_over_the_channels_of_all_heads():
    x = heads(9)[0].detach()
    alone = torch.cat([feature(x[:, h : h + 1], 1.0, 3) for h in range(HEADS)], dim=1)
    assert not torch.allclose(feature(x, 1.0, 3), alone, rtol=0.1)


@pytest.mark.parametrize("n", [3, 9])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5])
def test_both_means_are_over_the_same_number_of_tokens(size, n):
    # Where features are small the epsilon in the denominator counts, and N with it.
    q, k, v = (x.detach() for x in heads(n))
    q, k = size * q, size * k
    twice = [torch.cat([x, x], dim=2) for x in (k, v)]
    assert_close(focused_attention(q, *twice), focused_attention(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("power", [3, 9])
@pytest.mark.parametrize("n", [2, 9])
def test_no_power_overflows_or_vanishes(n, power, dtype):
    exact = heads(n)
    with torch.no_grad():
        exact[0].mul_(60)
        exact[1].mul_(60)
        exact[0][:, :, 1] = exact[1][:, :, 0] = -1.0
    leaves = [x.detach().to(dtype).requires_grad_() for x in exact]
    seen = focused_attention(*leaves, power=power)
    expected = focused_attention(*(x.double() for x in leaves), power=power)
    assert_close(seen.double(), expected, rtol=0.01, atol=1e-3)
    assert all(slope.isfinite().all() for slope in slopes(seen, leaves))


def test_sums_are_exact_where_bf16_would_stop_counting():
    q, k, v = (torch.ones(1, 1, 2000, 4, dtype=torch.bfloat16) for _ in range(3))
    assert_close(focused_attention(q, k, v), v)


@pytest.mark.parametrize("n", [50, 3])
def test_in_bf16_only_the_result_is_rounded(n):
    leaves = heads(n, dtype=torch.bfloat16)
    exact = focused_attention(*(x.double() for x in leaves))
    assert_close(focused_attention(*leaves), exact.bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("n", [50, 3])
def test_autocast_does_not_reach_the_sums(n):
    leaves = heads(n, dtype=torch.float32)
    expected = focused_attention(*leaves)
    with torch.autocast("cpu", torch.bfloat16):
        seen = focused_attention(*leaves)
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_kept_for_backward_but_inputs(dtype):
    leaves = heads(300, dtype=dtype)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = focused_attention(*leaves)
    assert sum(kept.values()) <= 3 * y.numel() * y.element_size()


@pytest.mark.parametrize("convolution", [0, 3, 5])
@pytest.mark.parametrize("prefix", [0, 1])
def test_parameters_are_projections_kernel_scale_and_positions(prefix, convolution):
    tokens = Tokens((3, 4), prefix)
    layer = build(f"focused(convolution={convolution})", DIM, HEADS, tokens)
    kernel = (convolution**2 + 1) * (DIM // HEADS) if convolution else 0
    expected = 4 * DIM**2 + 4 * DIM + kernel + DIM + tokens.count * DIM
    assert sum(parameter.numel() for parameter in layer.parameters()) == expected


def test_it_starts_without_positions_and_with_one_scale_for_all_channels():
    layer = build("focused", DIM, HEADS, Tokens((3, 4), 1))
    assert not layer.positions.any()
    assert not layer.scale.any()
    assert not layer.conv.bias.any()
    assert 0.15 < layer.conv.weight.abs().max() <= 0.2


def test_a_finer_grid_has_positions_between_the_old_ones():
    layer = lively("focused", DIM, HEADS, Tokens((4, 5), 2))
    with torch.no_grad():
        layer.positions[2:] = torch.arange(4.0).repeat_interleave(5)[:, None]
    finer = layer.regrid(Tokens((8, 5), 2))
    assert_close(finer.positions[:2], layer.positions[:2])
    rows = finer.positions[2:].unflatten(0, (8, 5))
    assert_close(rows[:, 0, 0].diff()[1:-1], torch.full((5,), 0.5, dtype=torch.float64))
    assert_close(rows, rows[:, :1, :1].expand_as(rows))
    assert layer.positions.shape == (22, DIM)


def test_its_cost_is_that_of_linear_attention_and_of_the_taps():
    layer = build("focused", 64, 4, Tokens((100, 100)))
    assert layer.mix_flops(10_000, 10_000) == 10_000 * 64 * (4 * 16 + 2 + 2 * 25)
    # The convolution runs over the whole grid, whatever is visible; few tokens are multiplied pair by pair.
    assert layer.mix_flops(10, 10) == 4 * 10 * 10 * 64 + 2 * 25 * 10_000 * 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("power=0", "power must be a whole number of at least 1"),
        ("power=True", "power must be a whole number of at least 1"),
        ("convolution=-1", "convolution must be a whole number of at least 0"),
        ("convolution=4", r"focused\(convolution=4\): must be odd, or 0 for none"),
    ],
)
def test_options_that_are_wrong_at_any_size_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(f"focused({options})", DIM, HEADS, Tokens((3, 4)))
