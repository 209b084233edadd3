"""Hydra attention against sums written out, and against itself with other heads."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.hydra import hydra_attention

DIM = 24


def heads(n, rows=None, dtype=torch.float64):
    """Queries, keys and values of three heads, 8 channels each."""
    drawn = torch.randn(2, n, 3, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    q, k, v = (one.transpose(1, 2) for one in drawn.unbind(2))
    return [one.detach().requires_grad_() for one in (q[:, :, :rows], k, v)]


def written_out(q, k, v, mean=False):
    """The paper's sum, channel by channel, on (batch, tokens, channels)."""
    q, k, v = (x.transpose(1, 2).flatten(2) for x in (q, k, v))
    columns = []
    for channel in range(q.shape[2]):
        total = 0
        for j in range(k.shape[1]):
            total = total + k[:, j, channel] / k[:, j].square().sum(1).sqrt() * v[:, j, channel]
        total = total / k.shape[1] if mean else total
        columns.append(q[:, :, channel] / q.square().sum(2).sqrt() * total[:, None])
    return torch.stack(columns, dim=2).unflatten(2, (3, 8)).transpose(1, 2)


@pytest.mark.parametrize(("n", "rows"), [(9, 9), (1, 1), (9, 2)])
@pytest.mark.parametrize("mean", [False, True])
def test_it_is_the_papers_sum(mean, n, rows):
    leaves = heads(n, rows)
    seen, expected = hydra_attention(*leaves, mean), written_out(*leaves, mean)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


def test_it_is_cosine_attention_with_as_many_heads_as_channels():
    # A head of one channel: its weights are the products of two numbers.
    q, k, v = heads(9)
    one_channel = [x.transpose(1, 2).flatten(2).mT[..., None] for x in (q, k, v)]
    unit = [torch.nn.functional.normalize(x, dim=1) for x in one_channel[:2]]
    expected = (unit[0] @ unit[1].mT @ one_channel[2])[..., 0].unflatten(1, (3, 8)).mT
    assert_close(hydra_attention(q, k, v), expected)


@pytest.mark.parametrize("num_heads", [1, 2, 24])
def test_heads_are_ignored(num_heads):
    few, many = (lively("hydra", DIM, number, Tokens((3, 4), 1)) for number in (3, num_heads))
    x = images(2, 13, DIM)
    assert_close(few(x), many(x))


def test_a_layer_is_the_function_between_projections():
    for options, mean in (("", False), ("(mean=True)", True)):
        layer = lively(f"hydra{options}", DIM, 3, Tokens((3, 4), 1))
        x = images(2, 13, DIM)
        q, k, v = (one.unflatten(2, (3, 8)).transpose(1, 2) for one in layer.qkv(x).chunk(3, dim=2))
        assert_close(layer(x), layer.proj(written_out(q, k, v, mean).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("mean", [False, True])
def test_visible_patches_are_all_there_is(mean):
    few, whole = (lively(f"hydra(mean={mean})", DIM, 3, Tokens(grid, 1)) for grid in ((1, 5), (3, 4)))
    x = images(2, 6, DIM)
    assert_close(whole(x, visible(2, Tokens((3, 4), 1), 5)), few(x))


def test_only_the_mean_is_of_one_size_whatever_the_number_of_tokens():
    q, k, v = heads(9)
    twice = [torch.cat([x, x], dim=2) for x in (k, v)]
    assert_close(hydra_attention(q, *twice), 2 * hydra_attention(q, k, v))
    assert_close(hydra_attention(q, *twice, mean=True), hydra_attention(q, k, v, mean=True))


def test_a_token_of_zeros_gives_zeros_and_finite_gradients():
    leaves = heads(5)
    with torch.no_grad():
        leaves[0][:, :, 1] = leaves[1][:, :, 2] = 0
    y = hydra_attention(*leaves)
    assert (y[:, :, 1] == 0).all()
    assert y.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes(y, leaves))
    others = [x.detach()[:, :, [0, 1, 3, 4]] for x in leaves[1:]]
    assert_close(y, hydra_attention(leaves[0], *others))


def test_sums_are_exact_where_bf16_would_stop_counting():
    q, k, v = (torch.ones(1, 1, 2000, 4, dtype=torch.bfloat16) for _ in range(3))
    # Each token's channels are 1/2 of its norm.
    assert_close(hydra_attention(q, k, v), torch.full_like(v, 500))


@pytest.mark.parametrize("mean", [False, True])
def test_in_bf16_only_the_result_is_rounded(mean):
    leaves = heads(50, dtype=torch.bfloat16)
    exact = hydra_attention(*(x.double() for x in leaves), mean)
    assert_close(hydra_attention(*leaves, mean), exact.bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("mean", [False, True])
def test_autocast_does_not_reach_the_sums(mean):
    leaves = heads(50, dtype=torch.float32)
    expected = hydra_attention(*leaves, mean)
    with torch.autocast("cpu", torch.bfloat16):
        seen = hydra_attention(*leaves, mean)
    assert torch.equal(seen, expected)


def test_no_normalised_copy_is_kept_for_backward():
    leaves = heads(300, dtype=torch.float32)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = hydra_attention(*leaves)
    # q, k, v, the product of k and v, that of q and the sum, and the rows whose norms are taken.
    assert sum(kept.values()) < 7.3 * y.numel() * y.element_size()


@pytest.mark.parametrize("options", ["", "(mean=True)"])
def test_parameters_are_four_projections(options):
    layer = build(f"hydra{options}", DIM, 3, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


def test_its_cost_is_one_product_a_number():
    assert build("hydra", 64, 4, Tokens((10, 10))).mix_flops(100, 100) == 2 * 100 * 64


@pytest.mark.parametrize("option", ["rope", "qk_norm"])
def test_options_of_heads_are_refused(option):
    with pytest.raises(ValueError, match=rf"hydra\({option}=True\): {option} must be False, for its heads are one"):
        build(f"hydra({option}=True)", DIM, 3, Tokens((3, 4)))
