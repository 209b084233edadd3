"""Norms computed again in backward: the same output and gradients as where what they put out is kept, and less kept."""

import pytest
import torch
from tests.attention.agreement import enliven
from torch import nn
from torch.testing import assert_close

from saccade.attention import Tokens, build, fitting, renormed
from saccade.attention.renormed import normed, origin_of, product, project
from saccade.models import mlp
from saccade.models.block import Block

TOKENS = Tokens((4, 4), prefix=1)
# Usual projections, projections of one's own, a choice among tokens, none at all.
MECHANISMS = ["softmax", "softmax(rope=True, qk_norm=True)", "linear", "nystrom", "differential", "lambda", "fourier"]


@pytest.fixture(autouse=True)
def nothing_is_too_small(monkeypatch):
    monkeypatch.setattr(renormed, "KEPT_BYTES", 0)
    monkeypatch.setattr(mlp, "PLAIN_BYTES", 0)


def block_of(attention, **options):
    written = attention if "(" in attention else fitting(attention, 16, 2, TOKENS, patches=16)
    block = Block(build(written, 16, 2, TOKENS, patches=16), 64, **options)
    enliven(block, 0.2)
    return block.double()


def tokens(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 17, 16, generator=generator, dtype=dtype).requires_grad_()


def gradients(block, x, outputs=None, plain=False):
    """The output and what it gives to tokens and weights; a norm that is listened to is kept the plain way."""
    ears = [norm.register_forward_hook(lambda *seen: None) for norm in (block.norm1, block.norm2) if plain]
    y = block(x, None, outputs)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    slopes = torch.autograd.grad((y * weights).sum(), [x, *block.parameters()], allow_unused=True)
    for ear in ears:
        ear.remove()
    return y, slopes


def kept_bytes(block, x):
    """The storages that backward needs, each once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = block(x)
    return sum(kept.values()), y


@pytest.mark.parametrize("outputs", [None, slice(5, None)])
@pytest.mark.parametrize("style", ["pre", "xformers"])
@pytest.mark.parametrize("attention", MECHANISMS)
def test_a_block_computes_the_same_with_the_same_gradients(attention, style, outputs):
    block, x = block_of(attention, style=style), tokens()
    expected, slopes = gradients(block, x, outputs, plain=True)
    y, again = gradients(block, x, outputs)
    assert_close(y, expected)
    for one, other in zip(again, slopes, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert_close(one, other)


@pytest.mark.parametrize("norms", ["both", "one"])
def test_neither_norm_s_output_is_kept(norms):
    block, x = block_of("softmax"), tokens()
    ears = [block.norm1.register_forward_hook(lambda *seen: None)]
    if norms == "both":
        ears.append(block.norm2.register_forward_hook(lambda *seen: None))
    plain, y = kept_bytes(block, x)
    for ear in ears:
        ear.remove()
    less, z = kept_bytes(block, x)
    assert_close(y, z)
    assert plain - less == (2 if norms == "both" else 1) * x.numel() * x.element_size()


def test_under_autocast_products_are_bf16_and_gradients_near_the_plain_ones():
    block, x = block_of("softmax").float(), tokens(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected, slopes = gradients(block, x, plain=True)
        y, again = gradients(block, x)
    assert y.dtype == expected.dtype
    assert_close(y, expected)
    for one, other in zip(again, slopes, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert_close(one, other, atol=0.02 * other.abs().max().item(), rtol=0)


def test_what_is_changed_in_place_is_not_what_it_was_made_of():
    norm, linear, x = nn.LayerNorm(4).double(), nn.Linear(4, 3).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    y = normed(norm, x.requires_grad_())
    assert origin_of(y) is not None
    changed = y.mul_(2)
    assert origin_of(changed) is None
    assert_close(project(linear, changed), linear(2 * norm(x)))


def test_in_eval_mode_gradients_of_any_order_work():
    block, x = block_of("softmax(kernel='explicit')").eval(), tokens()
    (slope,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
    (curve,) = torch.autograd.grad(slope.square().sum(), x)
    assert curve.abs().max() > 0


def test_somebody_s_own_projection_is_called():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    norm, linear, x = nn.LayerNorm(4), Doubled(4, 3), torch.randn(2, 5, 4, requires_grad=True)
    assert_close(project(linear, normed(norm, x)), 2 * nn.functional.linear(norm(x), linear.weight, linear.bias))
    seen = []
    plain = nn.Linear(4, 3)
    plain.register_forward_hook(lambda layer, given, output: seen.append(output))
    project(plain, normed(norm, x))
    assert len(seen) == 1


@pytest.mark.parametrize("layer", ["norm1", "attn.qkv", "norm2"])
@pytest.mark.parametrize(
    "listen",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_whoever_listens_to_a_layer_hears_it(layer, listen):
    block, heard = block_of("softmax"), []
    getattr(block.get_submodule(layer), listen)(lambda *seen: heard.append(layer))
    block(tokens()).sum().backward()
    assert heard == [layer]


def test_a_frozen_weight_has_no_gradient_and_the_tokens_have_theirs():
    norm, x = nn.LayerNorm(4).double(), torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64)
    (slope,) = torch.autograd.grad(product(normed(norm, x), weight, None).square().sum(), x)
    (expected,) = torch.autograd.grad((norm(x) @ weight.t()).square().sum(), x)
    assert_close(slope, expected)


def test_what_is_small_is_kept_the_plain_way(monkeypatch):
    x, norm = tokens(), nn.LayerNorm(16).double()
    monkeypatch.setattr(renormed, "KEPT_BYTES", x.nbytes)
    assert origin_of(normed(norm, x)) is not None
    monkeypatch.setattr(renormed, "KEPT_BYTES", x.nbytes + 1)
    assert origin_of(normed(norm, x)) is None
