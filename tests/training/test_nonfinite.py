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
    def __init__(self, how):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.how = how

    def forward(self, x):
        return self.how(x * self.weight)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Layer(torch.tanh)

    def forward(self, x):
        return self.inner((x - 2).log())


def layers(*middle):
    return nn.ModuleDict({"blocks": nn.Sequential(Layer(torch.tanh), *middle, Layer(torch.tanh))})


def source_in(model, images=None, end=torch.sum):
    images = torch.ones(2, 4) if images is None else images
    return find_source(model, images, lambda: end(model["blocks"](images)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_layer_with_a_bad_output_is_named(value):
    assert source_in(layers(Layer(lambda x: x * value))) == Source("output", "blocks.1")


def test_a_layer_is_named_before_the_inner_one_that_it_gave_bad_values():
    assert source_in(layers(Outer())) == Source("output", "blocks.1")


def test_an_inner_layer_is_named_before_those_around_it():
    assert source_in(layers(nn.Sequential(Layer(torch.tanh), Layer(lambda x: x / 0)))) == Source("output", "blocks.1.1")


def test_a_bad_weight_is_named_before_what_it_spoils():
    model = layers()
    with torch.no_grad():
        model["blocks"][1].weight[1] = float("nan")
    assert source_in(model) == Source("weight", "blocks.1.weight")


def test_bad_images_are_named_before_what_they_spoil():
    assert source_in(layers(), images=torch.full((2, 4), torch.nan)) == Source("images")


def test_a_bad_gradient_is_named_by_the_layer_whose_output_it_is_of():
    assert source_in(layers(Layer(Bad.apply))) == Source("gradient", "blocks.0")


def test_a_bad_gradient_of_a_weight_alone_is_named():
    class Alone(Layer):
        def forward(self, x):
            return x + Bad.apply(self.weight)

    assert source_in(nn.ModuleDict({"blocks": Alone(None)})) == Source("gradient", "blocks.weight")


def test_a_loss_that_is_bad_by_itself_is_named():
    assert source_in(layers(), end=lambda x: x.sum() / 0) == Source("loss")


def test_a_step_that_is_fine_when_run_again_is_said_to_be():
    assert str(source_in(layers())) == "first not finite: nothing when the step was run again"


def test_the_ears_are_taken_off_and_no_gradient_is_left():
    model = layers(Layer(Bad.apply))
    source_in(model)
    assert not any(layer._forward_hooks for layer in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
