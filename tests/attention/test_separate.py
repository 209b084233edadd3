"""Separate projections: what the joined one computes, from three weights, with the same start."""

import copy

import pytest
import torch
from tests.attention.agreement import images, lively, slopes
from torch.testing import assert_close

from saccade.attention import TABLE, build, fitting
from saccade.attention.base import MultiHead
from saccade.attention.initial import seeded
from saccade.attention.separate import SeparateProjections
from saccade.attention.tokens import Tokens

TOKENS = Tokens((8, 8), prefix=1)
WRITTEN = [fitting(name, 16, 2, TOKENS) for name in TABLE]
SPLIT = [written for written in WRITTEN if isinstance(build(written, 16, 2, TOKENS), MultiHead)]


@pytest.mark.parametrize("attention", SPLIT)
@pytest.mark.parametrize("outputs", [None, slice(0, 1)])
def test_output_and_gradients_are_those_of_the_joined_projection(attention, outputs):
    joined = lively(attention, 16, 2, TOKENS)
    apart = copy.deepcopy(joined)
    apart.separate()
    x = images(2, TOKENS.count, 16).requires_grad_()
    expected, seen = joined(x, None, outputs), apart(x, None, outputs)
    assert_close(seen, expected)
    parts = [apart.qkv.q_proj, apart.qkv.k_proj, apart.qkv.v_proj]
    dx, *slopes_of_parts = slopes(seen, [x, *(one.weight for one in parts), *(one.bias for one in parts)])
    dx_joined, weight, bias = slopes(expected, [x, joined.qkv.weight, joined.qkv.bias])
    assert_close(dx, dx_joined)
    assert_close(slopes_of_parts, [*weight.chunk(3), *bias.chunk(3)])


def test_each_projection_has_its_name_and_the_whole_its_start():
    joined, apart = (build("softmax", 16, 2, TOKENS) for _ in range(2))
    apart.separate()
    assert set(apart.qkv.state_dict()) == {f"{one}_proj.{what}" for one in "qkv" for what in ("weight", "bias")}
    for layer in (joined, apart):
        layer.reset_parameters(seeded(3))
    assert torch.equal(torch.cat([apart.qkv.state_dict()[f"{one}_proj.weight"] for one in "qkv"]), joined.qkv.weight)


def test_a_projection_without_biases_keeps_none():
    apart = build("softmax(qkv_bias=False)", 16, 2, TOKENS)
    apart.separate()
    assert apart.qkv.bias is None
    assert len(list(apart.qkv.parameters())) == 3
    apart.reset_parameters(seeded(0))
    assert apart(torch.randn(1, TOKENS.count, 16)).isfinite().all()


def test_values_are_taken_over_and_never_made_on_another_device():
    joined = torch.nn.Linear(4, 6)
    apart = SeparateProjections(joined)
    assert torch.equal(apart.weight, joined.weight)
    assert torch.equal(apart.bias, joined.bias)
    with torch.device("meta"):
        assert SeparateProjections(torch.nn.Linear(4, 6)).weight.is_meta
