"""A training step is predicted as it really runs: the same tensors, for the same purposes, in the same modules."""

import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.modules import module as modules

from saccade.attention import fitting, list_attentions
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.memory.predict import CannotPredict, Planned, predicted_step
from saccade.measurement.memory.tracked import track_inference, track_training
from saccade.measurement.step import inference, training_step
from saccade.measurement.subject import Subject
from saccade.measurement.work import work_of
from saccade.models import pixel_error
from saccade.models.sizes import create_model

MAE, VIT = "mae_nano_patch1_8", "vit_nano_patch1_8"


def subject(attention="softmax", model=MAE, **terms):
    with torch.device("meta"):
        stacks = work_of(create_model(model)).stacks
    fits = [fitting(attention, one.width, one.heads, one.tokens, patches=one.patches) for one in stacks]
    options = {"decoder_attention": fits[1]} if len(fits) > 1 else {}
    return Subject(model=model, attention=fits[0], options={"depth": 2, **options}, batch_size=3, **terms)


def tracked(one):
    return track_training(one.built(), lambda model: training_step(model, one))


@pytest.mark.parametrize("attention", list_attentions())
def test_every_mechanism_is_predicted_to_the_byte(attention):
    one = subject(attention, dtype="bf16", checkpointing=True)
    assert predicted_step(one) == tracked(one)


@pytest.mark.parametrize("terms", [{}, {"dtype": "bf16"}, {"amp_dtype": "bf16"}, {"checkpointing": True}], ids=str)
@pytest.mark.parametrize("model", [VIT, MAE])
def test_every_mode_is_predicted_to_the_byte(model, terms):
    one = subject(model=model, **terms)
    assert predicted_step(one) == tracked(one)


@pytest.mark.parametrize("terms", [{}, {"dtype": "bf16"}], ids=str)
@pytest.mark.parametrize("attention", ["linear", "performer"])
def test_tiles_that_are_left_out_take_what_they_would(attention, terms):
    """57 images: tiles of several sizes, of which the last is a short one."""
    one = Subject(model="vit_micro_patch4_32", attention=attention, options={"depth": 2}, batch_size=57, **terms)
    assert predicted_step(one) == tracked(one)


@pytest.mark.parametrize("objective", ["mae", "simmim"])
def test_tiles_of_the_pixel_error_that_are_left_out_take_what_they_would(objective, monkeypatch):
    monkeypatch.setattr(pixel_error, "TILE_BYTES", 2**12)
    one = Subject(model=MAE, options={"depth": 1, "objective": objective}, batch_size=57)
    assert predicted_step(one) == tracked(one)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("terms", [{}, {"dtype": "bf16"}], ids=str)
def test_one_batch_after_the_other_is_predicted_as_each_alone(training, terms):
    one = subject("linear", **terms)
    planned = Planned(one, training=training)
    for size in (3, 50, 3):
        assert planned.predicted(size) == predicted_step(replace(one, batch_size=size), training=training)


def test_reversible_blocks_are_predicted_to_the_byte():
    one = Subject(model=VIT, options={"reversible": True}, batch_size=3)
    assert predicted_step(one) == tracked(one)


@pytest.mark.parametrize("terms", [{}, {"dtype": "bf16"}], ids=str)
def test_inference_is_predicted_to_the_byte(terms):
    one = subject(model=VIT, **terms)
    dtype = torch.bfloat16 if terms else torch.float32
    real = track_inference(model := one.built().to(dtype), inference(model, one))
    memory = predicted_step(one, training=False)
    assert memory == real
    assert (memory.gradients_bytes, memory.optimiser_bytes, memory.kept_bytes) == (0, 0, 0)
    assert memory.peak_bytes < predicted_step(one).peak_bytes


def test_parts_sum_to_the_tensors_at_the_peak():
    memory = predicted_step(subject(model="vit_micro_patch4_32"))
    parts = memory.weights_bytes, memory.gradients_bytes, memory.optimiser_bytes, memory.inputs_bytes
    assert sum(parts) + memory.activations_bytes + memory.scratch_bytes == memory.peak_bytes
    assert memory.activations_bytes == sum(memory.by_module.values())
    assert memory.attention_bytes == sum(
        size for name, size in memory.by_module.items() if ".attn." in f"{name}." and name.startswith("blocks.")
    )
    assert 0 < memory.attention_bytes < memory.activations_bytes


def test_checkpointing_keeps_the_inputs_of_blocks_and_no_more():
    plain, checkpointed = (predicted_step(subject(model=VIT, checkpointing=one)) for one in (False, True))
    one_input = 4 * 3 * 65 * 32
    assert plain.kept_bytes > 10 * one_input
    assert checkpointed.kept_bytes < 3 * one_input


def test_nothing_is_allocated_for_what_would_never_fit():
    memory = predicted_step(Subject(model="vit_large_patch32_224", batch_size=1000))
    assert memory.peak_bytes > 5e10
    assert memory.weights_bytes > 1.2e9


def test_nothing_is_left_behind():
    one, state = subject(), torch.get_rng_state()
    predicted_step(one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not modules._global_forward_hooks
    assert type(torch.zeros(1)) is torch.Tensor


def test_what_cannot_be_predicted_says_why():
    with pytest.raises(CannotPredict, match="compiler"):
        predicted_step(subject(compile=True))
    with pytest.raises(CannotPredict, match="predict for the cpu"):
        predicted_step(subject(device="xpu"))
    with pytest.raises(CannotPredict, match="up to 4096 images"):
        predicted_step(Subject(model=VIT, batch_size=2**40))
    with pytest.raises(ValueError, match="landmarks must be"):
        predicted_step(Subject(model=VIT, attention="nystrom(landmarks=900)"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
@pytest.mark.parametrize(
    ("model", "batch_size", "terms"),
    [("vit_micro_patch4_32", 128, {}), ("mae_micro_patch4_32", 256, {"dtype": "bf16"})],
)
def test_a_prediction_is_what_a_process_takes(model, batch_size, terms):
    values = measure_peak(Subject(model=model, batch_size=batch_size, **terms)).values
    assert values["predicted_bytes"] == pytest.approx(values["peak_bytes"], rel=values["within"])
    assert values["tracked_bytes"] <= values["predicted_bytes"]
    assert values["within"] < 0.1
