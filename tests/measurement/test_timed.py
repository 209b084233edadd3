"""What lives in a timing process: acts by name, a gate before them, and the kernels that run."""

import pytest
import torch

from saccade.attention.made import Broken
from saccade.measurement import clock, timed
from saccade.measurement.seconds import WHAT
from saccade.measurement.subject import Subject
from saccade.measurement.timed import timed_subject

NANO = {"model": "vit_nano_patch1_8", "batch_size": 3, "inference_batch": 2}


@pytest.fixture(autouse=True)
def short_repeats(monkeypatch):
    monkeypatch.setattr(clock, "REPEAT_SECONDS", 0.001)


@pytest.mark.parametrize("what", WHAT)
def test_everything_there_is_to_time_is_timed(what):
    one = timed_subject(NANO)
    seen = []
    one.acts["step"].model.register_forward_hook(
        lambda module, given, output: seen.append((len(given[0]), module.training, torch.is_grad_enabled()))
    )
    warm = one.warm_up(what)
    assert warm["calls"] == one.calls[what]
    assert set(one.repeat(what)) == {"seconds", "cpu_seconds"} == set(warm["laps"][0])
    batch, training = {"forward": (3, False), "step": (3, True), "latency": (1, False), "inference": (2, False)}[what]
    assert set(seen) == {(batch, training, training)}


def test_each_kind_of_layer_passes_the_gate_once_at_the_shape_that_is_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(timed, "gate", lambda *shape, **terms: asked.append((*shape, terms)))
    one = timed_subject({**NANO, "attention": "linear*2,softmax*1", "options": {"depth": 3}, "amp_dtype": "bf16"})
    tokens = one.acts["step"].model.tokens
    terms = {"dtype": torch.bfloat16, "device": "cpu"}
    assert [(str(written), *shape, facts) for written, *shape, facts in asked] == [
        ("linear", 32, 4, tokens, 64, {**terms, "layer": 0}),
        ("softmax", 32, 4, tokens, 64, {**terms, "layer": 2}),
    ]


def test_who_does_not_pass_is_not_there(monkeypatch):
    def refuse(*shape, **terms):
        raise Broken("the output is 0.5 from the reference's")

    monkeypatch.setattr(timed, "gate", refuse)
    with pytest.raises(Broken):
        timed_subject(NANO)


@pytest.mark.parametrize(
    ("attention", "terms", "asked", "run"),
    [
        ("softmax", {}, "auto", "sdpa"),
        ("softmax", {"dtype": "bf16"}, "auto", "explicit"),
        ("softmax", {"amp_dtype": "bf16"}, "auto", "explicit"),
        ('softmax(kernel="sdpa")', {"dtype": "bf16"}, "sdpa", "sdpa"),
        ("linear", {}, None, "eager"),
        ('linear*1,softmax(kernel="explicit")*1', {}, "explicit", "eager, explicit"),
    ],
)
def test_the_kernels_asked_for_and_run_are_told(attention, terms, asked, run):
    subject = Subject(model="vit_nano_patch1_8", attention=attention, **terms)
    told = timed.kernels(subject.built(), subject)
    assert (told["kernel_asked"], told["kernel_run"]) == (asked, run)


@pytest.mark.parametrize(
    ("attention", "options", "last"),
    [
        ("softmax", {}, "folded"),
        ("softmax", {"global_pool": "avg"}, None),
        ('softmax(kernel="sdpa")', {}, None),
        ("softmax(rope=True)", {}, None),
        ("linear", {}, None),
        ("linear*1,softmax*1", {}, "folded"),
    ],
)
def test_a_last_block_computed_in_another_order_is_told(attention, options, last):
    subject = Subject(model="vit_nano_patch1_8", attention=attention, options=options)
    assert timed.kernels(subject.built(), subject)["last_block"] == last


def test_it_is_told_that_the_clock_waits_for_the_device(monkeypatch):
    """Before the first reading and before the last one, and after what is timed."""
    heard = []
    monkeypatch.setattr(clock, "wait_for", lambda device: heard.append(device.type))
    one = timed.Timed({"nothing": lambda: heard.append("called")}, Subject(model="vit_nano_patch1_8").terms, {})
    one.calls["nothing"] = 2
    one.repeat("nothing")
    assert heard == ["cpu", "called", "called", "cpu"]
    assert one.facts() == {"synchronised": True}
