"""cosFormer against the paper's doubled features, weights written out, and itself in the other order."""

import math

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build, cosformer
from saccade.attention.cosformer import cosformer_attention

DIM, HEADS = 24, 3


def heads(n, e=4, dtype=torch.float64):
    drawn = torch.randn(2, n, 3, 2, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return [one.transpose(1, 2).detach().requires_grad_() for one in drawn.unbind(2)]


def papers(q, k, v):
    """Its equations 10 to 12: features times sine and cosine of πi/2M side by side, i = 1..N, M = N; sums once."""
    n = q.shape[2]
    index = math.pi / 2 * torch.arange(1, n + 1, dtype=q.dtype)[:, None] / n
    doubled = [torch.cat([x.relu() * index.sin(), x.relu() * index.cos()], dim=-1) for x in (q, k)]
    state = torch.einsum("bhjf,bhje->bhfe", doubled[1], v)
    total = torch.einsum("bhif,bhf->bhi", doubled[0], doubled[1].sum(2)).clamp_min(1e-6)
    return torch.einsum("bhif,bhfe->bhie", doubled[0], state) / total[..., None]


def written_out(q, k, v, weight):
    """Row by row; `weight(image, i, j)` is what the place of a pair multiplies its product with."""
    out = []
    for image in range(len(q)):
        rows = []
        for i in range(q.shape[2]):
            pairs = [
                (q[image, :, i].relu() * k[image, :, j].relu()).sum(-1, keepdim=True) * weight(image, i, j)
                for j in range(k.shape[2])
            ]
            total = sum(pairs).clamp_min(1e-6)
            rows.append(sum(pair * v[image, :, j] for j, pair in enumerate(pairs)) / total)
        out.append(torch.stack(rows, dim=1))
    return torch.stack(out)


# Fewer than 10 tokens are multiplied pair by pair, more are summed once.
@pytest.mark.parametrize("n", [1, 4, 9, 10, 30])
def test_it_is_the_papers(n):
    leaves = heads(n)
    seen, expected = cosformer_attention(*leaves), papers(*leaves)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


def test_a_layer_without_prefix_is_the_paper_between_projections():
    layer = lively("cosformer", DIM, HEADS, Tokens((5, 6)))
    x = images(2, 30, DIM).requires_grad_()
    q, k, v = (one.unflatten(2, (HEADS, -1)).transpose(1, 2) for one in layer.qkv(x).chunk(3, dim=2))
    expected = layer.proj(papers(q, k, v).transpose(1, 2).flatten(2))
    assert_close(layer(x), expected)
    leaves = [x, *layer.parameters()]
    assert_close(slopes(layer(x), leaves), slopes(expected, leaves))


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize(("grid", "patches"), [((3, 4), 12), ((3, 4), 5), ((6, 7), 42), ((6, 7), 38)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_weights_go_by_ids_on_the_whole_grid_and_the_prefix_has_no_place(prefix, grid, patches, two_d):
    tokens = Tokens(grid, prefix)
    layer = lively(f"cosformer(two_d={two_d})", 6, 3, tokens)
    ids = None if patches == tokens.patches else visible(2, tokens, patches)
    places = torch.arange(patches).expand(2, -1) if ids is None else ids

    def weight(image, i, j):
        if min(i, j) < prefix:
            return 1.0
        i, j = places[image, i - prefix].item(), places[image, j - prefix].item()
        if not two_d:
            return math.cos(math.pi * (i - j) / (2 * tokens.patches))
        down, right = i // grid[1] - j // grid[1], i % grid[1] - j % grid[1]
        return math.cos(math.pi * down / (2 * grid[0])) * math.cos(math.pi * right / (2 * grid[1]))

    x = images(2, prefix + patches, 6).requires_grad_()
    seen, expected = layer(x, ids), layer.merge(written_out(*layer.split(x), weight))
    assert_close(seen, expected)
    leaves = [x, layer.qkv.weight, layer.qkv.bias]
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("n", [5, 40])
def test_either_order_is_the_same_function(n, prefix, axes):
    q, k, v = leaves = heads(n)
    angles = torch.linspace(0, 1.5, (n - prefix) * axes, dtype=torch.float64).view(1, -1, axes)
    pairs, state = (order(q.relu(), k.relu(), v, angles) for order in (cosformer.by_pairs, cosformer.by_state))
    assert_close(pairs, state)
    assert_close(slopes(pairs, leaves), slopes(state, leaves))
    assert_close(cosformer_attention(q, k, v, angles), state)


@pytest.mark.parametrize(("n", "order"), [(9, "by_pairs"), (10, "by_state")])
def test_the_cheaper_order_runs(monkeypatch, n, order):
    ran = []
    for name in ("by_pairs", "by_state"):
        original = getattr(cosformer, name)
        monkeypatch.setattr(
            cosformer, name, lambda *inputs, name=name, original=original: ran.append(name) or original(*inputs)
        )
    # 4 N² e against 8 N e (e + 1), for e = 4.
    cosformer_attention(*heads(n))
    assert ran == [order]


def test_in_two_dimensions_of_which_one_is_flat_it_is_the_one():
    layers = [lively(f"cosformer(two_d={two_d})", DIM, HEADS, Tokens((1, 12), 1)) for two_d in (False, True)]
    x = images(2, 13, DIM)
    assert_close(layers[0](x), layers[1](x))


def test_only_in_two_dimensions_the_patch_below_is_as_near_as_the_one_beside():
    q, k = (torch.ones(1, 1, 16, 16, dtype=torch.float64) for _ in range(2))
    v = torch.eye(16, dtype=torch.float64)[None, None]
    for two_d, equal in ((False, False), (True, True)):
        layer = build(f"cosformer(two_d={two_d})", 16, 1, Tokens((4, 4)))
        seen_by_first = cosformer_attention(q, k, v, layer._angles(None, q))[0, 0, 0]
        assert (seen_by_first > 0).all()
        assert torch.isclose(seen_by_first[1], seen_by_first[4]).item() is equal
        assert seen_by_first[0] > seen_by_first[1] > seen_by_first[2] > seen_by_first[15]


@pytest.mark.parametrize("n", [4, 40])
def test_a_row_of_dead_features_gives_zero_and_finite_gradients(n):
    q, k, v = leaves = heads(n)
    with torch.no_grad():
        q[:, :, 2] = -1.0
    y = cosformer_attention(q, k, v)
    assert (y[:, :, 2] == 0).all()
    assert y.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes(y, leaves))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_exact_where_half_precision_would_stop_counting(dtype):
    # A sum in bf16 stays at 256, since 256 + 1 is 256 there; one in float16 ends at 65,504.
    q, k, v = (torch.full((1, 1, 2000, 4), 8.0, dtype=dtype) for _ in range(3))
    assert_close(cosformer_attention(q, k, v), v)


@pytest.mark.parametrize("n", [50, 7])
def test_in_bf16_only_the_result_is_rounded(n):
    leaves = heads(n, 16, dtype=torch.bfloat16)
    exact = cosformer_attention(*(x.double() for x in leaves))
    assert_close(cosformer_attention(*leaves), exact.bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("n", [50, 7])
def test_autocast_does_not_reach_the_sums(n):
    leaves = heads(n, 16, dtype=torch.float32)
    expected = cosformer_attention(*leaves)
    with torch.autocast("cpu", torch.bfloat16):
        seen = cosformer_attention(*leaves)
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("options", ["", "(two_d=True)"])
def test_parameters_are_four_projections(options):
    layer = build(f"cosformer{options}", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM
    assert list(layer.buffers()) == []


def test_its_cost_grows_with_the_number_of_tokens():
    layer = build("cosformer", 64, 4, Tokens((100, 100)))
    # Two products a token for each of two waves, and their sums.
    assert layer.mix_flops(10_000, 10_000) == 8 * 10_000 * 64 * (16 + 1)
    assert build("cosformer(two_d=True)", 64, 4, Tokens((100, 100))).mix_flops(10_000, 10_000) == 16 * 10_000 * 64 * 17
