"""Softmax attention against timm's and torch's own."""

import pytest
import torch
from tests.peers import timm
from torch.testing import assert_close

from saccade.attention import Tokens, build

KERNELS = ["sdpa", "explicit"]
TOKENS = Tokens((4, 7), prefix=1)


def images(**kind):
    return torch.randn(2, TOKENS.count, 48, generator=torch.Generator().manual_seed(0), **kind)


def lively(attention):
    """A layer whose scores are of order one."""
    layer = build(attention, 48, 4, TOKENS).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.15)
    return layer


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_timms_attention_with_timms_keys(kernel):
    ours = lively(f'softmax(kernel="{kernel}")')
    theirs = timm.layers.Attention(48, 4, qkv_bias=True).double()
    theirs.load_state_dict(ours.state_dict())
    x, own_x = images(dtype=torch.float64).requires_grad_(), images(dtype=torch.float64).requires_grad_()
    y, own_y = theirs(x), ours(own_x)
    assert_close(own_y, y)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (y * weights).sum().backward()
    (own_y * weights).sum().backward()
    assert_close(own_x.grad, x.grad)
    for name, parameter in theirs.named_parameters():
        assert_close(ours.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_torchs_multi_head_attention(kernel):
    ours = lively(f'softmax(kernel="{kernel}")')
    theirs = torch.nn.MultiheadAttention(48, 4, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    x = images(dtype=torch.float64)
    assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_auto_takes_the_explicit_kernel_for_bf16_on_a_cpu_alone():
    layer = build("softmax", 48, 4, TOKENS)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert layer.kernel_for(torch.bfloat16, cpu) == "explicit"
    assert layer.kernel_for(torch.float32, cpu) == "sdpa"
    assert layer.kernel_for(torch.bfloat16, cuda) == "sdpa"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_named_kernel_is_the_one_that_runs(kernel):
    layer = build(f'softmax(kernel="{kernel}")', 48, 4, TOKENS)
    with torch.profiler.profile() as profile:
        layer(images())
    fused = any("scaled_dot_product" in event.key for event in profile.key_averages())
    assert fused == (kernel == "sdpa")


def test_a_kernel_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"kernel"):
        build('softmax(kernel="flash")', 48, 4, TOKENS)


@pytest.mark.parametrize(
    ("options", "count"), [("", 4 * 48**2 + 4 * 48), ("(qkv_bias=False)", 4 * 48**2 + 48), ("(bias=False)", 4 * 48**2)]
)
def test_parameters_are_four_projections(options, count):
    layer = build(f"softmax{options}", 48, 4, TOKENS)
    assert sum(parameter.numel() for parameter in layer.parameters()) == count
