"""The masked autoencoder against transformers' on the same weights and noise, and with every attention."""

from argparse import Namespace

import pytest
import torch
from tests.attention.agreement import enliven
from tests.peers import timm  # noqa: F401
from torch.testing import assert_close
from transformers import ViTMAEConfig, ViTMAEForPreTraining

import saccade.models.sizes
from saccade.attention import TABLE, Tokens, fitting
from saccade.models.mae import MaskedAutoencoder
from saccade.models.mae_weights import load_mae, mae_state, transformers_state
from saccade.models.masking import visible_patches
from saccade.models.weights import load_model, save_model
from saccade.training.saved import evaluate_saved

SMALL = {
    "img_size": 32,
    "patch_size": 4,
    "in_chans": 3,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "decoder_embed_dim": 16,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
}


def made(attention="softmax", **options):
    """A small model in float64 whose weights hide nothing."""
    model = MaskedAutoencoder(**{**SMALL, "attention": attention, **options}).double()
    enliven(model, 0.1)
    return model


def images(batch=2, side=32, channels=3):
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noise(batch=2, patches=64):
    return torch.rand(batch, patches, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pair(**options):
    """transformers' model and ours with its weights; its default norms add 1e-12, facebookresearch's and ours 1e-6."""
    ours = made(**options)
    config = ViTMAEConfig(
        hidden_size=ours.embed_dim,
        num_hidden_layers=len(ours.blocks),
        num_attention_heads=ours.config["num_heads"],
        intermediate_size=4 * ours.embed_dim,
        image_size=ours.img_size[0],
        patch_size=ours.config["patch_size"][0],
        num_channels=ours.in_chans,
        decoder_hidden_size=ours.decoder_embed_dim,
        decoder_num_hidden_layers=len(ours.decoder_blocks),
        decoder_num_attention_heads=ours.config["decoder_num_heads"],
        decoder_intermediate_size=4 * ours.decoder_embed_dim,
        mask_ratio=ours.config["mask_ratio"],
        norm_pix_loss=ours.norm_pix_loss,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    theirs = ViTMAEForPreTraining(config).double()
    positions = {name: parameter.detach().clone() for name, parameter in theirs.named_parameters() if "pos" in name}
    enliven(theirs, 0.1)
    theirs.load_state_dict(positions, strict=False)
    ours.load_state_dict(mae_state(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"norm_pix_loss": True}, {"mask_ratio": 0.5}])
def test_loss_prediction_mask_and_gradients_are_those_of_transformers(options):
    ours, theirs = pair(**options)
    x, drawn = images(), noise()
    expected = theirs(x, noise=drawn)
    seen = ours(x, drawn, details=True)
    assert_close(seen.loss, expected.loss)
    assert_close(seen.pred, expected.logits)
    assert_close(seen.mask, expected.mask.to(seen.mask))
    loss = ours(x, drawn).loss
    assert_close(loss, expected.loss)
    loss.backward()
    expected.loss.backward()
    slopes = {name: one.grad for name, one in theirs.named_parameters() if one.grad is not None}
    renamed = mae_state(slopes)
    assert set(renamed) == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, renamed[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("attention", ["softmax(rope=True)", "linformer(k=4)", "fourier"])
def test_in_any_order_or_in_raster_order_it_predicts_the_same(attention):
    model, x, drawn = made("linear", decoder_attention=attention), images(), noise()
    assert not model._any_order
    plain = model(x, drawn).loss
    assert_close(plain, model(x, drawn, details=True).loss)


def test_layers_without_order_are_not_brought_into_raster_order_and_predict_the_same():
    model, x, drawn = made("softmax"), images(), noise()
    assert model._any_order
    seen = []
    model.decoder_blocks[0].attn.register_forward_pre_hook(lambda layer, given: seen.append(given[1]))
    few = model(x, drawn).loss
    many = model(x, drawn, details=True).loss
    assert_close(few, many)
    visible, hidden = model.hide(2, drawn, x.device)
    assert torch.equal(seen[0], torch.cat([visible, hidden], dim=1))
    assert seen[1] is None


def test_every_layer_of_the_encoder_is_told_the_visible_patches_in_ascending_order():
    model, seen = made("linear"), []
    for block in model.blocks:
        block.attn.register_forward_pre_hook(lambda layer, given: seen.append(given[1]))
    model(images(), noise())
    for ids in seen:
        assert torch.equal(ids, noise().argsort(dim=1)[:, :16].sort(dim=1).values)
    assert len(seen) == 2


@pytest.mark.parametrize("name", TABLE)
def test_every_attention_pretrains_in_encoder_and_decoder(name):
    tokens = Tokens((8, 8), prefix=1)
    written = [fitting(name, dim, heads, tokens, patches=patches) for patches, dim, heads in ((16, 32, 4), (64, 16, 2))]
    model = MaskedAutoencoder(**{**SMALL, "attention": written[0], "decoder_attention": written[1]})
    optimiser, x = torch.optim.AdamW(model.parameters(), lr=1e-3), images().float()
    losses = []
    for step in range(3):
        model.advance(step, seed=0)
        loss = model(x, noise().float()).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    slopes = {name: one.grad for name, one in model.named_parameters()}
    # A bias that compositional's choice cancels has no gradient.
    assert {one for one, slope in slopes.items() if slope is None} <= {one for one in slopes if "select.bias" in one}
    assert all(slope.isfinite().all() for slope in slopes.values() if slope is not None)


@pytest.mark.parametrize(
    ("patch", "decoder", "attention", "parameters"),
    [
        (8, (512, 16), "softmax", 27_706_816),
        (8, (512, 16), "lambda", 20_038_848),
        (16, (128, 8), "softmax", 4_048_384),
        (16, (128, 8), "lambda", 3_172_224),
    ],
)
def test_the_first_original_s_models_have_its_parameters_by_module(patch, decoder, attention, parameters):
    with torch.device("meta"):
        model = saccade.create_model(
            "mae_base_patch16_224",
            in_chans=1,
            patch_size=patch,
            embed_dim=128,
            depth=12,
            num_heads=8,
            decoder_embed_dim=decoder[0],
            decoder_depth=8,
            decoder_num_heads=decoder[1],
            attention=attention,
            decoder_attention=attention,
        )
    bare = {"cls_token", "mask_token"}
    assert sum(one.numel() for name, one in model.named_parameters() if name not in bare) == parameters


def test_facebooks_checkpoint_loads_without_running_anything(tmp_path):
    ours, x, drawn = made(mask_ratio=0.75).float(), images().float(), noise().float()
    # As misc.save_model of facebookresearch/mae writes it.
    written = {"model": ours.state_dict(), "epoch": 3, "args": Namespace(lr=1e-3, output_dir="out")}
    torch.save(written, tmp_path / "mae.pth")
    again = load_mae(tmp_path / "mae.pth", num_heads=4, decoder_num_heads=2)
    assert again.config == ours.config
    assert_close(again(x, drawn).loss, ours(x, drawn).loss)


def test_the_hubs_layout_is_written_and_read_by_transformers(tmp_path):
    ours, theirs = pair()
    theirs.config.save_pretrained(tmp_path)
    torch.save(saccade.transformers_state(ours.float()), tmp_path / "pytorch_model.bin")
    from_hub = ViTMAEForPreTraining.from_pretrained(tmp_path)
    x, drawn = images().float(), noise().float()
    assert_close(from_hub(x, noise=drawn).loss, ours(x, drawn).loss)
    again = saccade.load_mae(tmp_path / "pytorch_model.bin", num_heads=4, decoder_num_heads=2)
    assert_close(again.state_dict(), ours.state_dict())


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": Evil()}, "cannot be read as tensors"),
        ({"model": {}, "args": Namespace(lr=Evil())}, "cannot be read as tensors"),
        ({"model": {"weight": torch.ones(2)}}, "holds no masked autoencoder"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_other_files_are_refused(content, words, tmp_path, capsys):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=words):
        load_mae(tmp_path / "x.pth")
    assert "ran" not in capsys.readouterr().out


def test_an_encoder_alone_and_learned_positions_are_refused(tmp_path):
    state = made().float().state_dict()
    torch.save({key: value for key, value in state.items() if "decoder" not in key}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="the encoder alone"):
        load_mae(tmp_path / "x.pth")
    torch.save({**state, "pos_embed": state["pos_embed"] + 1}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not the fixed sines"):
        load_mae(tmp_path / "x.pth", num_heads=4, decoder_num_heads=2)
    with pytest.raises(ValueError, match="no such file"):
        load_mae(tmp_path / "y.pth")


def without(state, *names):
    return {key: value for key, value in state.items() if not key.startswith(names)}


def theirs_of(state):
    """As transformers has it, in float32."""
    model = made().float()
    model.load_state_dict(state)
    return transformers_state(model)


QUERY = "vit.encoder.layer.0.attention.attention.query.weight"
MISFITS = {
    "SimMIM": (lambda _: made(objective="simmim").state_dict(), "decoder_embed.weight is missing"),
    "other blocks": (lambda _: made(block="xformers").state_dict(), "blocks.0.attn.qkv.bias is missing"),
    "a key less": (lambda one: without(one, "norm.bias"), "norm.bias is missing"),
    "a key more": (lambda one: {**one, "head.bias": one["norm.bias"]}, "head.bias is unknown"),
    "another shape": (lambda one: {**one, "norm.bias": torch.ones(3)}, r"norm.bias is \(3,\), not \(32,\)"),
    "no blocks": (lambda one: without(one, "blocks."), "blocks.0 is missing"),
    "no decoder's blocks": (lambda one: without(one, "decoder_blocks."), "decoder_blocks.0 is missing"),
    "no MLP": (lambda one: without(one, "blocks.0.mlp"), "blocks.0.mlp.fc2.weight is missing"),
    "no positions": (lambda one: without(one, "pos_embed"), "pos_embed is missing"),
    "no decoder's positions": (lambda one: without(one, "decoder_pos_embed"), "decoder_pos_embed is missing"),
    "flat patches": (
        lambda one: {**one, "patch_embed.proj.weight": one["patch_embed.proj.weight"].flatten(1)},
        r"patch_embed.proj.weight is \(32, 48\), not of 4 dimensions",
    ),
    "flat positions": (lambda one: {**one, "pos_embed": torch.ones(65)}, r"pos_embed is \(65,\), not of 3 dimensions"),
    "no keys": (
        lambda one: without(theirs_of(one), QUERY.replace("query", "key")),
        f"beside {QUERY} is no key or no value of its shape",
    ),
    "values of another shape": (
        lambda one: {**theirs_of(one), QUERY.replace("query", "value"): torch.ones(32, 31)},
        f"beside {QUERY} is no key or no value of its shape",
    ),
}


@pytest.mark.parametrize(("broken", "words"), MISFITS.values(), ids=MISFITS.keys())
def test_weights_that_do_not_fit_are_refused_by_name(broken, words, tmp_path):
    torch.save(broken(made().float().state_dict()), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=f"x.pth does not fit its model: {words}$"):
        load_mae(tmp_path / "x.pth", num_heads=4, decoder_num_heads=2)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((16, 24), r"has 24 patches, which are no square grid"),
        ((16, 64), r"not the fixed sines of MAE on 8 x 8 patches"),
    ],
)
def test_the_grid_of_a_file_is_asked_for_where_it_is_no_square(size, words, tmp_path):
    ours = made(img_size=size).float()
    torch.save(ours.state_dict(), tmp_path / "x.pth")
    heads = {"num_heads": 4, "decoder_num_heads": 2}
    with pytest.raises(ValueError, match=rf"{words}.* img_size=\(rows, columns\)"):
        load_mae(tmp_path / "x.pth", **heads)
    assert load_mae(tmp_path / "x.pth", **heads, img_size=size).config == ours.config
    with pytest.raises(ValueError, match=r"decoder_pos_embed is .*, not"):
        load_mae(tmp_path / "x.pth", **heads, img_size=48)


def test_only_softmax_is_written_for_transformers():
    with pytest.raises(ValueError, match="no linear"):
        transformers_state(made("linear"))
    with pytest.raises(ValueError, match="no mlp_layer"):
        transformers_state(made(mlp_layer="swiglu"))


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"), [(49, 0.75, 12), (196, 0.75, 49), (100, 0.8, 20), (100, 0.9, 10), (64, 0.5, 32)]
)
def test_visible_patches_are_counted_by_decimals(patches, ratio, visible):
    assert visible_patches(patches, ratio) == visible


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 0.99])
def test_nothing_hidden_or_fewer_than_two_visible_is_refused(ratio):
    with pytest.raises(ValueError, match="at least one must be hidden and two visible"):
        made(mask_ratio=ratio)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "nystrom(landmarks=16)"}, "landmarks must be"),
        ({"embed_dim": 30, "num_heads": 2}, "multiple of 4"),
        ({"decoder_depth": 0}, "decoder_depth=0"),
        ({"mlp_layer": "gelu"}, "mlp_layer"),
        ({"block": "post"}, "block='post': must be one of 'pre', 'xformers'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        made(**options)


def test_images_and_noise_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="resize them, or build the model for them"):
        made()(images(side=28))
    with pytest.raises(ValueError, match="must be"):
        made()(images(), noise(patches=63))


def test_rectangles_and_many_channels():
    model = made("lambda", img_size=(16, 24), patch_size=(4, 8), in_chans=5)
    x = torch.randn(2, 5, 16, 24, dtype=torch.float64)
    assert model(x, details=True).pred.shape == (2, 12, 4 * 8 * 5)
    assert model.forward_features(x).shape == (2, 13, 32)


def test_checkpointing_changes_no_value_and_no_gradient():
    model, x, drawn = made("lambda"), images(), noise()
    before = model(x, drawn).loss
    before.backward()
    slopes = [one.grad.clone() for one in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing()
    after = model(x, drawn).loss
    after.backward()
    assert_close(after, before)
    assert_close([one.grad for one in model.parameters()], slopes)


def test_other_attentions_start_equal_in_what_they_share():
    softmax, other = MaskedAutoencoder(**SMALL, seed=3), MaskedAutoencoder(**{**SMALL, "attention": "lambda"}, seed=3)
    theirs = dict(other.named_parameters())
    shared = [name for name, _ in softmax.named_parameters() if name in theirs and ".attn." not in name]
    assert len(shared) > 20
    assert all(torch.equal(softmax.get_parameter(name), theirs[name]) for name in shared)
    assert not torch.equal(softmax.cls_token, MaskedAutoencoder(**SMALL, seed=4).cls_token)


@pytest.mark.parametrize("attention", ["softmax(kernel='explicit')", "linear", "lambda"])
def test_declared_flops_are_those_that_torch_counts(attention):
    model = MaskedAutoencoder(**{**SMALL, "attention": attention}).eval()
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images(1).float())
    counted, declared = counter.get_total_flops(), sum(model.flops().values())
    assert counted == declared


def test_positions_stay_float32_and_bf16_is_near():
    model, x, drawn = made().float(), images().float(), noise().float()
    expected = model(x, drawn).loss
    model.bfloat16()
    assert model.pos_embed.dtype == model.decoder_pos_embed.dtype == torch.float32
    assert model(x.bfloat16(), drawn).loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_it_is_saved_and_loaded_with_both_attentions(tmp_path):
    model, x, drawn = MaskedAutoencoder(**SMALL, decoder_attention="linear", norm_pix_loss=True), images(), noise()
    save_model(model, tmp_path / "saved", {"data": "digits"})
    loaded, facts = load_model(tmp_path / "saved")
    assert facts == {"data": "digits"}
    assert_close(loaded(x.float(), drawn).loss, model(x.float(), drawn).loss)
    with pytest.raises(ValueError, match="a masked autoencoder, which has no classes"):
        evaluate_saved(tmp_path / "saved", device="cpu", note=print)


def test_a_classifier_is_asked_for_where_labels_are_learned():
    with pytest.raises(ValueError, match="a classifier of that size is vit_base_patch16_224"):
        saccade.models.sizes.create_classifier("mae_base_patch16_224")
