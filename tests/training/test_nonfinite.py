import pytest
import torch
from torch import nn

from saccade.training.nonfinite import Source, find_source


class Bad(torch.autograd.Function):
    """Passes values on, and turns gradients into infinity."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


class Layer(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.how = forward

    def forward(self, x):
        return self.how(x * self.weight)


def model(how):
    blocks = nn.Sequential(Layer(torch.tanh), Layer(how), Layer(torch.tanh))
    return nn.ModuleDict({"blocks": blocks})


def source_in(made, end=torch.sum):
    return find_source(made, lambda: end(made["blocks"](torch.ones(2, 4))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_layer_with_a_bad_output_is_named(value):
    assert source_in(model(lambda x: x * value)) == Source("blocks.1", "output")


def test_a_bad_weight_is_named_before_what_it_spoils():
    made = model(torch.tanh)
    with torch.no_grad():
        made["blocks"][2].weight[1] = float("nan")
    assert source_in(made) == Source("blocks.2.weight", "weight")


def test_a_bad_gradient_is_named_by_the_layer_whose_output_it_is_of():
    assert source_in(model(Bad.apply)) == Source("blocks.0", "gradient")


def test_a_loss_that_is_bad_by_itself_is_named():
    source = source_in(model(torch.tanh), end=lambda x: x.sum() / 0)
    assert source == Source("", "output")
    assert "the output of the loss" in str(source)


def test_the_ears_are_taken_off_and_no_gradient_is_left():
    made = model(Bad.apply)
    source_in(made)
    assert not any(layer._forward_hooks for layer in made.modules())
    assert all(weight.grad is None for weight in made.parameters())
