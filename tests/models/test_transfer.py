"""A model that starts from another has its encoder, says so tensor by tensor, and takes nothing that does not fit."""

import json

import pytest
import torch
from tests.attention.agreement import enliven
from tests.peers import timm
from torch.testing import assert_close

from saccade.attention import TABLE, Tokens, fitting
from saccade.models.embed import sine_positions
from saccade.models.mae import MaskedAutoencoder
from saccade.models.mae_weights import transformers_state
from saccade.models.pretrained import classifier_of, read_pretrained
from saccade.models.resampling import convert_channels, resample_patches, resample_positions
from saccade.models.sizes import create_model
from saccade.models.transfer import start_from
from saccade.models.vit import VisionTransformer
from saccade.models.weights import save_model

ENCODER = {"img_size": 32, "patch_size": 4, "in_chans": 3, "embed_dim": 32, "depth": 2, "num_heads": 4}
DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
GRID = Tokens((8, 8), prefix=1)


def autoencoder(attention="softmax", **options):
    model = MaskedAutoencoder(**{**ENCODER, **DECODER, "attention": attention, **options})
    enliven(model, 0.1)
    return model.eval()


def classifier(attention="softmax", **options):
    return VisionTransformer(**{**ENCODER, "attention": attention, "num_classes": 7, **options}).eval()


def images(rows=32, columns=32, channels=3):
    return torch.randn(2, channels, rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path):
    """Saves a model and says where."""

    def save(model, name="saved"):
        save_model(model, tmp_path / name, {"data": "digits"})
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", TABLE)
def test_the_encoder_of_every_attention_computes_what_it_computed(name, saved):
    attention = fitting(name, 32, 4, GRID, patches=16)
    pretrained, model = autoencoder(attention, decoder_attention="softmax"), classifier(attention)
    transfer = start_from(model, saved(pretrained))
    assert_close(model.forward_features(images()), pretrained.forward_features(images()), rtol=0, atol=0)
    assert set(transfer.fresh) == {"head.weight", "head.bias"}
    assert set(transfer.loaded) == set(model.state_dict()) - set(transfer.fresh)
    assert not transfer.reshaped
    assert set(transfer.unused) == {name for name in pretrained.state_dict() if name.startswith(("decoder", "mask"))}


@pytest.mark.parametrize("name", TABLE)
def test_every_attention_pretrains_and_is_fine_tuned_from_the_result(name, saved):
    attention = fitting(name, 32, 4, GRID, patches=16)
    pretrained = MaskedAutoencoder(**ENCODER, **DECODER, attention=attention, decoder_attention="softmax")
    stepped(pretrained, lambda: pretrained(images()).loss)
    model = classifier(attention, global_pool="avg")
    start_from(model, saved(pretrained))
    labels = torch.tensor([0, 3])
    losses = stepped(model, lambda: torch.nn.functional.cross_entropy(model(images()), labels))
    assert losses[1] < losses[0]


def stepped(model, loss_of, steps=2):
    optimiser, losses = torch.optim.AdamW(model.train().parameters(), lr=1e-3), []
    for step in range(steps):
        model.advance(step, seed=0)
        torch.manual_seed(0)
        loss = loss_of()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("pool", "fresh"), [("token", set()), ("avg", {"fc_norm.weight", "fc_norm.bias"})])
def test_the_last_norm_starts_fresh_behind_a_mean_as_in_the_papers_fine_tuning(pool, fresh, saved):
    pretrained, model = autoencoder(), classifier(global_pool=pool)
    transfer = start_from(model, saved(pretrained))
    assert set(transfer.fresh) == {"head.weight", "head.bias"} | fresh
    assert ("norm.weight" in transfer.unused) == bool(fresh)
    assert ("norm.weight" in transfer.loaded) != bool(fresh)


def test_positions_that_are_learned_start_as_the_sines_were(saved):
    model = classifier(pos_embed="learn")
    start_from(model, saved(autoencoder()))
    assert isinstance(model.pos_embed, torch.nn.Parameter)
    assert_close(model.pos_embed.detach()[0], sine_positions((8, 8), 32, 65))


@pytest.mark.parametrize("name", TABLE)
def test_every_attention_starts_on_another_grid(name, saved):
    attention = fitting(name, 32, 4, GRID, patches=16)
    pretrained, model = autoencoder(attention, decoder_attention="softmax"), classifier(attention, img_size=(32, 48))
    transfer = start_from(model, saved(pretrained))
    assert model(images(32, 48)).isfinite().all()
    assert set(transfer.loaded) | set(transfer.reshaped) | set(transfer.fresh) == set(model.state_dict())
    wider = [block.attn.regrid(model.tokens).state_dict() for block in pretrained.blocks]
    for layer, block in enumerate(model.blocks):
        assert_close(dict(block.attn.state_dict()), dict(wider[layer]), rtol=0, atol=0)
        for key, value in block.attn.state_dict().items():
            before = pretrained.blocks[layer].attn.state_dict()[key]
            same = before.shape == value.shape and torch.equal(before, value)
            assert (f"blocks.{layer}.attn.{key}" in transfer.loaded) == same


def test_another_grid_is_said_in_a_note(saved):
    transfer = start_from(classifier("linformer(k=4)", img_size=(32, 48)), saved(autoencoder("linformer(k=4)")))
    assert any("positions interpolated (bicubic): 8 x 8 patches to 8 x 12" in line for line in transfer.notes())
    assert any("linformer regridded: 8 x 8 patches to 8 x 12" in line for line in transfer.notes())
    assert "fresh: head; unused: " in transfer.notes()[0]
    facts = json.loads(json.dumps(transfer.facts()))
    assert facts["reshaped"]["pos_embed"]["from"] == [1, 65, 32]
    assert facts["reshaped"]["pos_embed"]["to"] == [1, 97, 32]


def test_fixed_sines_are_computed_for_another_grid(saved):
    model = classifier(pos_embed="sine", img_size=(32, 48))
    transfer = start_from(model, saved(autoencoder()))
    assert_close(model.pos_embed[0], sine_positions((8, 12), 32, 97))
    assert "sines of the new grid" in transfer.reshaped["pos_embed"].how


@pytest.mark.parametrize("new", [(5, 9), (16, 16), (8, 7)])
def test_positions_are_resampled_as_timms(new):
    positions = torch.randn(1, 66, 12)
    theirs = timm.layers.resample_abs_pos_embed(positions, list(new), [8, 8], num_prefix_tokens=2)
    assert_close(resample_positions(positions, (8, 8), new), theirs)


@pytest.mark.parametrize("patch", [(8, 8), (2, 2), (3, 6)])
def test_patches_are_resampled_as_timms(patch):
    weight = torch.randn(5, 3, 4, 4)
    theirs = timm.layers.resample_patch_embed(weight, list(patch))
    assert_close(resample_patches(weight, patch), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("there", "wanted"), [(3, 1), (1, 3), (3, 4), (3, 12), (5, 2), (3, 3)])
def test_channels_are_converted_as_timms(there, wanted):
    weight = torch.randn(5, there, 4, 4)
    theirs = timm.models.adapt_input_conv(wanted, weight.clone(), base_chans=there)
    assert_close(convert_channels(weight, wanted), theirs)


def test_channels_that_are_dropped_are_told(saved):
    pretrained, model = autoencoder(), classifier(in_chans=2)
    transfer = start_from(model, saved(pretrained), convert_channels=True)
    assert transfer.reshaped["patch_embed.proj.weight"].how == (
        "weights converted to 2 channels (of the first 2 of 3, the others dropped)"
    )
    kept = pretrained.patch_embed.proj.weight[:, :2] * 3 / 2
    assert_close(model.patch_embed.proj.weight, kept)


def test_a_grey_image_is_seen_as_it_was_in_colour(saved):
    pretrained, model = autoencoder(), classifier(in_chans=1)
    transfer = start_from(model, saved(pretrained), convert_channels=True)
    grey = images(channels=1)
    assert_close(model.forward_features(grey), pretrained.forward_features(grey.expand(-1, 3, -1, -1)))
    assert transfer.reshaped["patch_embed.proj.weight"].how == "weights converted to 1 channel"


def test_a_larger_patch_sees_in_an_enlarged_image_what_the_smaller_one_saw(saved):
    pretrained, model = autoencoder(), classifier(img_size=64, patch_size=8)
    transfer = start_from(model, saved(pretrained))
    patch = torch.randn(2, 3, 4, 4)
    enlarged = torch.nn.functional.interpolate(patch, (8, 8), mode="bicubic", antialias=True)
    small, large = pretrained.patch_embed.proj, model.patch_embed.proj
    assert_close(large(enlarged), small(patch), rtol=1e-3, atol=1e-3)
    assert set(transfer.reshaped) == {"patch_embed.proj.weight"}


def test_other_channels_are_refused_where_conversion_is_not_asked_for(saved):
    with pytest.raises(
        ValueError, match=r"images of 3 channels, and these have 1: --convert-channels .*data.in_chans=3"
    ):
        start_from(classifier(in_chans=1), saved(autoencoder()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "linear"}, "was trained with the attention softmax, and the model has linear"),
        ({"attention": "softmax(rope=True)"}, r"the model has softmax\(rope=True\)"),
        ({"embed_dim": 64}, "an encoder of embed_dim=32, and the model is of embed_dim=64"),
        ({"depth": 3}, "an encoder of depth=2, and the model is of depth=3"),
        ({"num_heads": 8}, "an encoder of num_heads=4, and the model is of num_heads=8"),
        ({"mlp_ratio": 2.0}, "mlp_ratio=4.0"),
        ({"mlp_layer": "swiglu"}, "mlp_layer"),
        ({"init_values": 0.1}, r"the model has a tensor blocks.0.ls1.gamma in its encoder"),
        ({"class_token": False, "global_pool": "avg"}, "has a tensor cls_token in its encoder that the model does not"),
        ({"reg_tokens": 2}, "the model has a tensor reg_token"),
        ({"pos_embed": "none"}, "was trained with positions"),
        ({"embed_layer": "conv", "patch_size": 1}, "patch_embed"),
    ],
    ids=str,
)
def test_an_encoder_of_another_make_is_refused(options, words, saved):
    folder, model = saved(autoencoder()), classifier(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        start_from(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_attention_written_otherwise_is_the_same(saved):
    start_from(classifier("softmax*2"), saved(autoencoder("softmax(qk_norm=False)")))


def test_a_class_that_only_the_folder_names_is_not_looked_at(saved, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("raise SystemExit('ran')\n")
    folder = saved(autoencoder())
    config = json.loads((folder / "config.json").read_text())
    config["config"]["attention"] = f"{mine}:Mine"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"was trained with the attention .*mine.py:Mine, and the model has softmax"):
        start_from(classifier(), folder)
    with pytest.raises(ValueError, match="--trust-class"):
        read_pretrained(folder, trust_class=())


def test_a_classifier_is_a_start_and_its_head_is_not(saved):
    other = classifier(global_pool="avg")
    enliven(other, 0.1)
    model = classifier(global_pool="avg")
    before = model.head.weight.detach().clone()
    transfer = start_from(model, saved(other))
    assert torch.equal(model.fc_norm.weight, other.fc_norm.weight)
    assert torch.equal(model.head.weight, before)
    assert set(transfer.fresh) == set(transfer.unused) == {"head.weight", "head.bias"}


def test_learned_positions_do_not_go_into_fixed_ones(saved):
    other = classifier()
    enliven(other, 0.1)
    with pytest.raises(ValueError, match="has learned positions"):
        start_from(classifier(pos_embed="sine"), saved(other))
    with pytest.raises(ValueError, match="learned positions of its class token"):
        start_from(classifier(no_embed_class=True), saved(other))


def test_no_position_of_the_class_token_and_one_of_zeros_are_the_same(saved):
    pretrained, without = autoencoder(), classifier(no_embed_class=True)
    start_from(without, saved(pretrained))
    assert_close(without.forward_features(images()), pretrained.forward_features(images()))
    again = classifier()
    start_from(again, saved(without, "without"))
    assert_close(again.forward_features(images()), pretrained.forward_features(images()))


@pytest.mark.parametrize("layout", ["full.pth", "encoder.pth", "hub.bin"])
def test_files_of_others_are_read_and_what_they_do_not_tell_is_said(layout, tmp_path):
    pretrained = autoencoder()
    state = transformers_state(pretrained) if layout == "hub.bin" else pretrained.state_dict()
    if layout == "encoder.pth":
        state = {name: value for name, value in state.items() if not name.startswith(("decoder", "mask"))}
    torch.save(state if layout == "hub.bin" else {"model": state}, tmp_path / layout)
    model = classifier()
    transfer = start_from(model, tmp_path / layout)
    assert_close(model.forward_features(images()), pretrained.forward_features(images()))
    assert "tells neither heads nor attention: taken as 4 heads of softmax" in transfer.notes()[-1]


def test_timms_weights_are_a_start_at_another_size_as_timm_has_it(tmp_path):
    sizes = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, **sizes)
    enliven(theirs, 0.1)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    model = classifier(img_size=(24, 40))
    start_from(model, tmp_path / "timm.pth")
    resized = timm.create_model("vit_tiny_patch16_224", img_size=(24, 40), **sizes)
    resized.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(theirs.state_dict(), resized))
    x = images(24, 40)
    assert_close(model.forward_features(x), resized.eval().forward_features(x))


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": Evil()}, "cannot be read as tensors"),
        ({"model": {"weight": torch.ones(2)}}, "holds no masked autoencoder"),
        ({"patch_embed.proj.weight": torch.ones(32, 3, 4, 4)}, "holds no Vision Transformer: it has no blocks.0"),
        ([1, 2], "holds no state dict"),
    ],
    ids=["pickle", "other", "embedding", "list"],
)
def test_other_files_are_refused(content, words, tmp_path, capsys):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=words):
        start_from(classifier(), tmp_path / "x.pth")
    assert "ran" not in capsys.readouterr().out


def test_a_folder_without_a_model_and_nothing_at_all_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder of a saved model; of others' models give the file"):
        start_from(classifier(), tmp_path)
    with pytest.raises(ValueError, match="there is no such file"):
        start_from(classifier(), tmp_path / "nothing.pth")


def test_pretraining_goes_on_at_another_size_with_encoder_and_decoder(saved):
    pretrained = autoencoder("linformer(k=4)", decoder_attention="softmax")
    model = MaskedAutoencoder(
        **{**ENCODER, "img_size": 48}, **DECODER, attention="linformer(k=4)", decoder_attention="softmax"
    )
    transfer = start_from(model, saved(pretrained))
    assert not transfer.fresh
    assert torch.equal(model.decoder_blocks[0].mlp.fc1.weight, pretrained.decoder_blocks[0].mlp.fc1.weight)
    assert_close(model.decoder_pos_embed[0], sine_positions((12, 12), 16, 145))
    assert model(images(48, 48)).loss.isfinite()


@pytest.mark.parametrize("options", [{"decoder_attention": "linear"}, {"decoder_num_heads": 4}, {"decoder_depth": 2}])
def test_another_decoder_starts_fresh_and_that_is_said(options, saved):
    model = MaskedAutoencoder(**{**ENCODER, **DECODER, **options})
    transfer = start_from(model, saved(autoencoder()))
    assert {name.split(".")[0].split("_")[0] for name in transfer.fresh} == {"decoder", "mask"}
    assert "it starts fresh" in transfer.notes()[-1]


def test_the_classifier_of_a_named_model_is_the_one_beside_it(saved):
    made = create_model("mae_micro_patch4_32", "nystrom(landmarks=4)", img_size=48, mlp_ratio=2.0)
    name, attention, options = classifier_of(read_pretrained(saved(made)))
    assert (name, attention) == ("vit_micro_patch4_32", "nystrom(landmarks=4)")
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()} == {
        "img_size": (48, 48),
        "mlp_ratio": 2.0,
    }


def test_the_classifier_of_a_file_has_its_shapes_and_the_published_heads(tmp_path):
    with torch.device("meta"):
        large = create_model("mae_large_patch16_224")
    state = {name: torch.zeros(1).expand(value.shape) for name, value in large.state_dict().items()}
    found = read_pretrained_of(state, tmp_path / "large.safetensors")
    assert classifier_of(found) == ("vit_large_patch16_224", "softmax", {})


def read_pretrained_of(state, path):
    """Without a gigabyte on the disk."""
    from saccade.models.pretrained import Pretrained

    return Pretrained(str(path), "", state, None, None, {})


@pytest.mark.parametrize(("there", "here"), [("simmim", "simmim"), ("simmim", "mae"), ("mae", "simmim")])
def test_either_objective_is_a_start_for_the_other_and_for_a_classifier(there, here, saved):
    pretrained, model = autoencoder(objective=there), autoencoder(objective=here)
    transfer = start_from(model, saved(pretrained))
    assert_close(model.forward_features(images()), pretrained.forward_features(images()), rtol=0, atol=0)
    assert bool(transfer.fresh) == (there != here) == ("mask_token" not in transfer.loaded)
    classified = classifier()
    start_from(classified, saved(pretrained))
    assert_close(classified.forward_features(images()), pretrained.forward_features(images()), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"block": "xformers"}, {"reversible": True}])
def test_the_style_of_the_block_must_be_the_same(options, saved):
    pretrained = autoencoder(**options)
    with pytest.raises(ValueError, match=f"an encoder of {next(iter(options))}="):
        start_from(classifier(), saved(pretrained))
    for size in (32, 48):
        model = classifier("softmax", img_size=size, **options)
        assert set(start_from(model, saved(pretrained)).fresh) == {"head.weight", "head.bias"}
    model = classifier(**options)
    start_from(model, saved(pretrained))
    assert_close(model.forward_features(images()), pretrained.forward_features(images()))
    assert classifier_of(read_pretrained(saved(pretrained)))[2].items() >= options.items()
