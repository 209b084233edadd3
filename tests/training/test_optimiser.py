import math

import pytest
import torch
from torch import nn

from saccade.training.optimiser import AdamW, learning_rate


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.ones(1, 4, 6))
        self.linear = nn.Linear(6, 3)
        self.frozen = nn.Parameter(torch.ones(6, 6), requires_grad=False)

    def no_weight_decay(self):
        return {"pos_embed"}

    def forward(self, x):
        return self.linear(x + self.pos_embed.to(x.dtype))


def small(seed=0):
    torch.manual_seed(seed)
    return Small()


def loss_of(model, dtype=torch.float32):
    torch.manual_seed(1)
    return model(torch.randn(8, 4, 6).to(dtype)).float().square().mean()


def stepped(model, optimiser, steps, rate=1e-2, longest=0.0, dtype=torch.float32):
    for _ in range(steps):
        loss_of(model, dtype).backward()
        optimiser.step(rate, norm=optimiser.take_gradients(), longest=longest)


def test_it_is_torchs_adamw():
    ours, theirs = small(), small()
    stepped(ours, AdamW(ours, weight_decay=0.1, betas=(0.9, 0.95)), 5)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs.linear.weight], "weight_decay": 0.1},
            {"params": [theirs.pos_embed, theirs.linear.bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for _ in range(5):
        reference.zero_grad()
        loss_of(theirs).backward()
        reference.step()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, yours)


def test_only_matrices_decay_that_the_model_does_not_name():
    model = small()
    optimiser = AdamW(model, weight_decay=0.1, betas=(0.9, 0.999))
    decays, free = ({tuple(one.shape) for one in group["params"]} for group in optimiser.torch.param_groups)
    assert decays == {(3, 6)}
    assert free == {(1, 4, 6), (3,)}
    assert [group["weight_decay"] for group in optimiser.torch.param_groups] == [0.1, 0.0]


def test_a_float32_model_has_no_copy():
    model = small()
    optimiser = AdamW(model, weight_decay=0.1, betas=(0.9, 0.999))
    assert {one.data_ptr() for one in optimiser.masters} < {one.data_ptr() for one in model.parameters()}


def test_updates_too_small_for_bf16_are_not_lost():
    model = small()
    optimiser = AdamW(model, weight_decay=0.0, betas=(0.9, 0.999))
    model.to(torch.bfloat16)
    before = model.linear.weight.detach().clone()
    # A step of 1e-4 of 1 is far below the 2^-8 of bf16: alone it moves nothing, and many of them must.
    stepped(model, optimiser, 1, rate=1e-5, dtype=torch.bfloat16)
    assert torch.equal(model.pos_embed, torch.ones_like(model.pos_embed))
    stepped(model, optimiser, 400, rate=1e-4, dtype=torch.bfloat16)
    assert not torch.equal(model.pos_embed, torch.ones_like(model.pos_embed))
    assert not torch.equal(model.linear.weight, before)


def test_the_bf16_model_is_the_rounded_master():
    model = small()
    optimiser = AdamW(model, weight_decay=0.1, betas=(0.9, 0.999))
    model.to(torch.bfloat16)
    stepped(model, optimiser, 3, dtype=torch.bfloat16)
    for weight, master in zip(optimiser.weights, optimiser.masters, strict=True):
        assert weight.dtype == torch.bfloat16
        assert master.dtype == torch.float32
        assert torch.equal(weight, master.to(torch.bfloat16))


def test_the_length_of_the_gradients_is_of_all_together():
    model = small()
    optimiser = AdamW(model, weight_decay=0.1, betas=(0.9, 0.999))
    loss_of(model).backward()
    wanted = math.sqrt(sum(one.grad.square().sum().item() for one in model.parameters() if one.grad is not None))
    assert optimiser.take_gradients().item() == pytest.approx(wanted, rel=1e-6)
    assert all(one.grad is None for one in model.parameters())


@pytest.mark.parametrize(("longest", "wanted"), [(0.25, 0.25), (0.0, 1.0), (1e9, 1.0)])
def test_a_longer_gradient_is_scaled_down(longest, wanted):
    model = small()
    optimiser = AdamW(model, weight_decay=0.1, betas=(0.9, 0.999))
    loss_of(model).backward()
    norm = optimiser.take_gradients()
    optimiser.step(1e-3, norm=norm, longest=longest * norm.item())
    after = math.sqrt(sum(one.grad.square().sum().item() for one in optimiser.masters))
    assert after == pytest.approx(wanted * norm.item(), rel=1e-4)


def rates(steps=100, **changed):
    options = {"warmup_steps": 10, "highest": 1.0, "lowest": 0.1, "schedule": "cosine"} | changed
    return [learning_rate(step, steps=steps, **options) for step in range(steps)]


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    found = rates()
    assert found[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.55)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 0.1 < found[-1] < 0.101


def test_a_constant_rate_is_constant_behind_its_rise():
    assert set(rates(schedule="constant")[9:]) == {1.0}


def test_without_warm_up_the_first_rate_is_the_highest():
    assert rates(warmup_steps=0)[0] == 1.0


def test_a_run_may_be_all_warm_up():
    assert rates(warmup_steps=100)[-1] == 1.0
