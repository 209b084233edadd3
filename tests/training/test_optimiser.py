import math
import weakref

import pytest
import torch
from tests.peers import timm
from timm.optim import param_groups_layer_decay
from torch import nn

from saccade.models.vit import VisionTransformer
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
    # The first step's running mean is a tenth of the gradient.
    means = (kept["exp_avg"] for kept in optimiser.torch.state.values())
    after = 10 * math.sqrt(sum(mean.square().sum().item() for mean in means))
    assert after == pytest.approx(wanted * norm.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_gradient_outlives_the_step(dtype):
    model = small()
    optimiser = AdamW(model, weight_decay=0.1, betas=(0.9, 0.999))
    model.to(dtype)
    loss_of(model, dtype).backward()
    gradient = weakref.ref(model.linear.weight.grad)
    optimiser.step(1e-3, norm=optimiser.take_gradients(), longest=0.0)
    assert gradient() is None
    assert all(one.grad is None for one in (*model.parameters(), *optimiser.masters))


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


def test_without_layer_decay_nothing_changes_bit_by_bit():
    plain, given = small(), small()
    stepped(plain, AdamW(plain, weight_decay=0.1, betas=(0.9, 0.95)), 5)
    stepped(given, AdamW(given, weight_decay=0.1, betas=(0.9, 0.95), layer_decay=1.0), 5)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), given.parameters(), strict=True))
    assert len(AdamW(plain, weight_decay=0.1, betas=(0.9, 0.95)).torch.param_groups) == 2


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_layers_get_the_shares_and_the_decay_that_timm_gives_them(pool):
    sizes = {"patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 4, "global_pool": pool, "num_classes": 5}
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, reg_tokens=2, init_values=0.1, **sizes)
    ours = VisionTransformer(img_size=32, reg_tokens=2, init_values=0.1, **sizes)
    groups = param_groups_layer_decay(
        theirs, weight_decay=0.1, layer_decay=0.65, no_weight_decay_list=theirs.no_weight_decay()
    )
    names = {id(one): name for name, one in theirs.named_parameters()}
    wanted = {names[id(one)]: (group["lr_scale"], group["weight_decay"]) for group in groups for one in group["params"]}
    # timm counts the norm before the pooling to the last block; BEiT and MAE, as we do, to the head.
    wanted |= {name: (1.0, decay) for name, (_, decay) in wanted.items() if name.startswith("norm.")}
    optimiser = AdamW(ours, weight_decay=0.1, betas=(0.9, 0.999), layer_decay=0.65)
    place = {master.data_ptr(): name for master, name in zip(optimiser.masters, optimiser.names, strict=True)}
    found = {
        place[one.data_ptr()]: (group["lr_scale"], group["weight_decay"])
        for group in optimiser.torch.param_groups
        for one in group["params"]
    }
    assert found == wanted
    assert len({scale for scale, _ in found.values()}) == 5


def test_each_layer_moves_at_its_own_rate():
    model = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimiser = AdamW(model, weight_decay=0.0, betas=(0.9, 0.999), layer_decay=0.5)
    for one in model.parameters():
        one.grad = torch.ones_like(one)
    optimiser.step(0.1, norm=optimiser.take_gradients(), longest=0.0)
    # Adam's first step is the rate, whatever the gradient.
    moved = {name: (before[name] - one).mean().item() for name, one in model.named_parameters()}
    wanted = {
        "patch_embed.proj.weight": 0.0125,
        "pos_embed": 0.0125,
        "blocks.0.attn.qkv.weight": 0.025,
        "blocks.1.norm1.bias": 0.05,
        "norm.weight": 0.1,
        "head.bias": 0.1,
    }
    assert {name: moved[name] for name in wanted} == pytest.approx(wanted, rel=1e-3)


def test_moments_made_beforehand_are_those_that_the_first_step_makes():
    model = small()
    made, first = (AdamW(model, weight_decay=0.1, betas=(0.9, 0.95)) for _ in range(2))
    made.make_moments()
    stepped(model, first, 1)
    shapes = [{name: (one.shape, one.dtype) for name, one in which.state().items()} for which in (made, first)]
    assert shapes[0] == shapes[1]
    assert not any(value.any() for value in made.state().values())
