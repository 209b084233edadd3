"""A layer's subject: what is built, from which options, and what a record says of it."""

import json
from dataclasses import asdict

import pytest
import torch

from saccade.attention.base import Attention
from saccade.attention.softmax import Softmax
from saccade.measurement.benching.layer import Core, LayerSubject, kernel, subject_from
from saccade.measurement.terms import Terms
from saccade.models.sizes import create_model


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
    assert subject("softmax").what == ("core", "layer", "block")
    assert subject("fourier").what == subject("lambda").what == ("layer", "block")


def block_of(**options):
    return LayerSubject(attention="linear", dim=16, num_heads=2, grid=(3, 3), prefix=1, block=options)


@pytest.mark.parametrize(
    "options", [{}, {"mlp_ratio": 3.0}, {"mlp_layer": "swiglu"}, {"style": "xformers"}, {"init_values": 0.1}]
)
def test_a_block_is_the_models_own(options):
    words = {"style": "block"}
    made = {words.get(name, name): value for name, value in options.items()}
    model = create_model(
        "vit_nano_patch1_8", "linear", embed_dim=16, num_heads=2, depth=1, img_size=3, pos_embed="learn", **made
    )
    ours, x = block_of(**options).module("block").state_dict(), torch.randn(2, 10, 16)
    assert {name: values.shape for name, values in ours.items()} == {
        name: values.shape for name, values in model.blocks[0].state_dict().items()
    }
    module = block_of(**options).module("block")
    model.blocks[0].load_state_dict(ours)
    torch.testing.assert_close(module(x), model.blocks[0](x))


def test_a_reversible_block_is_not_measured_alone():
    assert block_of(reversible=True).what == ("core", "layer")
    assert block_of(reversible=True).lacks("block").startswith("no block: ")


@pytest.mark.parametrize("what", ["core", "layer", "block"])
def test_checkpointing_computes_the_same_and_keeps_less(what):
    kept = {}
    for checkpointing in (False, True):
        one = LayerSubject(
            attention="softmax", dim=16, num_heads=2, grid=(3, 3), terms=Terms(checkpointing=checkpointing)
        )
        inputs = [torch.ones(shape).requires_grad_() for shape in one.shapes(what)]
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            y = one.module(what)(*inputs)
        kept[checkpointing] = sum(saved), torch.autograd.grad(y.square().sum(), inputs)
        assert one.conditions(what)["checkpointing"] is checkpointing
    assert kept[True][0] < kept[False][0]
    for slope, other in zip(kept[True][1], kept[False][1], strict=True):
        torch.testing.assert_close(slope, other)


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


def test_a_layer_is_weighed_in_a_fresh_process():
    one = subject("linformer(k=3)")
    weighed = one.weigh("layer", 60.0)
    assert weighed.error is None
    assert weighed.values["peak_bytes"] >= 0
    assert weighed.values["input_bytes"] == one.input_bytes("layer")
    assert weighed.conditions["kernel_run"] == "eager"
    assert weighed.conditions["process"]
