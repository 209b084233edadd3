"""The memory of anybody's module is measured in a fresh process, and the module does not notice."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import saccade
from saccade.measurement.memory.own import handed_over, own, taken_over
from saccade.measurement.memory.predict import predicted_own
from saccade.measurement.memory.tracked import track_training
from saccade.measurement.terms import Terms

HERE = Path(__file__).parent


@pytest.fixture
def theirs(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    yield importlib.import_module("ours")
    sys.modules.pop("ours", None)


def measured(module, **options):
    (record,) = saccade.measure(module, what=["memory"], device="cpu", threads=1, **options)
    return record


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_a_module_s_peak_is_predicted_and_stays_as_it_was(theirs):
    net = theirs.Net()
    before = {name: values.clone() for name, values in net.state_dict().items()}
    record = measured(net, inputs=theirs.INPUTS, loss=theirs.loss)
    values = record.values
    assert record.error is None
    # 60,000 rows of 512 numbers kept, and their gradients.
    assert values["peak_bytes"] > 2 * 4 * 60_000 * 512
    assert values["predicted_bytes"] == pytest.approx(values["peak_bytes"], rel=0.02)
    assert values["weights_bytes"] == 4 * sum(one.numel() for one in net.parameters())
    assert values["inputs_bytes"] == sum(one.nbytes for one in theirs.INPUTS)
    assert record.model == "ours:Net"
    assert net.training
    for name, weight in net.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None
        assert type(weight) is nn.Parameter


def test_what_is_handed_over_is_what_comes_out(theirs):
    given = own(theirs.Net(), theirs.INPUTS, theirs.loss, Terms())
    with handed_over(given) as file:
        taken = taken_over(file, [])
    assert not Path(file).exists()
    assert taken.loss is theirs.loss
    for one, other in zip(taken.built().parameters(), given.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_function_that_builds_it_does_as_well(theirs):
    terms = Terms(batch_size=len(theirs.INPUTS[0]))
    built, net = own("ours:build", theirs.INPUTS, theirs.loss, terms), theirs.Net()
    made = own(net, theirs.INPUTS, theirs.loss, terms)
    assert predicted_own(built) == predicted_own(made) == track_training(net, made.step_of)


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("ours:build", {}, "inputs="),
        ("ours:nobody", {"inputs": [torch.ones(1)]}, "write my.module:build"),
        ("ours:nothing", {"inputs": [torch.ones(1)]}, "makes int"),
        ("ours:build", {"inputs": [torch.ones(3, 64)]}, "give loss="),
        (nn.Linear(2, 2), {"inputs": [torch.ones(2, 2)], "loss": lambda net, x: net(x).sum()}, "file of its own"),
        ("ours:build", {"inputs": [torch.ones(1)], "checkpointing": True}, "no attention, checkpointing or option"),
        ("vit_nano_patch1_8", {"inputs": [torch.ones(1)]}, "our models are given random images"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_to_do(theirs, module, options, said):
    with pytest.raises(ValueError, match=said):
        measured(module, **options)


def test_a_class_of_a_script_is_refused(theirs, monkeypatch):
    monkeypatch.setattr(theirs.Net, "__module__", "__main__")
    with pytest.raises(ValueError, match="file of its own"):
        measured(theirs.Net(), inputs=theirs.INPUTS, loss=theirs.loss)
