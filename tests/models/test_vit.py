"""The Vision Transformer: timm's function on timm's weights, only wanted rows, starts paired by name."""

import inspect
import json
import subprocess
import sys

import pytest
import torch
from tests.peers import timm
from torch import nn
from torch.testing import assert_close

from saccade.attention.softmax import Softmax
from saccade.models.sizes import create_model
from saccade.models.vit import VisionTransformer, block_indices

SMALL = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 32, "depth": 3, "num_heads": 4}

# Our options, and what timm calls the same.
PAIRS = {
    "token": ({}, {}),
    "avg": ({"global_pool": "avg"}, {"global_pool": "avg"}),
    "all": ({"global_pool": "all"}, {"global_pool": "avg", "pool_include_prefix": True}),
    "none": ({"global_pool": ""}, {"global_pool": ""}),
    "avg without fc_norm": ({"global_pool": "avg", "fc_norm": False}, {"global_pool": "avg", "fc_norm": False}),
    "token with fc_norm": ({"fc_norm": True}, {"fc_norm": True}),
    "no class token": ({"class_token": False, "global_pool": "avg"}, {"class_token": False, "global_pool": "avg"}),
    "registers": ({"reg_tokens": 3}, {"reg_tokens": 3}),
    "registers without positions": (
        {"reg_tokens": 2, "no_embed_class": True},
        {"reg_tokens": 2, "no_embed_class": True},
    ),
    "no positions": ({"pos_embed": "none"}, {"pos_embed": "none"}),
    "layer scale": ({"init_values": 0.1}, {"init_values": 0.1}),
    "no qkv bias": ({"attention": "softmax(qkv_bias=False)"}, {"qkv_bias": False}),
    "qk norm": ({"attention": "softmax(qk_norm=True)"}, {"qk_norm": True}),
    "explicit": ({"attention": 'softmax(kernel="explicit")'}, {}),
    "swiglu": ({"mlp_layer": "swiglu", "mlp_ratio": 2.5}, {"mlp_layer": "swiglu", "mlp_ratio": 2.5}),
    "oblong": ({"img_size": (8, 24), "patch_size": (2, 4)}, {"img_size": (8, 24), "patch_size": (2, 4)}),
    "five channels": ({"in_chans": 5}, {"in_chans": 5}),
    "no head": ({"num_classes": 0}, {"num_classes": 0}),
}


def peer_of(options: dict, **more) -> nn.Module:
    named = {**SMALL, **options, **more}
    if named.get("mlp_layer") == "swiglu":
        named |= {"mlp_layer": timm.layers.SwiGLU, "act_layer": nn.SiLU}
    peer = timm.models.vision_transformer.VisionTransformer(**named)
    torch.manual_seed(1)
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.2)
    return peer


def images_for(model: VisionTransformer, images: int = 3, **like) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(images, model.in_chans, *model.img_size, **like)


def gradients(loss: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    names = list(dict(model.named_parameters()))
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS.keys())
def test_outputs_and_gradients_are_those_of_timm_on_timm_s_weights(ours, theirs, training):
    model, peer = VisionTransformer(**SMALL | ours).double().train(training), peer_of(theirs).double().train(training)
    model.load_state_dict(peer.state_dict())
    images = images_for(model, dtype=torch.float64)
    found, expected = model(images), peer(images)
    assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).reshape(found.shape)
    wanted = gradients((expected * weights).sum(), peer)
    assert_close(gradients((found * weights).sum(), model), wanted, rtol=1e-9, atol=1e-9)


def test_in_float32_a_model_of_real_size_agrees_with_timm():
    model = create_model("vit_micro_patch2_32")
    peer = timm.models.vision_transformer.VisionTransformer(32, 2, 3, 10, embed_dim=128, depth=4, num_heads=8)
    peer.load_state_dict(model.state_dict())
    images = images_for(model, 16)
    found, expected = model(images), peer(images)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wanted = gradients(expected.square().sum(), peer)
    assert_close(gradients(found.square().sum(), model), wanted, rtol=1e-5, atol=1e-5)


def test_features_head_and_intermediates_are_those_of_timm():
    options = {"reg_tokens": 2}
    model, peer = VisionTransformer(**SMALL | options), peer_of(options)
    model.load_state_dict(peer.state_dict())
    images = images_for(model)
    features = model.forward_features(images)
    assert_close(features, peer.forward_features(images), rtol=1e-5, atol=1e-5)
    assert_close(model.forward_head(features, pre_logits=True), peer.forward_head(features, pre_logits=True))
    for asked in (
        {},
        {"indices": 2},
        {"indices": [0, -1], "norm": True},
        {"indices": [1], "stop_early": True},
        {"indices": 1, "output_fmt": "NLC", "return_prefix_tokens": True},
        {"intermediates_only": True},
    ):
        found, expected = model.forward_intermediates(images, **asked), peer.forward_intermediates(images, **asked)
        assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_features_before_the_head_keep_every_row():
    model = VisionTransformer(**SMALL)
    images = images_for(model)
    assert model.forward_features(images).shape == (3, 17, 32)
    assert_close(model.forward_head(model.forward_features(images)), model(images))


def test_the_last_block_computes_only_the_class_token():
    model = VisionTransformer(**SMALL)
    seen = []
    for block in model.blocks:
        block.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    model(images_for(model))
    assert seen == [17, 17, 1]


def test_stochastic_depth_is_decided_by_the_noise_in_training_only():
    model = VisionTransformer(**SMALL, drop_path_rate=0.5)
    images = images_for(model, dtype=torch.float32)
    none_skips, all_skip = torch.ones(3, 6), torch.zeros(3, 6)
    assert [block.drop_path for block in model.blocks] == [0.0, 0.25, 0.5]
    assert not torch.equal(model(images, none_skips), model(images, all_skip))
    # The rates of the first block are 0, so its noise decides nothing.
    assert torch.equal(model(images, none_skips), model(images, torch.cat([all_skip[:, :2], none_skips[:, 2:]], 1)))
    shuffled = torch.rand(3, 6)
    together = model(images, shuffled)
    for image in range(3):
        assert_close(model(images[image : image + 1], shuffled[image : image + 1])[0], together[image])
    model.eval()
    assert torch.equal(model(images, none_skips), model(images, all_skip))


def test_stochastic_depth_without_noise_is_torch_s_generator_s():
    model = VisionTransformer(**SMALL, drop_path_rate=0.5)
    images = images_for(model)
    torch.manual_seed(0)
    first = model(images)
    torch.manual_seed(0)
    noise = torch.rand(3, 6)
    assert torch.equal(model(images, noise), first)


def test_noise_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 x depth = 6"):
        VisionTransformer(**SMALL, drop_path_rate=0.1)(torch.randn(2, 3, 16, 16), torch.rand(2, 3))


@pytest.mark.parametrize("place", ["drop_rate", "pos_drop_rate", "proj_drop_rate"])
def test_dropout_acts_in_training_only(place):
    model = VisionTransformer(**SMALL, **{place: 0.5})
    images = images_for(model)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 16, 20), (2, 3, 8, 16)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"for a model of in_chans=3, img_size=\(16, 16\)"):
        VisionTransformer(**SMALL)(torch.randn(shape))


def test_models_with_other_attentions_start_equal_in_what_they_share():
    one = VisionTransformer(**SMALL, attention="softmax", seed=4).state_dict()
    two = VisionTransformer(**SMALL, attention="softmax(qk_norm=True)*1,linear*2", seed=4).state_dict()
    shared = one.keys() & two.keys()
    assert {"blocks.2.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "pos_embed", "head.weight"} <= shared
    for name in shared:
        assert torch.equal(one[name], two[name]), name
    other = VisionTransformer(**SMALL, seed=5).state_dict()
    assert not torch.equal(one["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pos_embed": "sine", "reg_tokens": 1},
        {"embed_layer": "conv", "patch_size": 1, "img_size": 4},
        {"mlp_layer": "swiglu", "init_values": 0.1},
        {"attention": "lambda"},
        {"attention": "linformer(k=4)"},
        {"attention": "nystrom(landmarks=4)"},
        {"attention": "fourier"},
    ],
    ids=str,
)
def test_a_model_built_without_storage_is_reset_to_the_same_start(options):
    named = SMALL | options
    expected = VisionTransformer(**named, seed=3)
    with torch.device("meta"):
        model = VisionTransformer(**named)
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(77)
    model.reset_parameters(3)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_layers_start_differently():
    model = VisionTransformer(**SMALL)
    weights = [block.attn.qkv.weight for block in model.blocks]
    assert not torch.equal(weights[0], weights[1])


def test_fixed_positions_stay_float32_and_are_no_parameter():
    model = VisionTransformer(**SMALL, pos_embed="sine").bfloat16()
    assert model.pos_embed.dtype == torch.float32
    assert torch.equal(model.pos_embed, VisionTransformer(**SMALL, pos_embed="sine").pos_embed)
    assert "pos_embed" in model.state_dict()
    assert "pos_embed" not in dict(model.named_parameters())
    assert model(images_for(model, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_bf16_is_near_float32():
    model = VisionTransformer(**SMALL)
    images = images_for(model)
    expected = model(images)
    assert_close(model.bfloat16()(images.bfloat16()).float(), expected, rtol=0.1, atol=0.05)


def test_under_autocast_it_runs_and_trains():
    model = VisionTransformer(**SMALL)
    images = images_for(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)
    logits.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_checkpointing_changes_no_value_and_no_gradient():
    model = VisionTransformer(**SMALL, drop_path_rate=0.3, proj_drop_rate=0.1)
    images, noise = images_for(model), torch.rand(3, 6)

    def run():
        torch.manual_seed(0)
        return gradients(model(images, noise).square().sum(), model)

    expected = run()
    model.set_grad_checkpointing()
    assert_close(run(), expected)


def test_a_mixture_gives_each_layer_its_attention():
    model = VisionTransformer(**SMALL, attention='softmax*1,softmax(kernel="explicit")*2')
    assert [block.attn.kernel for block in model.blocks] == ["auto", "explicit", "explicit"]
    assert [block.attn.layer for block in model.blocks] == [0, 1, 2]
    assert model.attention == 'softmax*1,softmax(kernel="explicit")*2'


def test_a_class_is_written_down_by_its_name():
    assert VisionTransformer(**SMALL, attention=Softmax).attention == "softmax"


def test_its_config_rebuilds_it():
    model = VisionTransformer(**SMALL, pos_embed="sine", global_pool="avg", attention="softmax(qk_norm=True)")
    again = VisionTransformer(**json.loads(json.dumps(model.config)))
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    assert set(model.config) == set(inspect.signature(VisionTransformer).parameters) - {"seed"}


def test_a_new_head_is_a_function_of_the_seed_and_reads_another_pooling():
    model = VisionTransformer(**SMALL).double()
    model.reset_classifier(7, "avg", seed=2)
    images = images_for(model, dtype=torch.float64)
    assert model(images).shape == (3, 7)
    assert model.config["num_classes"] == 7
    assert not model.config["fc_norm"]
    assert_close(
        model.forward_head(model.forward_features(images), pre_logits=True),
        model.forward_features(images)[:, 1:].mean(1),
    )
    other = VisionTransformer(**SMALL | {"num_classes": 7}, seed=2)
    assert torch.equal(model.get_classifier().weight.float(), other.get_classifier().weight)
    model.reset_classifier(0)
    assert model(images).shape == (3, 32)


def test_advance_reaches_every_layer_with_its_own_generator():
    model = VisionTransformer(**SMALL)
    drawn = []
    for block in model.blocks:
        block.attn.advance = lambda step, generator: drawn.append((step, torch.rand(1, generator=generator).item()))
    model.advance(5, seed=1)
    model.advance(5, seed=1)
    model.advance(6, seed=1)
    assert [step for step, _ in drawn] == [5] * 6 + [6] * 3
    assert drawn[:3] == drawn[3:6]
    assert len({value for _, value in drawn}) == 6


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_pool": "avg"},
        {"global_pool": "", "mlp_layer": "swiglu"},
        {"embed_layer": "conv", "patch_size": 1, "img_size": 6},
        {"num_classes": 0},
    ],
    ids=str,
)
def test_declared_flops_are_those_that_torch_counts(options):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = VisionTransformer(**SMALL | options).eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(images_for(model, images=1))
    assert sum(model.flops().values()) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model.forward_features(images_for(model, images=1))
    assert (
        sum(count for name, count in model.flops(rows_as_run=False).items() if name != "head")
        == counter.get_total_flops()
    )


def test_no_decay_is_for_tokens_and_positions():
    assert VisionTransformer(**SMALL).no_weight_decay() == {"pos_embed", "cls_token", "reg_token"}


@pytest.mark.parametrize(("indices", "blocks"), [(None, [0, 1, 2]), (2, [1, 2]), ([0, -1], [0, 2]), ((1,), [1])])
def test_blocks_are_meant_as_timm_means_them(indices, blocks):
    assert block_indices(indices, 3) == blocks


@pytest.mark.parametrize("indices", [0, 4, -1, [3], [-4], []])
def test_blocks_that_are_not_there_are_refused(indices):
    with pytest.raises(ValueError, match=r"the last 1\.\.3 blocks, or a list of blocks 0\.\.2"):
        block_indices(indices, 3)


def test_another_format_of_intermediates_is_refused():
    model = VisionTransformer(**SMALL)
    with pytest.raises(ValueError, match="NCHW"):
        model.forward_intermediates(images_for(model), output_fmt="NHWC")


COMPILED = """
import sys
import torch
from saccade.models import create_model
model = create_model("vit_nano_patch1_8", drop_path_rate=0.1, token_merging=int(sys.argv[1]))
images, noise = torch.randn(2, 1, 8, 8), torch.rand(2, 4)
expected = model(images, noise)
found = torch.compile(model, backend="aot_eager", fullgraph=True)(images, noise)
torch.testing.assert_close(found, expected)
wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
torch.testing.assert_close(torch.autograd.grad(found.square().sum(), list(model.parameters())), wanted)
"""


@pytest.mark.parametrize("token_merging", [0, 8])
def test_it_compiles_to_one_graph_of_the_same_values_and_gradients(token_merging):
    run = subprocess.run(
        [sys.executable, "-c", COMPILED, str(token_merging)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
