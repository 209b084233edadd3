"""Agent attention against agent-attention-pytorch, two calls of softmax attention, and the formula written out."""

import math

import pytest
import torch
from agent_attention_pytorch import AgentSelfAttention
from tests.attention.agreement import images, lively, slopes, visible
from torch.nn.functional import adaptive_avg_pool2d, interpolate, scaled_dot_product_attention
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.agent import Agent, agent_attention, mean_queries

DIM, HEADS = 24, 3
WIDTH = DIM // HEADS
TOKENS = Tokens((4, 5), prefix=2)
BARE = "convolution=False,qkv_bias=False"


def package(layer):
    """The package's layer with our weights, as the paper has it: no gates, no talking heads."""
    theirs = AgentSelfAttention(
        DIM, num_agent_tokens=layer.agents**2, dim_head=WIDTH, heads=HEADS, talking_heads=False, gate=False
    ).double()
    theirs.to_qkv[0].weight.data = layer.qkv.weight.detach().clone()
    theirs.to_out[1].weight.data = layer.proj.weight.detach().clone()
    return theirs


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("prefix", [0, 2])
def test_it_is_the_packages_agent_attention_with_agents_pooled_from_the_queries(prefix, side):
    tokens = Tokens((4, 5), prefix)
    layer = lively(f"agent(agents={side},{BARE})", DIM, HEADS, tokens)
    layer.proj.bias.data.zero_()
    theirs, x = package(layer), images(2, tokens.count, DIM).requires_grad_()
    q = theirs.to_qkv(x)[0][:, :, prefix:]
    pooled = adaptive_avg_pool2d(q.mT.reshape(2 * HEADS, WIDTH, 4, 5), side).flatten(2).mT.unflatten(0, (2, HEADS))
    y, expected = layer(x), theirs(x, agent_tokens=pooled)
    assert_close(y, expected)
    ours = slopes(y, [x, layer.qkv.weight, layer.proj.weight])
    assert_close(ours, slopes(expected, [x, theirs.to_qkv[0].weight, theirs.to_out[1].weight]))


def bins(tokens, side):
    """Patches of each region: rows and columns ⌊iG/a⌋ to ⌈(i+1)G/a⌉."""
    spans = [[range(i * g // side, math.ceil((i + 1) * g / side)) for i in range(side)] for g in tokens.grid]
    return [{y * tokens.grid[1] + x for y in rows for x in columns} for rows in spans[0] for columns in spans[1]]


def place_bias(bias, tokens):
    """Numbers of every token of the whole sequence, (heads, agents, N)."""
    grid = interpolate(bias.table, tokens.grid, mode="bilinear", align_corners=False)
    grid = grid + bias.rows.unsqueeze(3) + bias.columns.unsqueeze(2)
    return grid.flatten(2) if bias.prefix is None else torch.cat([bias.prefix, grid.flatten(2)], dim=2)


def literally(layer, x, ids):
    """Image by image and head by head; regions without visible patches are never made."""
    q, k, v = layer.split(x, ids)
    prefix, tokens = layer.tokens.prefix, layer.tokens
    y = []
    for image, own in enumerate(ids.tolist()):
        held = [
            [prefix + at for at, patch in enumerate(own) if patch in region] for region in bins(tokens, layer.agents)
        ]
        alive = [a for a, members in enumerate(held) if members]
        at = torch.tensor([*range(prefix), *(prefix + patch for patch in own)])
        heads = []
        for head in range(HEADS):
            agents = torch.stack([q[image, head, held[a]].mean(0) for a in alive])
            asked = agents @ k[image, head].T / math.sqrt(WIDTH)
            asking = q[image, head] @ agents.T / math.sqrt(WIDTH)
            if layer.bias_of_agents is not None:
                asked = asked + place_bias(layer.bias_of_agents, tokens)[head][alive][:, at]
                asking = asking + place_bias(layer.bias_of_tokens, tokens)[head][alive][:, at].T
            heads.append(asking.softmax(-1) @ (asked.softmax(-1) @ v[image, head]))
        y.append(torch.cat(heads, dim=-1))
    y = torch.stack(y)
    if layer.conv is not None:
        y = y + convolved(layer.conv, v, ids, tokens)
    return layer.proj(y)


def convolved(conv, v, ids, tokens):
    """Nine products a patch, with visible neighbours alone."""
    values = v.transpose(1, 2).flatten(2)
    y = []
    for image, own in enumerate(ids.tolist()):
        rows = [torch.zeros(values.shape[2], dtype=v.dtype)] * tokens.prefix
        for patch in own:
            row, column = divmod(patch, tokens.grid[1])
            total = conv.bias
            for at, other in enumerate(own):
                down, right = other // tokens.grid[1] - row + 1, other % tokens.grid[1] - column + 1
                if 0 <= down <= 2 and 0 <= right <= 2:
                    total = total + conv.weight[:, 0, down, right] * values[image, tokens.prefix + at]
            rows.append(total)
        y.append(torch.stack(rows))
    return torch.stack(y)


OPTIONS = ["agents=3", "agents=2,agent_bias=True", "agents=3,agent_bias=True,convolution=False", "agents=3,rope=True"]


@pytest.mark.parametrize("visible_patches", [9, 20])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_the_papers_formula_on_the_visible_patches(options, prefix, visible_patches):
    tokens = Tokens((4, 5), prefix)
    layer = lively(f"agent({options})", DIM, HEADS, tokens)
    x, ids = images(2, prefix + visible_patches, DIM).requires_grad_(), visible(2, tokens, visible_patches)
    y, expected = layer(x, ids), literally(layer, x, ids)
    assert_close(y, expected)
    leaves = [x, *layer.parameters()]
    assert_close(slopes(y, leaves), slopes(expected, leaves))
    if visible_patches == 20:
        assert_close(layer(x), expected)


def test_empty_regions_are_dropped():
    """At a quarter of 14 x 14 patches about a third of 49 regions hold nothing; what is left is as if they were not."""
    tokens = Tokens((14, 14), 1)
    layer = lively("agent(agents=7)", DIM, HEADS, tokens)
    x, ids = images(2, 1 + 49, DIM), visible(2, tokens, 49)
    q, _, _ = layer.split(x)
    agents, absent = mean_queries(q, ids, tokens, 7)
    expected = [[not region & set(own) for region in bins(tokens, 7)] for own in ids.tolist()]
    assert absent.tolist() == expected
    assert absent.sum(1).min() > 8
    assert agents.mT.masked_select(absent[:, None, None]).eq(0).all()
    assert_close(layer(x, ids), literally(layer, x, ids))


def test_without_bias_and_convolution_it_is_two_softmax_attentions():
    q, k, v = (images(2 * HEADS, 7, WIDTH, seed).unflatten(0, (2, HEADS)).requires_grad_() for seed in range(3))
    agents = images(2 * HEADS, 4, WIDTH, 3).unflatten(0, (2, HEADS)).requires_grad_()
    y = agent_attention(q, agents, k, v)
    expected = scaled_dot_product_attention(q, agents, scaled_dot_product_attention(agents, k, v))
    assert_close(y, expected)
    assert_close(slopes(y, [q, agents, k, v]), slopes(expected, [q, agents, k, v]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_biases_are_added_to_the_scores_by_either_kernel(dtype):
    q, k, v = (images(2 * HEADS, 7, WIDTH, seed).unflatten(0, (2, HEADS)).to(dtype) for seed in range(3))
    agents = images(2 * HEADS, 4, WIDTH, 3).unflatten(0, (2, HEADS)).to(dtype)
    first, second = images(HEADS, 4, 7, 4)[None].to(dtype), images(HEADS, 7, 4, 5)[None].to(dtype)
    wide = [one.double() for one in (q, agents, k, v, first, second)]
    scores = wide[1] @ wide[2].mT / math.sqrt(WIDTH) + wide[4]
    expected = (wide[0] @ wide[1].mT / math.sqrt(WIDTH) + wide[5]).softmax(-1) @ (scores.softmax(-1) @ wide[3])
    tolerance = {"rtol": 1e-7, "atol": 1e-7} if dtype == torch.float64 else {"rtol": 0.03, "atol": 0.03}
    assert_close(agent_attention(q, agents, k, v, first, second).double(), expected, **tolerance)


@pytest.mark.parametrize(("grid", "side"), [((4, 5), 3), ((14, 14), 7), ((7, 7), 3), ((2, 9), 4)])
def test_regions_are_torchs_adaptive_pool(grid, side):
    tokens = Tokens(grid)
    q = images(2 * HEADS, tokens.patches, WIDTH).unflatten(0, (2, HEADS))
    expected = torch.stack([q[:, :, sorted(region)].mean(2) for region in bins(tokens, side)], dim=2)
    agents, absent = mean_queries(q, None, tokens, side)
    assert_close(agents, expected)
    assert absent is None
    every, absent = mean_queries(q, torch.arange(tokens.patches).expand(2, -1), tokens, side)
    assert_close(every, expected)
    assert not absent.any()


def test_means_carry_gradient_to_every_query_of_their_region():
    q = images(HEADS, 22, WIDTH)[None].requires_grad_()
    agents, _ = mean_queries(q, None, TOKENS, 2)
    [slope] = torch.autograd.grad(agents.sum(), q)
    assert (slope[:, :, :2] == 0).all()
    assert (slope[:, :, 2:] > 0).all()


def test_as_many_agents_as_queries_are_not_softmax():
    """Not even with the queries themselves as agents: far off, which is why they are refused."""
    q, k, v = (images(HEADS, 20, WIDTH, seed)[None] for seed in range(3))
    exact = scaled_dot_product_attention(q, k, v)
    assert (agent_attention(q, q, k, v) - exact).norm() / exact.norm() > 0.2


def test_the_biases_of_vit_base_are_91728_numbers():
    with torch.device("meta"):
        plain, more = (
            build(f"agent(agents=7,agent_bias={bias})", 768, 12, Tokens((14, 14), 1)) for bias in (False, True)
        )
    count = [sum(parameter.numel() for parameter in layer.parameters()) for layer in (plain, more)]
    assert count[0] == 4 * 768**2 + 4 * 768 + 10 * 768
    assert count[1] - count[0] == 91_728


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_parameters_are_projections_convolution_and_biases(prefix):
    def count(options):
        layer = build(f"agent({options})", DIM, HEADS, Tokens((4, 5), prefix))
        return sum(parameter.numel() for parameter in layer.parameters()) - 4 * DIM**2 - 4 * DIM

    assert count("agents=2,convolution=False") == 0
    assert count("agents=2") == 10 * DIM
    assert count("agents=2,agent_bias=True") == 10 * DIM + 2 * HEADS * 4 * (49 + 4 + 5 + prefix)


def test_it_costs_four_thin_products_and_nine_taps_of_the_whole_grid():
    layer = build("agent(agents=3)", DIM, HEADS, TOKENS)
    for patches in (9, 20):
        n = patches + 2
        assert layer.mix_flops(patches, n) == 2 * (4 * n * 9 * DIM + 9 * 20 * DIM)
    assert build("agent(agents=2,convolution=False)", DIM, HEADS, TOKENS).mix_flops(9, 11) == 2 * 4 * 11 * 4 * DIM


def test_it_starts_with_biases_of_two_hundredths_and_torchs_convolution():
    layer = build("agent(agents=7,agent_bias=True)", DIM, HEADS, Tokens((14, 14), 1))
    for bias in (layer.bias_of_agents, layer.bias_of_tokens):
        for values in bias.parameters():
            assert values.std().item() == pytest.approx(0.02, rel=0.2)
    assert not torch.equal(layer.bias_of_agents.table, layer.bias_of_tokens.table)
    assert 0.3 < layer.conv.weight.abs().max() <= 1 / 3


def test_another_grid_stretches_rows_and_columns_and_enlarges_the_same_table():
    layer = lively("agent(agents=2,agent_bias=True)", DIM, HEADS, TOKENS)
    along = torch.arange(5, dtype=torch.float64)
    layer.bias_of_agents.columns.data = along.expand(HEADS, 4, -1).clone()
    other = layer.regrid(Tokens((8, 10), 2))
    assert other.bias_of_agents.rows.shape == (HEADS, 4, 8)
    expected = ((torch.arange(10, dtype=torch.float64) + 0.5) / 2 - 0.5).clamp(0, 4)
    assert_close(other.bias_of_agents.columns, expected.expand(HEADS, 4, -1))
    assert_close(other.bias_of_tokens.table, layer.bias_of_tokens.table)
    assert_close(other.bias_of_tokens.prefix, layer.bias_of_tokens.prefix)
    x = images(1, 82, DIM)
    assert_close(other(x), literally(other, x, torch.arange(80)[None]))


def test_as_many_agents_as_tokens_are_refused():
    with pytest.raises(ValueError, match=r"agent\(agents=4\) on 16 tokens: agents must be 1..3; 16 agents would be"):
        build("agent(agents=4)", DIM, HEADS, Tokens((4, 4)))
    with pytest.raises(ValueError, match=r"agents must be 1..2"):
        build("agent(agents=3)", DIM, HEADS, TOKENS, patches=7)
    with pytest.raises(ValueError, match=r"agents need at least 2 tokens"):
        build("agent(agents=1)", DIM, HEADS, Tokens((1, 1)))
    build("agent(agents=4)", DIM, HEADS, Tokens((4, 4), 1))


def test_without_patches_there_are_no_agents():
    with pytest.raises(ValueError, match=r"on 2 tokens, none of them patches: agents are means of patches"):
        build("agent(agents=1)", DIM, HEADS, TOKENS, patches=0)


@pytest.mark.parametrize("agents", [0, -1, True, 2.0])
def test_agents_are_a_whole_number(agents):
    with pytest.raises(ValueError, match="agents"):
        build(f"agent(agents={agents})", DIM, HEADS, TOKENS)


@pytest.mark.parametrize("option", ["convolution", "agent_bias"])
def test_what_is_on_or_off_is_no_number(option):
    with pytest.raises(ValueError, match=option):
        build(f"agent({option}=5)", DIM, HEADS, TOKENS)


@pytest.mark.parametrize("patches", [3, 12, 15, 16, 49, 196])
def test_the_proposed_options_are_no_dearer_than_softmax(patches):
    tokens = Tokens((1, patches), 1)
    layer = Agent(DIM, HEADS, tokens, **Agent.options_for(tokens, patches))
    assert layer.refusal(patches) is None
    products = layer.mix_flops(patches, patches + 1) - 18 * patches * DIM
    assert products <= build("softmax", DIM, HEADS, tokens).mix_flops(patches, patches + 1)
