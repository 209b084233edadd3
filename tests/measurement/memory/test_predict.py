"""A predicted peak is that of the tensors an act would make."""

import pytest
import torch
from torch import nn

from saccade.attention import Tokens, Written, build, list_attentions, parse
from saccade.attention.made import Made
from saccade.measurement.benching.layer import Core
from saccade.measurement.memory.predict import Tally, predicted_bytes
from saccade.measurement.terms import Terms

KB = 4 * 256
SHAPE = [(4, 64)]


class Chain(nn.Module):
    """Keeps `kept` tensors for its backward pass."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self, x):
        for _ in range(self.kept):
            x = x.exp()
        return x


class Reads(nn.Module):
    def forward(self, x):
        return x * x.sum().item()


@pytest.mark.parametrize("kept", [1, 5])
def test_what_is_kept_for_backward_is_in_the_peak(kept):
    # Each exp keeps its output; beside them come a gradient and the one that is made of it.
    assert predicted_bytes(Chain(kept), SHAPE, torch.float32, Terms()) == (kept + min(kept, 2)) * KB


def test_what_was_there_is_not_in_the_peak():
    class Views(nn.Module):
        def forward(self, x):
            return x.flatten().view_as(x)

    assert predicted_bytes(Views(), SHAPE, torch.float32, Terms()) == 0


def test_softmax_by_products_needs_a_table_and_the_fused_one_does_not():
    def needed(kernel, side):
        layer = build(f'softmax(kernel="{kernel}")', 8, 1, Tokens((side, side)))
        return predicted_bytes(Core(layer), [(1, 1, side**2, 8)] * 3, torch.float32, Terms())

    assert needed("explicit", 16) > 2 * 4 * 256**2
    assert 10 < needed("explicit", 16) / needed("explicit", 8) < 17
    assert 3.5 < needed("sdpa", 16) / needed("sdpa", 8) < 4.5


def test_a_prediction_is_what_a_real_run_makes():
    layer, inputs = build("linear", 32, 2, Tokens((8, 8))), torch.randn(2, 64, 32, requires_grad=True)
    dy = torch.randn(2, 64, 32)
    leaves = [inputs, *layer.parameters()]
    with Tally([*leaves, dy]) as tally:
        torch.autograd.grad(layer(inputs), leaves, dy)
    assert predicted_bytes(layer, [(2, 64, 32)], torch.float32, Terms()) == tally.peak_bytes


@pytest.mark.parametrize("attention", list_attentions())
def test_every_mechanism_is_predicted(attention):
    tokens = Tokens((8, 8), 1)
    made = Made(parse(attention), 16, 2)
    layer = build(Written(attention, tuple(made.options(tokens, 64).items())), 16, 2, tokens)
    before = {name: values.clone() for name, values in layer.state_dict().items()}
    # Above the output and the input's gradient.
    assert predicted_bytes(layer, [(2, 65, 16)], torch.float32, Terms()) >= 2 * 4 * 2 * 65 * 16
    for name, values in layer.state_dict().items():
        assert torch.equal(values, before[name])


def test_nothing_is_allocated_for_what_would_never_fit():
    layer = build('softmax(kernel="explicit")', 64, 8, Tokens((1000, 1000)))
    assert predicted_bytes(Core(layer), [(1, 8, 10**6, 8)] * 3, torch.float32, Terms()) > 4e12


def test_a_module_that_reads_values_is_not_predicted():
    assert predicted_bytes(Reads(), SHAPE, torch.float32, Terms()) is None


def test_autocast_is_that_of_the_terms():
    plain, cast = (
        predicted_bytes(nn.Linear(64, 64), [(1024, 64)], torch.float32, Terms(amp_dtype=amp)) for amp in (None, "bf16")
    )
    assert plain != cast
