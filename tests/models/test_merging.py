"""Token merging: the paper's formula, who may merge, what it costs; and a model that trains with it."""

import pytest
import torch
from tests.models.test_vit import gradients, images_for
from torch import nn
from torch.testing import assert_close

from saccade.attention.crowd import Crowd
from saccade.attention.flops import counted_flops
from saccade.attention.softmax import Softmax
from saccade.attention.tokens import Tokens
from saccade.measurement.operations import layers
from saccade.models.merging import TokenMerging
from saccade.models.sizes import create_model
from saccade.models.vit import VisionTransformer
from saccade.models.weights import load_model, save_model

SMALL = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 32, "depth": 3, "num_heads": 4}


def merged_by_hand(x, keys, sizes, count):
    """One image, token by token: A at even places, B at odd ones, the class token in neither."""
    n = len(x)
    a, b = range(2, n, 2), range(1, n, 2)
    found = []
    for i in a:
        cosines = {j: nn.functional.cosine_similarity(keys[i], keys[j], 0).item() for j in b}
        best = max(cosines, key=cosines.get)
        found.append((cosines[best], i, best))
    joins = {i: j for _, i, j in sorted(found, reverse=True)[: min(count, (n - 1) // 2)]}
    stay = [0, *(i for i in a if i not in joins), *b]
    members = {i: [i, *(other for other, j in joins.items() if j == i)] for i in stay}
    new_sizes = torch.stack([sizes[members[i]].sum() for i in stay])
    new_x = torch.stack([(sizes[members[i], None] * x[members[i]]).sum(0) for i in stay]) / new_sizes[:, None]
    return new_x, new_sizes


def by_hand(model, image, count):
    """The whole model for one image, from the paper: attention with log sizes, merging, MLP, block after block."""
    x = model._embedded(image[None])[0]
    sizes = x.new_ones(len(x))
    for block in model.blocks:
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
        weights = (q @ k.mT / k.shape[-1] ** 0.5 + sizes.log()).softmax(-1)
        x = x + block.attn.proj((weights @ v).transpose(0, 1).flatten(1))
        x, sizes = merged_by_hand(x, k.mean(0), sizes, count)
        x = x + block.mlp(block.norm2(x))
    return model.norm(x), sizes


@pytest.mark.parametrize("count", [1, 5, 8])
@pytest.mark.parametrize("kernel", ["sdpa", "explicit"])
def test_outputs_and_gradients_are_those_of_the_paper_s_formula(count, kernel):
    model = VisionTransformer(**SMALL, attention=f'softmax(kernel="{kernel}")', token_merging=count).double()
    images = images_for(model, dtype=torch.float64)
    expected = torch.stack([by_hand(model, image, count)[0] for image in images])
    assert_close(model.forward_features(images), expected)
    assert_close(model(images), model.head(expected[:, 0]))
    wanted = gradients(model.head(expected[:, 0]).square().sum(), model)
    assert_close(gradients(model(images).square().sum(), model), wanted)


def test_the_last_block_s_folded_class_token_sees_the_same_crowd():
    folding = VisionTransformer(**SMALL, token_merging=5).double()
    images = images_for(folding, dtype=torch.float64)
    assert folding.blocks[-1].attn.folds(1, 7)
    assert_close(folding(images), torch.stack([folding.head(by_hand(folding, one, 5)[0][0]) for one in images]))


def test_without_duplicates_a_token_of_size_two_counts_as_two():
    """Softmax over a crowd is softmax over everybody in it."""
    layer = Softmax(8, 2, Tokens((1, 4))).double()
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    everybody = x[:, [0, 1, 1, 1, 2, 3, 3]]
    crowd = Crowd(torch.tensor([[1.0, 3.0, 1.0, 2.0]]))
    assert_close(layer(x, None, None, crowd), layer(everybody)[:, [0, 1, 4, 5]])


def test_prefix_tokens_stay_in_front_as_they_are():
    merge = TokenMerging(7, Tokens((3, 5), prefix=3))
    x, crowd = torch.randn(2, 18, 6), Crowd(keys=torch.randn(2, 18, 4))
    y = merge(x, crowd)
    assert y.shape == (2, 11, 6)
    assert torch.equal(y[:, :3], x[:, :3])
    assert torch.equal(crowd.sizes[:, :3], torch.ones(2, 3))
    assert_close((y * crowd.sizes[..., None]).sum(1), x.sum(1))


def test_keys_that_differ_by_less_than_half_precision_tells_are_told_apart():
    """Places 1 and 3 are B; the key at 2 is nearer to that at 3, by 0.0008 of cosine."""
    keys = torch.tensor([[[1.0, 0], [0.9992, 0.04], [1, 0], [1, 0.001], [-1, 0]]])
    crowd = Crowd(keys=keys)
    TokenMerging(1, Tokens((2, 2), prefix=1))(torch.randn(1, 5, 6), crowd)
    assert crowd.sizes.tolist() == [[1, 1, 1, 2]]
    assert (keys[0, 1] @ keys[0, 2]).bfloat16() == (keys[0, 3] @ keys[0, 2]).bfloat16()


def test_of_few_patches_at_most_half_are_merged():
    model = VisionTransformer(**SMALL, token_merging=8)
    assert model.forward_features(images_for(model)).shape[1] == 1 + 16 - 8 - 4 - 2
    assert VisionTransformer(**SMALL | {"depth": 8}, token_merging=8).forward_features(images_for(model)).shape[1] == 2


def test_the_weights_are_those_of_a_model_that_merges_nothing():
    """Published weights serve as they are; merged or not, blocks start equal."""
    model, usual = VisionTransformer(**SMALL, token_merging=2), VisionTransformer(**SMALL)
    assert_close(dict(model.state_dict()), dict(usual.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"block": "xformers", "mlp_layer": "swiglu"}], ids=str)
def test_declared_operations_are_those_that_torch_counts(options):
    model = VisionTransformer(**SMALL | options, token_merging=3)
    assert sum(model.flops().values()) == counted_flops(lambda: model(images_for(model, 1)))
    every = counted_flops(lambda: model.forward_features(images_for(model, 1)))
    assert sum(model.flops(rows_as_run=False).values()) == every + model.flops()["head"]


def test_the_layer_table_shows_where_tokens_are_merged():
    shown = {layer.name: layer for layer in layers(VisionTransformer(**SMALL, token_merging=3))}
    assert shown["blocks.0.merge"].output_shape == (14, 32)
    assert shown["blocks.1.attn"].output_shape == (14, 32)
    assert shown["blocks.0.merge"].flops == 2 * 8 * 8 * 8
    assert "blocks.2.merge" not in shown


def test_checkpointing_changes_no_gradient():
    model = VisionTransformer(**SMALL, token_merging=3, drop_path_rate=0.5)
    images, noise = images_for(model), torch.rand(3, 6)
    wanted = gradients(model(images, noise).square().sum(), model)
    model.set_grad_checkpointing()
    assert_close(gradients(model(images, noise).square().sum(), model), wanted)


def test_bfloat16_is_near_float32_and_keeps_sizes_whole():
    """Keys so far apart that rounding changes no partner."""
    merge = TokenMerging(8, Tokens((4, 4), prefix=1))
    keys = torch.eye(17).roll(1, 1)[:, :9].repeat(2, 1, 1) + torch.eye(17)[:, :9]
    x = torch.randn(2, 17, 6)
    wide, narrow = Crowd(torch.full((2, 17), 129.0), keys), Crowd(torch.full((2, 17), 129.0), keys.bfloat16())
    assert_close(merge(x.bfloat16(), narrow).float(), merge(x, wide), rtol=1e-2, atol=1e-2)
    assert torch.equal(narrow.sizes, wide.sizes)
    assert narrow.sizes.sum() == 2 * 17 * 129
    model = VisionTransformer(**SMALL, token_merging=3).bfloat16()
    model(images_for(model, dtype=torch.bfloat16)).float().square().sum().backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert VisionTransformer(**SMALL, token_merging=3)(images_for(model)).isfinite().all()


def test_it_is_saved_and_read(tmp_path):
    model = create_model("vit_nano_patch1_8", token_merging=8)
    save_model(model, tmp_path)
    read, _ = load_model(tmp_path)
    assert read.config["token_merging"] == 8
    images = images_for(model)
    assert torch.equal(read(images), model(images))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"token_merging": 9}, "at most half of them, 8"),
        ({"token_merging": -1}, "whole number"),
        ({"token_merging": 2, "attention": "linear"}, "attention='linear'"),
        ({"token_merging": 2, "attention": "softmax*2,nystrom*1"}, "attention='nystrom'"),
        ({"token_merging": 2, "attention": "softmax(rope=True)"}, "rope=True"),
        ({"token_merging": 2, "reversible": True}, "reversible=True"),
        ({"token_merging": 2, "global_pool": "avg"}, "global_pool='avg'"),
        ({"token_merging": 2, "depth": 1}, "depth=1"),
    ],
    ids=str,
)
def test_what_cannot_merge_is_refused(options, word):
    with pytest.raises(ValueError, match=word):
        VisionTransformer(**SMALL | options)


def test_masked_autoencoders_and_intermediates_are_refused():
    with pytest.raises(ValueError, match="needs every patch where it was"):
        create_model("mae_nano_patch1_8", token_merging=2)
    model = VisionTransformer(**SMALL, token_merging=2)
    with pytest.raises(ValueError, match="merged tokens have no place"):
        model.forward_intermediates(images_for(model))


def test_gradients_reach_everything_that_is_learned():
    model = VisionTransformer(**SMALL, token_merging=4)
    model(images_for(model)).square().sum().backward()
    silent = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    assert not silent
    assert isinstance(model.blocks[0].merge, nn.Module)
