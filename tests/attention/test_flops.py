"""Where torch's counter is wrong or knows nothing, a hand has counted."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.attention.flops import counting


def trained(counter, layer, *shape, of_input=True):
    """What a counter sees in one forward and backward pass."""
    with counter as seen:
        layer(torch.randn(shape, requires_grad=of_input)).sum().backward()
    return seen.get_total_flops()


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_each_gradient_of_a_convolution_costs_as_much_as_its_output(groups):
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    forward = 2 * (5 * 7) * (8 * 8 // groups * 9)
    assert trained(counting(), layer, 1, 8, 5, 7) == 3 * forward
    assert trained(counting(), layer, 1, 8, 5, 7, of_input=False) == 2 * forward
    layer.weight.requires_grad_(False)
    assert trained(counting(), layer, 1, 8, 5, 7) == 2 * forward


def test_torch_counts_the_weights_of_a_convolution_in_groups_as_if_it_had_none():
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    forward = 2 * (5 * 7) * (8 * 9)
    assert trained(FlopCounterMode(display=False), layer, 1, 8, 5, 7) == (1 + 1 + 8) * forward


def test_a_transposed_convolution_is_as_torch_counts_it():
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2)
    theirs = trained(FlopCounterMode(display=False), layer, 2, 4, 5, 7)
    assert trained(counting(), layer, 2, 4, 5, 7) == theirs == 3 * 2 * 2 * (5 * 7) * (4 * 6 * 9)


def test_softmax_is_two_products_forward_and_four_backward():
    q, k, v = (torch.randn(1, 2, 6, 4, requires_grad=True) for _ in range(3))
    with counting() as counter:
        nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    assert counter.get_total_flops() == 6 * 2 * (2 * 6 * 6 * 4)
