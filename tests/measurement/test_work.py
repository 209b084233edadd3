"""What is measured of a masked autoencoder is its pre-training step, and its encoder on whole images."""

import pytest
import torch

from saccade.attention import fitting, list_attentions
from saccade.attention.flops import counted_flops
from saccade.measurement import clock, timed
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.operations import layers, operations, quadratic_share
from saccade.measurement.step import Step, random_images
from saccade.measurement.subject import Subject, subject_of
from saccade.measurement.timed import kernels, timed_subject
from saccade.measurement.work import work_of
from saccade.models.sizes import create_model

NANO = {"model": "mae_nano_patch1_8", "batch_size": 4, "inference_batch": 3}
VISIBLE = 16


def planned(name, attention=None, **options):
    with torch.device("meta"):
        return create_model(name, attention, **options).eval()


def fits(attention, model):
    return fitting(attention, model.embed_dim, 4, model.tokens, patches=model.visible)


@pytest.fixture
def model():
    return create_model("mae_nano_patch1_8")


def test_a_step_is_the_usual_one(model):
    """Forward and backward of the model's own loss, for the same hidden patches whoever is measured."""
    subject = Subject(**NANO)
    images = random_images(model, 4)
    step = Step(model, images, subject, work_of(model).loss)
    gradients = []
    taken = step.optimiser.take_gradients
    step.optimiser.take_gradients = lambda: (gradients.extend(one.grad.clone() for one in model.parameters()), taken())[
        1
    ]
    step()
    twin = create_model("mae_nano_patch1_8").train()
    twin(images, torch.rand(4, 64, generator=torch.Generator().manual_seed(0))).loss.backward()
    for ours, theirs in zip(gradients, twin.parameters(), strict=True):
        assert torch.equal(ours, theirs.grad)


def test_images_hide_different_patches_and_rivals_the_same(model):
    noise = work_of(model)._noise(3)
    assert torch.equal(noise, work_of(planned("mae_nano_patch1_8", "linear"))._noise(3))
    visible, _ = model.hide(3, noise, torch.device("cpu"))
    assert len(visible.unique(dim=0)) == 3


def test_a_user_of_the_trained_model_runs_its_encoder_on_whole_images(model):
    images = random_images(model, 2)
    torch.testing.assert_close(work_of(model).answer(images), model.forward_features(images))


@pytest.mark.parametrize("what", ["forward", "step", "latency", "inference"])
def test_everything_there_is_to_time_is_timed(what, monkeypatch):
    monkeypatch.setattr(clock, "REPEAT_SECONDS", 0.001)
    one = timed_subject(NANO)
    seen = []
    one.acts["step"].model.blocks[0].register_forward_hook(
        lambda module, given, output: seen.append((*output.shape[:2], module.training, torch.is_grad_enabled()))
    )
    one.warm_up(what)
    count = 1 + VISIBLE if what in ("forward", "step") else 65
    batch = {"forward": 4, "step": 4, "latency": 1, "inference": 3}[what]
    assert set(seen) == {(batch, count, what == "step", what == "step")}


def test_each_layer_passes_the_gate_at_every_shape_that_is_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(timed, "gate", lambda *shape, **terms: asked.append((str(shape[0]), *shape[1:3], shape[4])))
    timed_subject({**NANO, "attention": "linear", "options": {"decoder_attention": "softmax"}})
    assert asked == [("linear", 32, 4, VISIBLE), ("linear", 32, 4, 64), ("softmax", 16, 2, 64)]


def test_the_kernels_of_encoder_and_decoder_are_told_apart():
    subject = Subject(**NANO, attention="linear", options={"decoder_attention": 'softmax(kernel="explicit")'})
    told = kernels(subject.built(), subject)
    assert (told["kernel_run"], told["decoder_kernel_run"], told["last_block"]) == ("eager", "explicit", None)


@pytest.mark.parametrize("attention", list_attentions())
def test_operations_of_inference_are_counted_ones(attention):
    planned_model = planned("mae_nano_patch1_8")
    model = create_model("mae_nano_patch1_8", fits(attention, planned_model), decoder_attention="softmax").eval()
    told = operations(model)
    with torch.no_grad():
        counted = counted_flops(lambda: model.forward_features(random_images(model, 1)))
    assert told["inference_flops_per_image"] == counted


def test_parameters_and_operations_are_those_of_encoder_and_decoder(model):
    told = operations(model)
    assert told["parameters"] == sum(one.numel() for one in model.parameters())
    assert told["flops_per_image"] == sum(model.flops().values()) == sum(row.flops for row in layers(model))
    assert told["attention_parameters"] == 2 * 4 * (32 * 32 + 32) + 4 * (16 * 16 + 16)
    assert {name: (size["tokens"], size["width"], size["depth"]) for name, size in told["stacks"].items()} == {
        "encoder": (17, 32, 2),
        "decoder": (65, 16, 1),
    }


def test_the_quadratic_share_is_that_of_both_parts_by_their_arithmetic():
    """2 n² D of a block's 2 n² D + 12 n D² multiplications, the encoder's at visible tokens, the decoder's at all."""
    share = quadratic_share(planned("mae_base_patch16_224"))
    encoder, decoder = (12, 50, 768), (8, 197, 512)
    quadratic = sum(depth * 2 * n**2 * d for depth, n, d in (encoder, decoder))
    linear = sum(depth * 12 * n * d**2 for depth, n, d in (encoder, decoder))
    assert share == pytest.approx(quadratic / (quadratic + linear))
    assert 50 / (50 + 6 * 768) < share < 197 / (197 + 6 * 512)


def test_a_model_is_measured_as_it_was_made():
    model = create_model("mae_nano_patch1_8", "linear", mask_ratio=0.5)
    follows = subject_of(model, None, {}, device="cpu", threads=1)
    assert (follows.attention, follows.options) == ("linear", {"mask_ratio": 0.5})
    assert follows.built().config == model.config
    other = create_model("mae_nano_patch1_8", "linear", decoder_attention="softmax")
    assert subject_of(other, None, {}, device="cpu", threads=1).built().config == other.config


def test_the_peak_holds_weights_gradients_and_moments_of_both_parts():
    subject = Subject(model="mae_micro_patch4_32", options={"decoder_embed_dim": 512}, batch_size=8)
    record = measure_peak(subject)
    assert record.error is None
    assert record.values["peak_bytes"] > 16 * operations(planned(subject.model, **subject.options))["parameters"]
