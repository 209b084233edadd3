"""Synthesizer against the paper's formulas written out, and softmax whose scores are the same logits."""

import math

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.made import enlivened
from saccade.attention.synthesizer import Synthesizer, factors, outer_logits, synthesized

DIM, HEADS = 24, 3
KINDS = ("dense", "factorized_dense", "random", "factorized_random")
TOKENS = Tokens((3, 4), prefix=2)


def made(kind, tokens=TOKENS, **options):
    return enlivened(Synthesizer(DIM, HEADS, tokens, kind=kind, rank=3, **options), tokens.patches)


def places(ids, tokens):
    """Where each token stands in the whole sequence: the prefix first."""
    return list(range(tokens.prefix)) + [tokens.prefix + i for i in ids.tolist()]


def logit(layer, head, token, i, j):
    """S_ij of one head by the paper: `token` stands at place i."""
    own = layer.logits
    if layer.kind == "dense":
        hidden = torch.relu(own.hidden.weight @ token + own.hidden.bias)
        return own.weight[head, j] @ hidden + own.bias[head, j]
    if layer.kind == "factorized_dense":
        a = math.ceil(math.sqrt(layer.tokens.count))
        f = own.weight_f[head] @ token + own.bias_f[head]
        g = own.weight_g[head] @ token + own.bias_g[head]
        return f[j % a] * g[j // a]
    if layer.kind == "random":
        return own.S[head, i, j]
    return own.R1[head, i] @ own.R2[head, :, j]


def literally(layer, x, ids):
    """Every weight of every pair by itself."""
    images_ = []
    for tokens, own in zip(x, ids, strict=True):
        at = places(own, layer.tokens)
        heads = []
        for head in range(HEADS):
            channels = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
            values = tokens @ layer.v.weight[channels].T + layer.v.bias[channels]
            rows = [
                torch.stack([logit(layer, head, token, i, j) for j in at]) for token, i in zip(tokens, at, strict=True)
            ]
            heads.append(torch.stack(rows).softmax(-1) @ values)
        images_.append(torch.cat(heads, dim=-1) @ layer.proj.weight.T + layer.proj.bias)
    return torch.stack(images_)


@pytest.mark.parametrize("visible_patches", [5, 12])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_papers_formula(kind, prefix, visible_patches):
    tokens = Tokens((3, 4), prefix)
    layer, x = made(kind, tokens), images(2, prefix + visible_patches, DIM).requires_grad_()
    ids = visible(2, tokens, visible_patches)
    y, expected = layer(x, ids), literally(layer, x, ids)
    assert_close(y, expected)
    leaves = [x, *layer.parameters()]
    assert_close(slopes(y, leaves), slopes(expected, leaves))
    if visible_patches == 12:
        assert_close(layer(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gathering_before_the_softmax_is_masking_the_whole_sequence(kind):
    layer, ids = made(kind), visible(2, TOKENS, 5)
    at = torch.tensor([places(own, TOKENS) for own in ids])
    whole = images(2, TOKENS.count, DIM)
    x = whole.gather(1, at[..., None].expand(-1, -1, DIM))
    everything = torch.arange(TOKENS.patches).expand(2, -1)
    logits = layer.logits.wanted(whole, slice(None), layer._ids(everything))
    seen = torch.zeros(2, TOKENS.count, dtype=torch.bool).scatter(1, at, True)
    masked = synthesized(logits.masked_fill(~seen[:, None, None], -torch.inf), layer._values(whole))
    expected = layer.proj(masked.transpose(1, 2).flatten(2)).gather(1, at[..., None].expand(-1, -1, DIM))
    assert_close(layer(x, ids), expected)


def test_the_function_is_softmax_attention_with_these_scores():
    """Torch's own, whose queries and keys are all zero and whose additive mask is S."""
    v = images(2 * HEADS, 7, 8).unflatten(0, (2, HEADS)).requires_grad_()
    for batch in (1, 2):
        logits = images(batch * HEADS, 7, 7, seed=1).unflatten(0, (batch, HEADS)).requires_grad_()
        zeros = torch.zeros(2, HEADS, 7, 8, dtype=torch.float64)
        mask = logits.expand(2, -1, -1, -1)
        expected = torch.nn.functional.scaled_dot_product_attention(zeros, zeros, v, attn_mask=mask)
        y = synthesized(logits, v)
        assert_close(y, expected)
        assert_close(slopes(y, [logits, v]), slopes(expected, [logits, v]))


@pytest.mark.parametrize(("count", "widths"), [(1, (1, 1)), (2, (2, 1)), (16, (4, 4)), (17, (5, 4)), (197, (15, 14))])
def test_a_row_is_the_outer_product_of_factors_of_its_root(count, widths):
    assert factors(count) == widths
    assert math.prod(widths) >= count


def test_no_two_columns_share_a_logit():
    """Repeating both factors alike would leave 4 distinct logits of 16."""
    f, g = (torch.tensor(values).view(1, 1, 1, 4) for values in ([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 1000.0]))
    every = outer_logits(f, g, 16, None)
    assert every.unique().numel() == 16
    assert every.flatten()[:6].tolist() == [1, 2, 3, 4, 10, 20]
    some = torch.tensor([[0, 3, 6, 15]])
    assert outer_logits(f, g, 16, some).flatten().tolist() == [1, 4, 30, 4000]


@pytest.mark.parametrize("kind", ["random", "factorized_random"])
def test_learned_weights_are_of_no_image(kind):
    layer, x = made(kind), images(1, TOKENS.count, DIM)
    assert_close(layer(3 * x) - layer(2 * x), layer(2 * x) - layer(x))


@pytest.mark.parametrize("kind", ["dense", "factorized_dense"])
def test_weights_made_of_tokens_change_with_them(kind):
    layer, x = made(kind), images(1, TOKENS.count, DIM)
    assert ((layer(3 * x) - layer(2 * x)) - (layer(2 * x) - layer(x))).abs().max() > 0.01


def added(kind, N, h, d, r):
    """What each kind adds to the two projections."""
    a = math.ceil(math.sqrt(N))
    b = math.ceil(N / a)
    return {
        "dense": d**2 + d + h * N * (d + 1),
        "factorized_dense": h * (a + b) * (d + 1),
        "random": h * N**2,
        "factorized_random": 2 * h * N * r,
    }[kind]


@pytest.mark.parametrize(("dim", "heads", "tokens"), [(24, 3, TOKENS), (768, 12, Tokens((14, 14), 1))])
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_two_projections_and_the_logits(kind, dim, heads, tokens):
    with torch.device("meta"):
        layer = build(f'synthesizer(kind="{kind}",rank=5)', dim, heads, tokens)
    expected = 2 * dim**2 + 2 * dim + added(kind, tokens.count, heads, dim, 5)
    assert sum(parameter.numel() for parameter in layer.parameters()) == expected


@pytest.mark.parametrize(
    ("kind", "macs"),
    [
        ("dense", lambda n, d, h: n * d**2 + n * d * h * n),
        ("factorized_dense", lambda n, d, h: n * d * h * (4 + 4)),
        ("random", lambda n, d, h: 0),
        ("factorized_random", lambda n, d, h: h * n**2 * 3),
    ],
)
def test_it_costs_what_the_visible_tokens_cost(kind, macs):
    layer = made(kind)
    for patches in (5, 12):
        n = patches + 2
        assert layer.flops(patches) == 2 * (2 * n * DIM**2 + macs(n, DIM, HEADS) + n**2 * DIM)


def test_learned_logits_start_with_a_deviation_of_one():
    tokens = Tokens((14, 14), 1)
    for rank in (1, 8, 64):
        logits = Synthesizer(DIM, HEADS, tokens, kind="factorized_random", rank=rank).logits
        assert (logits.R1 @ logits.R2).std().item() == pytest.approx(1, abs=0.25)
        assert logits.R1.std().item() == pytest.approx(rank**-0.25, rel=0.1)
    S = Synthesizer(DIM, HEADS, tokens, kind="random").logits.S
    assert S.std().item() == pytest.approx(1, rel=0.02)
    assert S.abs().max() > 3


def smooth(tokens):
    """A logit for each token that varies slowly along the grid, and one of its own for each prefix token."""
    rows, columns = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in tokens.grid)
    prefix = torch.arange(tokens.prefix, dtype=torch.float64) - 5
    return torch.cat([prefix, (rows[:, None] + 2 * columns).flatten()])


@pytest.mark.parametrize("grid", [(16, 16), (8, 24), (4, 4)])
def test_another_grid_keeps_logits_that_vary_slowly(grid):
    old, new = Tokens((8, 8), 2), Tokens(grid, 2)
    along, expected = smooth(old), smooth(new)
    near = {"rtol": 0, "atol": 0.1}
    with torch.no_grad():
        dense = made("dense", old)
        dense.logits.bias.copy_(along.expand(HEADS, -1))
        dense.logits.weight.copy_(along[:, None].expand(HEADS, -1, DIM))
        wider = dense.regrid(new).logits
        assert_close(wider.bias, expected.expand(HEADS, -1), **near)
        assert_close(wider.weight, expected[:, None].expand(HEADS, -1, DIM), **near)
        random = made("random", old)
        random.logits.S.copy_((along[:, None] - 3 * along).expand(HEADS, -1, -1))
        assert_close(
            random.regrid(new).logits.S, (expected[:, None] - 3 * expected).expand(HEADS, -1, -1), rtol=0, atol=0.4
        )
        factorized = made("factorized_random", old)
        factorized.logits.R1.copy_(along[:, None].expand(HEADS, -1, 3))
        factorized.logits.R2.copy_(along.expand(HEADS, 3, -1))
        wider = factorized.regrid(new).logits
        assert_close(wider.R1, expected[:, None].expand(HEADS, -1, 3), **near)
        assert_close(wider.R2, expected.expand(HEADS, 3, -1), **near)


def test_factors_of_a_square_grid_are_its_rows_and_columns_on_another():
    layer = made("factorized_dense", Tokens((6, 6)))
    finer = layer.regrid(Tokens((12, 12)))
    assert finer.logits.weight_f.shape == (HEADS, 12, DIM)
    x = images(1, 1, DIM)
    coarse = layer.logits.wanted(x, slice(None), None).view(HEADS, 1, 6, 6)
    fine = finer.logits.wanted(x, slice(None), None).view(HEADS, 1, 12, 12)
    assert_close(fine, torch.nn.functional.interpolate(coarse, (12, 12), mode="bilinear"))


@pytest.mark.parametrize("kind", KINDS)
def test_another_grid_has_all_the_parameters_of_a_new_layer(kind):
    new = Tokens((5, 7), 2)
    shapes = {name: value.shape for name, value in made(kind).regrid(new).state_dict().items()}
    assert shapes == {name: value.shape for name, value in made(kind, new).state_dict().items()}


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        build('synthesizer(kind="vanilla")', DIM, HEADS, TOKENS)


@pytest.mark.parametrize("rank", [0, -1, True])
def test_rank_is_a_whole_number(rank):
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1"):
        build(f"synthesizer(rank={rank})", DIM, HEADS, TOKENS)


def test_a_rank_of_all_tokens_is_refused():
    with pytest.raises(ValueError, match=r"rank=14\) on 14 tokens: rank must be 1..13; more would be"):
        build('synthesizer(kind="factorized_random",rank=14)', DIM, HEADS, TOKENS)
    with pytest.raises(ValueError, match="needs at least 2 tokens"):
        build('synthesizer(kind="factorized_random",rank=1)', DIM, HEADS, Tokens((1, 1)))
    build('synthesizer(kind="factorized_random",rank=13)', DIM, HEADS, TOKENS)
    build('synthesizer(kind="dense",rank=14)', DIM, HEADS, TOKENS)


def test_it_has_no_queries_and_no_keys():
    layer = lively("synthesizer", DIM, HEADS, TOKENS)
    assert {name.split(".")[0] for name in layer.state_dict()} == {"v", "logits", "proj"}
    with pytest.raises(ValueError, match="synthesizer has no option 'rope'"):
        build("synthesizer(rope=True)", DIM, HEADS, TOKENS)
