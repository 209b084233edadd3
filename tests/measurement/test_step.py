"""What is measured is a training step and a forward pass, as training and inference run them."""

import pytest
import torch
from torch import nn

from saccade.measurement.step import Forward, Step, random_images
from saccade.measurement.subject import Subject
from saccade.measurement.work import work_of

NANO = {"model": "vit_nano_patch1_8", "batch_size": 4}


def step_of(**terms) -> Step:
    subject = Subject(**NANO, **terms)
    model = subject.built()
    return Step(model, random_images(model, subject.batch_size), subject, work_of(model).loss)


def test_a_step_trains_every_weight_a_little():
    step = step_of()
    before = {name: weight.clone() for name, weight in step.model.named_parameters()}
    step.model.eval()
    step()
    assert step.model.training
    for name, weight in step.model.named_parameters():
        assert not torch.equal(weight, before[name]), name
        torch.testing.assert_close(weight, before[name], atol=1e-5, rtol=0)


def test_the_moments_are_there_after_the_first_step():
    step = step_of()
    assert not step.optimiser.torch.state
    step()
    held = sum(state["exp_avg"].numel() for state in step.optimiser.torch.state.values())
    assert held == sum(weight.numel() for weight in step.model.parameters())


@pytest.mark.parametrize(
    ("terms", "weights", "mixed"),
    [
        ({}, torch.float32, torch.float32),
        ({"dtype": "bf16"}, torch.bfloat16, torch.bfloat16),
        ({"amp_dtype": "bf16"}, torch.float32, torch.bfloat16),
    ],
)
def test_weights_and_mixing_are_of_the_types_asked_for(terms, weights, mixed):
    step = step_of(**terms)
    seen = []
    step.model.blocks[0].attn.proj.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    step()
    assert {weight.dtype for weight in step.model.parameters()} == {weights}
    assert {master.dtype for master in step.optimiser.masters} == {torch.float32}
    assert seen == [mixed]
    assert step.subject.terms.mixing_dtype == mixed


def test_a_forward_pass_keeps_no_gradients_and_is_in_eval_mode():
    model = Subject(**NANO, options={"proj_drop_rate": 0.5}).built()
    kept = []
    model.register_forward_hook(lambda module, given, output: kept.append(output))
    forward = Forward(model, random_images(model, 3), Subject(**NANO), work_of(model).answer)
    forward()
    forward()
    assert kept[0].shape == (3, 10)
    assert not kept[0].requires_grad
    assert torch.equal(kept[0], kept[1])


def test_rivals_get_the_same_images():
    softmax, linear = (Subject(**NANO, attention=one).built() for one in ("softmax", "linear"))
    assert torch.equal(random_images(softmax, 2), random_images(linear, 2))


def test_a_model_without_class_scores_has_no_training_step():
    with pytest.raises(ValueError, match="pooled head"):
        step_of(options={"global_pool": ""})()


def test_a_step_is_the_usual_one():
    """The same loss and gradients as written down by hand."""
    step = step_of()
    twin = Subject(**NANO).built().train()
    loss = nn.functional.cross_entropy(twin(step.images), torch.arange(4))
    loss.backward()
    taken = step.optimiser.take_gradients
    gradients = []
    step.optimiser.take_gradients = lambda: (
        gradients.extend(one.grad.clone() for one in step.model.parameters()),
        taken(),
    )[1]
    step()
    for ours, theirs in zip(gradients, twin.parameters(), strict=True):
        assert torch.equal(ours, theirs.grad)
