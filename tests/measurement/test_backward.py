"""The backward pass is counted as it runs, without running it."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from saccade.attention import Tokens, fitting, list_attentions
from saccade.attention.flops import WHOLE, counting
from saccade.attention.softmax import Softmax
from saccade.measurement.backward import backward_flops
from saccade.measurement.operations import layer_of
from saccade.measurement.work import work_of
from saccade.models.sizes import create_model

GRID = Tokens((8, 8), prefix=1)
SIZES = {"vit_nano_patch1_8": {}, "mae_nano_patch1_8": {"mask_ratio": 0.5}}

# Transforms, which torch's counter does not know, and convolutions in groups, of which it counts too much.
COUNTED_BY_HAND = ("fourier", "agent", "focused", "visual")


def planned(name, attention="softmax", **options):
    with torch.device("meta"):
        return create_model(name, attention, **options)


def really(model, counter):
    """What a counter sees in the backward pass of one image with values."""
    torch.manual_seed(0)
    images = torch.randn(1, model.in_chans, *model.img_size)
    with sdpa_kernel(SDPBackend.MATH), counter as seen:
        loss = work_of(model.train()).loss(images)
        forward = seen.get_total_flops()
        loss.backward()
        return seen.get_total_flops() - forward


@pytest.mark.parametrize("attention", list_attentions())
@pytest.mark.parametrize("name", SIZES)
def test_it_is_torchs_count_of_a_real_backward_pass(name, attention):
    written = fitting(attention, 32, 4, GRID, patches=32)
    counter = counting() if attention in COUNTED_BY_HAND else FlopCounterMode(display=False)
    expected = really(create_model(name, written, **SIZES[name]), counter)
    counted = backward_flops(planned(name, written, **SIZES[name]))
    assert counted[WHOLE] == expected


def test_by_hand_every_product_costs_twice_but_that_of_the_pixels():
    model = planned("vit_nano_patch1_8", global_pool="avg")
    forward = model.flops()
    assert backward_flops(model)[WHOLE] == 2 * sum(forward.values()) - forward["patch_embed"]


def test_by_hand_a_transform_costs_once():
    model = planned("vit_nano_patch1_8", "fourier", global_pool="avg")
    forward = model.flops()
    transforms = sum(count for name, count in forward.items() if name.endswith("attn"))
    assert backward_flops(model)[WHOLE] == 2 * sum(forward.values()) - forward["patch_embed"] - transforms


@pytest.mark.parametrize("attention", ["softmax", "performer(features=8)", "focused", "nystrom", "lambda", "fourier"])
@pytest.mark.parametrize("name", SIZES)
def test_the_layers_sum_to_the_whole(name, attention):
    model = planned(name, attention, **SIZES[name])
    counted = backward_flops(model)
    assert all(layer_of(module, model.flops()) for module in counted if counted[module] and module != WHOLE)
    assert sum(counted.values()) == 2 * counted[WHOLE]


@pytest.mark.parametrize("name", SIZES)
def test_checkpointing_runs_each_block_again_up_to_its_last_product(name):
    model = planned(name, **SIZES[name])
    plain = backward_flops(model)[WHOLE]
    model.set_grad_checkpointing()
    of_blocks = sum(count for layer, count in model.flops().items() if "blocks." in layer)
    # What fc2 puts out is no input of any product, so it is not made again.
    last = sum(count // 2 for layer, count in model.flops().items() if layer.endswith(".mlp"))
    assert backward_flops(model)[WHOLE] - plain == of_blocks - last
    real = create_model(name, **SIZES[name])
    real.set_grad_checkpointing()
    assert backward_flops(model)[WHOLE] == really(real, FlopCounterMode(display=False))


@pytest.mark.parametrize("name", SIZES)
def test_reversible_blocks_compute_everything_again(name):
    options = SIZES[name] | {"reversible": True}
    model = planned(name, **options)
    assert backward_flops(model)[WHOLE] == really(create_model(name, **options), counting())
    # Where rows are left out, the last block keeps what it needs.
    last = {"vit_nano_patch1_8": "blocks.1.", "mae_nano_patch1_8": "decoder_blocks.0."}[name]
    layers = (layer for layer in model.flops() if "blocks." in layer and not layer.startswith(last))
    again = sum(model.flops()[layer] for layer in layers)
    assert backward_flops(model)[WHOLE] - backward_flops(planned(name, **SIZES[name]))[WHOLE] == again


class Reads(Softmax):
    """Does what only a tensor with values can."""

    def mix(self, q, k, v, patches):
        return super().mix(q, k, v, patches) * q.sum().item()


def test_of_a_class_that_reads_values_nothing_is_known():
    assert backward_flops(planned("vit_nano_patch1_8", Reads)) is None
