"""A layer's subject: what is built, from which options, and what a record says of it."""

import json
from dataclasses import asdict

import pytest
import torch

from saccade.attention.base import Attention
from saccade.attention.softmax import Softmax
from saccade.measurement.layer import Core, LayerSubject, kernel, subject_from
from saccade.measurement.terms import Terms


def subject(attention="softmax", grid=(3, 3), **terms):
    return LayerSubject(
        attention=attention, dim=16, num_heads=2, grid=grid, prefix=1, terms=Terms(batch_size=2, **terms)
    )


def test_a_subject_survives_json():
    one = subject("nystrom(landmarks=4)", dtype="bf16")
    assert subject_from(json.loads(json.dumps(asdict(one)))) == one


@pytest.mark.parametrize(
    ("attention", "grid", "options", "chosen"),
    [
        ("nystrom", (5, 5), {}, False),
        ("nystrom", (2, 2), {"landmarks": 1}, True),
        ("nystrom(landmarks=8)", (2, 2), {"landmarks": 8}, False),
        ("softmax", (1, 1), {}, False),
    ],
)
def test_options_are_chosen_only_where_none_is_written_and_the_defaults_are_refused(attention, grid, options, chosen):
    one = subject(attention, grid)
    assert dict(one.written.options) == options
    assert one.conditions("layer")["options_chosen"] is chosen
    assert one.about("layer")["attention"] == attention
    for option, value in options.items():
        assert f"{option}={value}" in one.about("layer")["attention_resolved"]


def test_the_core_is_the_mixing_without_projections():
    one = subject("linear")
    core, (q, k, v) = one.module("core"), [torch.randn(shape) for shape in one.shapes("core")]
    assert isinstance(core, Core)
    torch.testing.assert_close(core(q, k, v), core.layer.mix(q, k, v, None))
    assert isinstance(one.module("layer"), Attention)
    assert one.shapes("layer") == [(2, 10, 16)]
    assert q.shape == (2, 2, 10, 8)


def test_only_mechanisms_that_mix_by_heads_have_a_core():
    assert subject("softmax").what == ("core", "layer")
    assert subject("fourier").what == subject("lambda").what == ("layer",)


def test_every_process_builds_the_same_weights():
    one, other = (subject("linformer(k=3)").built().state_dict() for _ in range(2))
    for name, values in one.items():
        assert torch.equal(values, other[name])


@pytest.mark.parametrize(
    ("terms", "weights", "core"),
    [
        ({}, torch.float32, torch.float32),
        ({"dtype": "bf16"}, torch.bfloat16, torch.bfloat16),
        ({"amp_dtype": "bf16"}, torch.float32, torch.bfloat16),
    ],
)
def test_dtypes_are_those_of_weights_and_of_what_projections_put_out(terms, weights, core):
    one = subject(**terms)
    assert {weight.dtype for weight in one.built().parameters()} == {weights}
    assert (one.dtype("layer"), one.dtype("core")) == (weights, core)


def test_conditions_name_the_size_and_every_term():
    told = subject().conditions("core")
    size = {"what": "core", "tokens": 10, "grid": [3, 3], "prefix": 1, "width": 16, "heads": 2, "head_width": 8}
    assert told | size == told
    assert told["batch_size"] == 2
    assert told["device"] == "cpu"


def test_needed_bytes_hold_the_inputs():
    one = subject()
    assert one.input_bytes("core") == 4 * one.input_bytes("layer") / 2 == 4 * 4 * 2 * 10 * 16
    assert one.needed_bytes("core") > one.input_bytes("core")
    with pytest.raises(ValueError, match="landmarks must be"):
        subject("nystrom(landmarks=100)").needed_bytes("core")


@pytest.mark.parametrize(
    ("attention", "terms", "asked", "run"),
    [
        ("softmax", {}, "auto", "sdpa"),
        ("softmax", {"dtype": "bf16"}, "auto", "explicit"),
        ('softmax(kernel="explicit")', {}, "explicit", "explicit"),
        ("linear", {}, None, "eager"),
    ],
)
def test_the_kernel_asked_for_and_run_is_told(attention, terms, asked, run):
    assert kernel(subject(attention, **terms)) == {"kernel_asked": asked, "kernel_run": run}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"attention": "softmx"}, "did you mean 'softmax'"),
        ({"attention": "softmax(rank=3)"}, "no option 'rank'"),
        ({"dim": 15}, "must divide the width"),
        ({"num_heads": 0}, "heads=0"),
        ({"grid": (0, 3)}, "two sides of at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        LayerSubject(**{"attention": "softmax", "dim": 16, "num_heads": 2, "grid": (3, 3), **wrong})


def test_a_core_keeps_its_layers_weights():
    assert isinstance(subject().module("core").layer, Softmax)
