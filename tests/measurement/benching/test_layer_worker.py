"""What lives in a layer's process: acts by name behind a gate, and a scale."""

from dataclasses import asdict

import pytest
import torch
from tests.measurement.scale import ByHand

from saccade.attention.made import Broken
from saccade.attention.tokens import Tokens
from saccade.measurement import clock
from saccade.measurement.benching import layer_worker
from saccade.measurement.benching.layer import LayerSubject
from saccade.measurement.terms import Terms


def subject(attention="softmax", grid=(3, 3), batch_size=2, **terms):
    terms = Terms(batch_size=batch_size, **terms)
    return LayerSubject(attention=attention, dim=16, num_heads=2, grid=grid, prefix=1, terms=terms)


@pytest.fixture(autouse=True)
def short_repeats(monkeypatch):
    monkeypatch.setattr(clock, "REPEAT_SECONDS", 0.001)


@pytest.mark.parametrize("attention", ["softmax", "linformer(k=3)", "fourier", "lambda"])
@pytest.mark.parametrize("terms", [{}, {"dtype": "bf16"}, {"amp_dtype": "bf16"}])
def test_everything_there_is_to_time_is_timed(attention, terms):
    one = subject(attention, **terms)
    timed = layer_worker.timed_layer(asdict(one))
    assert set(timed.acts) == {f"{what}_{act}" for what in one.what for act in one.acts}
    for act in timed.acts:
        assert set(timed.warm_up(act)["laps"][0]) == set(timed.repeat(act)) == {"seconds", "cpu_seconds"}
    assert timed.facts()["gated_tokens"] == 10


def test_forward_keeps_no_graph_and_backward_reaches_every_input_and_weight(monkeypatch):
    one, seen = subject("linformer(k=3)"), []
    timed = layer_worker.timed_layer(asdict(one))
    for act in ("layer_forward", "core_forward", "core_forward_backward", "layer_forward_backward"):
        timed.acts[act].module.register_forward_hook(
            lambda module, given, y, act=act: seen.append((act, module.training, y.requires_grad))
        )
    grad, leaves = torch.autograd.grad, []
    monkeypatch.setattr(
        torch.autograd, "grad", lambda y, of, dy, **more: leaves.append(grad(y, of, dy, **more)) or leaves[-1]
    )
    for act in timed.acts.values():
        act()
    assert ("core_forward", False, False) in seen
    assert ("layer_forward_backward", True, True) in seen
    core, layer, block = leaves
    # q, k, v, E and F, but no projection.
    assert sum(slope is not None for slope in core) == 5
    assert len(layer) == 1 + 6
    # Two norms and an MLP of two layers are around it.
    assert len(block) == len(layer) + 4 + 4
    assert all(slope is not None for slope in (*layer, *block))


def test_the_layer_passes_the_gate_at_the_shape_that_is_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(layer_worker, "gate", lambda *shape, **terms: asked.append((*shape, terms)))
    layer_worker.timed_layer(asdict(subject("nystrom", (2, 2), dtype="bf16")))
    ((written, *shape),) = asked
    assert str(written) == "nystrom(landmarks=1)"
    assert shape == [16, 2, Tokens((2, 2), 1), {"dtype": torch.bfloat16, "device": "cpu"}]


def test_only_what_is_asked_for_is_made():
    timed = layer_worker.timed_layer(asdict(subject()), ["block"])
    assert set(timed.acts) == {"block_forward", "block_forward_backward"}


def test_what_is_to_be_compiled_is_compiled_and_its_eager_twin_is_not_called(monkeypatch):
    called = []

    def compiled(module, terms):
        assert terms.compile
        return lambda *inputs: called.append(type(module).__name__) or module(*inputs)

    monkeypatch.setattr(layer_worker, "compiled", compiled)
    timed = layer_worker.timed_layer(asdict(subject(compile=True)))
    for act in timed.acts.values():
        act()
    assert called == ["Core", "Core", "Softmax", "Softmax", "Block", "Block"]


def test_compiling_is_over_before_a_compiled_pass_is_weighed(monkeypatch):
    order = []
    monkeypatch.setattr(layer_worker, "scale_for", lambda device: ByHand(order))
    monkeypatch.setattr(layer_worker, "compiled", lambda module, terms: lambda x: order.append(len(x)) or module(x))
    assert layer_worker.LayerPeak(asdict(subject(batch_size=8, compile=True)), "layer").measure()["peak_bytes"] == 7
    assert order == [1, 8, "start", 8, "peak"]


def test_who_does_not_pass_is_not_there(monkeypatch):
    def refuse(*shape, **terms):
        raise Broken("the output is 0.5 from the reference's")

    monkeypatch.setattr(layer_worker, "gate", refuse)
    with pytest.raises(Broken):
        layer_worker.timed_layer(asdict(subject()))


def test_a_reference_that_would_not_fit_is_asked_on_half_the_grid(monkeypatch):
    asked = []
    monkeypatch.setattr(layer_worker, "gate", lambda *shape, **terms: asked.append(shape[3]))
    whole = layer_worker.predicted_bytes(
        layer_worker._Reference(subject(grid=(8, 8)).built()), [(1, 65, 16)], torch.float32, Terms()
    )
    monkeypatch.setattr(layer_worker, "free_bytes", lambda device: whole / layer_worker.GATE_SHARE)
    assert layer_worker.pass_the_gate(subject(grid=(8, 8))) == 65
    monkeypatch.setattr(layer_worker, "free_bytes", lambda device: whole / layer_worker.GATE_SHARE - 1)
    assert layer_worker.pass_the_gate(subject(grid=(8, 8))) == 17
    monkeypatch.setattr(layer_worker, "free_bytes", lambda device: 0)
    assert layer_worker.pass_the_gate(subject(grid=(8, 8))) == 2
    monkeypatch.setattr(layer_worker, "free_bytes", lambda device: None)
    assert layer_worker.pass_the_gate(subject(grid=(8, 8))) == 65
    assert [tokens.grid for tokens in asked] == [(8, 8), (4, 4), (1, 1), (8, 8)]


def test_the_scale_is_set_behind_the_inputs_and_a_first_small_pass(monkeypatch):
    class Act:
        def __init__(self, module, inputs, terms):
            self.inputs = inputs
            order.append(f"inputs of {len(inputs[0])}")

        def __call__(self):
            order.append(len(self.inputs[0]))

    order = []
    monkeypatch.setattr(layer_worker, "scale_for", lambda device: ByHand(order))
    monkeypatch.setattr(layer_worker, "ForwardBackward", Act)
    one = subject(batch_size=8)
    weighed = layer_worker.LayerPeak(asdict(one), "core").measure()
    inputs = one.input_bytes("core")
    assert weighed == {"peak_bytes": 7, "input_bytes": inputs, "baseline_bytes": 10, "method": "by hand"}
    assert order == ["inputs of 1", 1, "inputs of 8", "start", 8, "peak"]
