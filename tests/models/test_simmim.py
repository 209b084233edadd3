"""SimMIM: mask tokens in the encoder, against transformers' model of it on the same weights and masks."""

import pytest
import torch
from tests.attention.agreement import enliven
from tests.peers import timm  # noqa: F401
from torch.testing import assert_close
from transformers import ViTConfig, ViTForMaskedImageModeling

import saccade
from saccade.attention import TABLE, Tokens, fitting
from saccade.measurement.operations import layers, operations
from saccade.models.mae import MaskedAutoencoder
from saccade.models.mae_weights import mae_state, transformers_state
from saccade.models.masking import mask_unit, visible_patches
from saccade.models.weights import load_model, save_model

SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "mask_ratio": 0.6}


def made(attention="softmax", **options):
    model = MaskedAutoencoder(**{**SMALL, "attention": attention, "objective": "simmim", **options}).double()
    enliven(model, 0.1)
    return model


def images(batch=2, side=32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noise(batch=2, patches=64):
    return torch.rand(batch, patches, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def peer(model):
    """transformers' model with these weights; its head puts out channel, row, column and ours row, column, channel."""
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=4,
        encoder_stride=4,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    theirs = ViTForMaskedImageModeling(config).double()
    enliven(theirs, 0.1)
    with torch.no_grad():
        theirs.vit.embeddings.position_embeddings.copy_(model.pos_embed)
    state = {f"{name}": value for name, value in theirs.state_dict().items() if not name.startswith("decoder.")}
    state["vit.embeddings.mask_token"] = state.pop("vit.embeddings.mask_token")
    renamed = mae_state(state)
    renamed["mask_token"] = renamed.pop("vit.embeddings.mask_token")
    renamed["decoder_pred.weight"] = ours_order(theirs.decoder[0].weight.detach()[:, :, 0, 0])
    renamed["decoder_pred.bias"] = ours_order(theirs.decoder[0].bias.detach())
    model.load_state_dict(renamed)
    return theirs


def ours_order(rows):
    """Rows of the head from channel, row, column to row, column, channel."""
    return rows.unflatten(0, (3, 16)).transpose(0, 1).flatten(0, 1)


def test_loss_prediction_and_gradients_are_those_of_transformers():
    model, x, drawn = made(), images(), noise()
    theirs = peer(model)
    mask = model(x, drawn, details=True).mask
    expected = theirs(x, bool_masked_pos=mask.bool())
    # Theirs adds 1e-5 to the number of hidden pixels of one channel.
    pixels = mask.sum().item() * 16
    loss = expected.loss * (pixels + 1e-5) / pixels
    seen = model(x, drawn, details=True)
    assert_close(seen.loss, loss)
    patches = expected.reconstruction.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    assert_close(seen.pred, patches)
    short = model(x, drawn).loss
    assert_close(short, loss)
    short.backward()
    loss.backward()
    slopes = {name: one.grad for name, one in theirs.named_parameters() if not name.startswith("decoder.")}
    token = slopes.pop("vit.embeddings.mask_token")
    renamed = mae_state(slopes) | {"mask_token": token}
    for part in ("weight", "bias"):
        slope = getattr(theirs.decoder[0], part).grad
        renamed[f"decoder_pred.{part}"] = ours_order(slope[:, :, 0, 0] if part == "weight" else slope)
    assert {name for name, _ in model.named_parameters()} == set(renamed) - {"pos_embed"}
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, renamed[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("attention", ["fourier", "softmax(rope=True)", "linformer(k=4)", "linear"])
def test_in_any_order_or_in_raster_order_it_predicts_the_same(attention):
    model, x, drawn = made(attention), images(), noise()
    seen, short = model(x, drawn, details=True), model(x, drawn)
    assert_close(seen.loss, short.loss)
    hidden = seen.mask.bool()
    targets = model.targets(saccade.models.embed.patchify(x, (4, 4)))
    assert_close(seen.loss, (seen.pred - targets)[hidden].abs().mean())


def test_what_is_hidden_does_not_reach_the_prediction():
    model, x, drawn = made(), images(), noise()
    seen = model(x, drawn, details=True)
    hidden = seen.mask.unflatten(1, (8, 8)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    assert_close(model(x + hidden * 7, drawn, details=True).pred, seen.pred)
    assert not torch.allclose(model(x + (1 - hidden) * 7, drawn, details=True).pred, seen.pred)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("options", [{}, {"block": "xformers", "reversible": True}], ids=["plain", "reversible"])
def test_every_attention_pretrains(name, options):
    written = fitting(name, 32, 4, Tokens((8, 8), prefix=1))
    model = MaskedAutoencoder(**SMALL, attention=written, objective="simmim", **options)
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


def test_units_of_several_patches_are_hidden_together():
    model = made(mask_patch_size=(8, 16), mask_ratio=0.75)
    mask = model(images(), noise(), details=True).mask
    units = mask.unflatten(1, (8, 8)).unflatten(1, (4, 2)).unflatten(3, (2, 4)).transpose(2, 3).flatten(3).flatten(1, 2)
    assert torch.equal(units.amin(-1), units.amax(-1))
    assert units.amax(-1).sum(1).tolist() == [6, 6]
    # A unit's number is that of its first patch.
    first = noise().unflatten(1, (8, 8))[:, ::2, ::4].flatten(1)
    assert torch.equal(
        units.amax(-1).argsort(dim=1, stable=True)[:, :2], first.argsort(dim=1)[:, :2].sort(dim=1).values
    )


def test_units_hide_in_a_masked_autoencoder_with_a_decoder_too():
    model = MaskedAutoencoder(**SMALL, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, mask_patch_size=16)
    mask = model(images().float(), noise().float(), details=True).mask.unflatten(1, (8, 8))
    assert torch.equal(mask[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2), mask)
    assert model.visible == 16


def test_operations_are_those_that_torch_counts_and_the_table_shows_no_decoder():
    model = MaskedAutoencoder(**SMALL, attention="softmax(kernel='explicit')", objective="simmim").eval()
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images(1).float())
    assert counter.get_total_flops() == sum(model.flops().values())
    rows = {row.name: row for row in layers(model)}
    assert {name.split(".")[0] for name in rows} == {
        "cls_token",
        "mask_token",
        "patch_embed",
        "blocks",
        "norm",
        "decoder_pred",
    }
    assert sum(row.parameters for row in rows.values()) == sum(one.numel() for one in model.parameters())
    assert rows["blocks.0.attn"].output_shape == (65, 32)
    assert operations(model)["tokens"] == 65


def test_it_is_saved_and_loaded_and_named(tmp_path):
    model = saccade.create_model("mae_nano_patch1_8", objective="simmim", mask_ratio=0.6, mask_patch_size=2)
    save_model(model, tmp_path)
    loaded, _ = load_model(tmp_path)
    assert loaded.config == model.config
    x, drawn = torch.randn(2, 1, 8, 8), torch.rand(2, 64)
    assert_close(loaded(x, drawn).loss, model(x, drawn).loss)
    assert model.forward_features(x).shape == (2, 65, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no objective='simmim', only 'mae'"),
        ({"objective": "mae", "block": "xformers"}, "no block='xformers', only 'pre'"),
        ({"objective": "mae", "reversible": True}, "no reversible=True, only False"),
    ],
)
def test_what_transformers_has_not_is_not_written_for_it(options, words):
    with pytest.raises(ValueError, match=words):
        transformers_state(made(**options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "beit"}, "objective='beit': must be one of 'mae', 'simmim'"),
        ({"mask_patch_size": 6}, r"mask_patch_size=\(6, 6\) .* must be a multiple of the patch and divide the image"),
        ({"mask_patch_size": 24}, "must be a multiple of the patch and divide the image"),
        ({"mask_patch_size": 32}, "64 at a time: at least one must be hidden and two visible"),
        ({"mask_ratio": 1.0}, "above 0 and at most 0.968$"),
        ({"mask_ratio": 0.0}, "at least one must be hidden"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        made(**options)


@pytest.mark.parametrize(("unit", "counts"), [(1, range(3, 700)), (2, range(4, 400, 2)), (4, range(8, 800, 4))])
def test_the_largest_ratio_that_is_named_is_taken(unit, counts):
    for patches in counts:
        with pytest.raises(ValueError, match="at most") as refused:
            visible_patches(patches, 1.0, unit)
        assert 2 <= visible_patches(patches, float(str(refused.value).rpartition(" ")[2]), unit) < patches


def test_of_too_few_patches_no_ratio_is_named():
    with pytest.raises(ValueError, match="for which these are too few"):
        visible_patches(2, 0.5)


def test_what_only_a_decoder_could_use_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"decoder_attention='linear' .* which has no decoder: leave"):
        made(decoder_attention="linear")
    with pytest.raises(
        ValueError, match='mae_nano_patch1_8: decoder_depth=3 with objective="simmim", which has no dec'
    ):
        saccade.create_model("mae_nano_patch1_8", objective="simmim", decoder_depth=3)
    assert made("linear").config["decoder_attention"] == "linear"


def test_visible_units_are_counted_whole():
    assert visible_patches(64, 0.6, unit=4) == 24
    assert visible_patches(16, 0.75, unit=2) == 4
    assert mask_unit((14, 14), (16, 16), (32, 32)) == (2, 2)
