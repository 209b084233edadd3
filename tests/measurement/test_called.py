"""A pass without values calls what a real one calls."""

import pytest
import torch
from torch import nn

from saccade.measurement.called import forward_pass
from saccade.models.sizes import create_model


def real_calls(model, images):
    """Modules as a real pass enters them, with what they put out."""
    begun, running = [], []

    def begin(name):
        begun.append([name])
        running.append(begun[-1])

    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, given, name=name: begin(name))
        module.register_forward_hook(lambda module, given, y: running.pop().append(tuple(y.shape)))
    with torch.no_grad():
        model.eval()(images)
    return [tuple(call) for call in begun]


@pytest.mark.parametrize("attention", ["softmax", "lambda", "agent", "xca"])
def test_calls_are_those_of_a_real_pass(attention):
    options = {"depth": 1, "init_values": 1e-5}
    model = create_model("vit_nano_patch1_8", attention, **options)
    calls = forward_pass(model, (3, *(model.in_chans, *model.img_size))).calls
    expected = real_calls(model, torch.randn(3, model.in_chans, *model.img_size))
    assert [(call.name, call.shapes[0]) for call in calls] == expected


def test_a_call_ends_before_the_one_around_it():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 1))
    calls = sorted(forward_pass(model, (1, 2)).calls, key=lambda call: call.ended)
    assert [call.name for call in calls] == ["0.0", "0.1", "0", "1", ""]
    assert [call.bytes for call in calls] == [12, 12, 12, 4, 4]


def test_what_comes_out_may_be_many_tensors_or_none():
    class Many(nn.Module):
        def forward(self, x):
            return {"first": x, "second": [x], "third": x[:, :1]}

    (call,) = forward_pass(Many(), (4, 2)).calls
    assert call.shapes == [(4, 2), (4, 1)]
    assert forward_pass(create_model("mae_nano_patch1_8"), (1, 1, 8, 8)).calls[0].shapes == []


def test_the_model_stays_as_it_is_and_nothing_is_allocated():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 10**6, 1), nn.BatchNorm2d(10**6), nn.Dropout())
    model[2].eval()
    ran = forward_pass(model, (10**4, 3, 32, 32))
    assert ran.flops == 2 * 10**4 * 1024 * 3 * 10**6
    assert [module.training for module in model] == [True, True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(one.is_meta for one in model.parameters())

    real = nn.BatchNorm1d(2)
    # In training a norm over images would refuse a single one.
    forward_pass(real, (1, 2))
    assert real.num_batches_tracked == 0
    assert not real.weight.is_meta


def test_the_input_has_the_weights_type():
    assert forward_pass(nn.Linear(2, 3).bfloat16(), (1, 2)).input_bytes == 4


def test_what_needs_values_is_refused():
    class Reads(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    with pytest.raises(ValueError, match="Reads cannot be run on an input of 1 x 2 without values"):
        forward_pass(Reads(), (1, 2))
    with pytest.raises(ValueError, match="on an input of 1 x 3 "):
        forward_pass(nn.Linear(2, 3), (1, 3))
