"""Reversible blocks against plain autograd of the same formula: values, gradients, memory, random draws, refusals."""

import subprocess
import sys

import pytest
import torch
from tests.attention.agreement import enliven, images, slopes, visible
from torch.testing import assert_close

from saccade.attention import TABLE, Tokens, build, fitting
from saccade.attention.initial import seeded
from saccade.measurement.memory.tally import Tally
from saccade.models.block import Block
from saccade.models.mae import MaskedAutoencoder
from saccade.models.reversible import reversible_outputs, run_reversible
from saccade.models.vit import VisionTransformer
from saccade.models.weights import load_model, save_model

TOKENS = Tokens((4, 4), prefix=1)
SMALL = {"img_size": 8, "patch_size": 2, "num_classes": 3, "embed_dim": 16, "depth": 3, "num_heads": 2}
SMALL_MAE = {
    "img_size": 8,
    "patch_size": 2,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "decoder_embed_dim": 8,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
}


def blocks(attention="softmax", depth=3, tokens=TOKENS, width=8, heads=2, **options) -> list[Block]:
    layers = (build(attention, width, heads, tokens, layer=layer) for layer in range(depth))
    made = [Block(layer, 2 * width, **{"reversible": True, **options}).double() for layer in layers]
    enliven(torch.nn.ModuleList(made))
    return made


def weights(made) -> list[torch.Tensor]:
    return [one for block in made for one in block.parameters()]


def formula(made, x, patches=None, noise=None):
    """The streams as the papers write them, which plain autograd differentiates."""
    x1 = x2 = x
    for layer, block in enumerate(made):
        f = block.ls1(block.proj_drop(block.attn(block.norm1(x2), patches)))
        y1 = x1 + (f if noise is None else block._kept(f, noise[:, 2 * layer]))
        g = block.ls2(block.mlp(block.norm2(y1)))
        y2 = x2 + (g if noise is None else block._kept(g, noise[:, 2 * layer + 1]))
        x1, x2 = y1, y2
    return torch.stack([x1, x2]).mean(dim=0)


def require_equal(seen, expected, leaves, **tolerance):
    assert_close(seen, expected, **tolerance)
    assert_close(slopes(seen, leaves), slopes(expected, leaves), **tolerance)


TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.parametrize("options", [{}, {"mlp_layer": "swiglu"}, {"init_values": 0.3}, {"style": "xformers"}])
def test_values_and_gradients_are_those_of_the_formula(options):
    made, x = blocks(**options), images(2, TOKENS.count, 8).requires_grad_()
    require_equal(run_reversible(made, x), formula(made, x), [x, *weights(made)], **TIGHT)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(5, None)])
def test_wanted_rows_are_those_of_the_whole(rows):
    made, x = blocks(), images(2, TOKENS.count, 8).requires_grad_()
    require_equal(run_reversible(made, x, outputs=rows), formula(made, x)[:, rows], [x, *weights(made)], **TIGHT)
    require_equal(run_reversible(made[:1], x, outputs=rows), formula(made[:1], x)[:, rows], [x], **TIGHT)


def test_every_layer_is_told_which_patches_are_visible():
    made, ids = blocks("softmax(rope=True)"), visible(2, TOKENS, 7)
    x = images(2, 8, 8).requires_grad_()
    require_equal(run_reversible(made, x, ids), formula(made, x, ids), [x, *weights(made)], **TIGHT)


def test_noise_decides_which_branches_are_skipped():
    made, x = blocks(drop_path=0.5), images(4, TOKENS.count, 8).requires_grad_()
    noise = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = formula(made, x, noise=noise)
    require_equal(run_reversible(made, x, noise=noise), expected, [x, *weights(made)], **TIGHT)
    rows = run_reversible(made, x, outputs=slice(0, 1), noise=noise)
    assert_close(rows, expected[:, :1])
    assert_close(list(reversible_outputs(made, x, noise))[-1], expected)


def test_dropout_draws_in_backward_what_it_drew_in_forward_and_moves_nothing():
    made, x = blocks(proj_drop=0.4), images(2, TOKENS.count, 8).requires_grad_()
    leaves = [x, *weights(made)]
    torch.manual_seed(5)
    expected = formula(made, x)
    wanted = slopes(expected, leaves)
    torch.manual_seed(5)
    seen = run_reversible(made, x)
    assert_close(seen, expected, **TIGHT)
    torch.rand(7)
    before = torch.get_rng_state()
    assert_close(slopes(seen, leaves), wanted, **TIGHT)
    assert torch.equal(torch.get_rng_state(), before)


def kept_bytes(run, made) -> int:
    """What is still there behind a forward pass, the output included, beside the weights."""
    with Tally(weights(made)) as tally:
        y = run()
        kept = sum(one.size for one in tally.there(tally.moment))
    assert y.shape == (4, TOKENS.count, 8)
    return kept


def test_what_is_kept_for_backward_does_not_grow_with_depth():
    x = images(4, TOKENS.count, 8)
    few, many = blocks(depth=2), blocks(depth=8)
    assert kept_bytes(lambda: formula(many, x), many) > 3 * kept_bytes(lambda: formula(few, x), few)
    for made in (few, many):
        # The two streams, and their mean, which is returned.
        assert kept_bytes(lambda made=made: run_reversible(made, x), made) == 3 * x.nbytes


def test_without_gradients_nothing_is_kept():
    made, x = blocks(), images(4, TOKENS.count, 8)
    with torch.no_grad():
        assert kept_bytes(lambda: run_reversible(made, x), made) == x.nbytes
        assert_close(run_reversible(made, x), formula(made, x))


def test_frozen_weights_get_no_gradient_and_the_others_do():
    made, x = blocks(), images(2, TOKENS.count, 8)
    for parameter in made[1].attn.parameters():
        parameter.requires_grad_(False)
    run_reversible(made, x).sum().backward()
    assert all(one.grad is None for one in made[1].attn.parameters())
    assert all(one.grad is not None for one in (*made[0].parameters(), *made[1].mlp.parameters()))


def test_a_weight_that_two_blocks_share_gets_both_gradients():
    made, x = blocks(), images(2, TOKENS.count, 8).requires_grad_()
    made[2].norm1.weight = made[0].norm1.weight
    require_equal(run_reversible(made, x), formula(made, x), [x, made[0].norm1.weight], **TIGHT)


def test_a_weight_that_changed_before_backward_is_noticed():
    made, x = blocks(), images(2, TOKENS.count, 8)
    y = run_reversible(made, x)
    with torch.no_grad():
        made[0].norm1.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_statistics_of_a_batch_norm_move_once():
    made, again = (blocks("lambda(norm='batch')", depth=2) for _ in range(2))
    x = images(2, TOKENS.count, 8).requires_grad_()
    require_equal(run_reversible(made, x), formula(again, x), [x], **TIGHT)
    for one, other in zip(made, again, strict=True):
        assert_close(dict(one.named_buffers()), dict(other.named_buffers()))


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside autocast", "outside"])
def test_autocast_is_repeated_and_the_streams_stay_float32(inside):
    made = [block.float() for block in blocks()]
    x = images(2, TOKENS.count, 8).float().requires_grad_()
    leaves = [x, *weights(made)]
    with torch.autocast("cpu", torch.bfloat16):
        seen, expected = run_reversible(made, x), formula(made, x)
        wanted = slopes(expected, leaves)
        if inside:
            found = slopes(seen, leaves)
    if not inside:
        found = slopes(seen, leaves)
    assert seen.dtype == torch.float32
    assert_close(seen, expected, rtol=1e-6, atol=1e-6)
    # Streams that are undone differ by a rounding of float32, which now and then is one of bf16 in a branch.
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() < 0.01 * other.norm()


def test_a_bf16_model_is_as_near_to_float64_as_it_is_without_undoing_even_when_deep():
    exact = blocks(depth=16)
    x = images(2, TOKENS.count, 8).requires_grad_()
    wanted = slopes(formula(exact, x), [x])[0]
    low = [block.bfloat16() for block in blocks(depth=16)]
    x16 = x.detach().bfloat16().requires_grad_()
    y = run_reversible(low, x16)
    assert y.dtype == torch.bfloat16
    plain = (slopes(formula(low, x16).double(), [x16])[0] - wanted).norm()
    assert (slopes(y.double(), [x16])[0] - wanted).norm() < 1.5 * plain
    assert plain < 0.3 * wanted.norm()


EIGHT = Tokens((8, 8), prefix=1)


@pytest.mark.parametrize("reversible", [False, True], ids=["plain", "reversible"])
@pytest.mark.parametrize("style", ["pre", "xformers"])
@pytest.mark.parametrize("name", TABLE)
def test_every_mechanism_runs_forward_and_backward_in_every_block(name, style, reversible):
    written = fitting(name, 16, 2, EIGHT, patches=20)
    made = blocks(written, 2, EIGHT, width=16, style=style, reversible=reversible)
    x, ids = images(2, 21, 16).requires_grad_(), visible(2, EIGHT, 20)
    for block in made:
        block.attn.reset_parameters(seeded(0))
        block.attn.advance(1, torch.Generator().manual_seed(0))

    def run():
        return run_reversible(made, x, ids) if reversible else made[1](made[0](x, ids), ids)

    def expected():
        if reversible:
            return formula(made, x, ids)
        y = x
        for block in made:
            y = y + block.attn.reference(block.norm1(y), ids)
            y = block.post_norm(y + block.mlp(block.norm2(y)))
        return y

    leaves = [x, *weights(made)]
    # A bias that compositional's choice cancels has no gradient, or one of zeros.
    zeros = {"allow_unused": True, "materialize_grads": True}
    found, wanted = (torch.autograd.grad(one().sin().sum(), leaves, **zeros) for one in (run, expected))
    assert_close(run(), expected())
    assert_close(found, wanted)


def classifier(**options) -> VisionTransformer:
    model = VisionTransformer(**SMALL, reversible=True, **options).double()
    enliven(model, 0.2)
    return model


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_classifier_reads_the_mean_of_the_streams(pool):
    model, x = classifier(global_pool=pool), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = model.forward_head(model.norm(formula(model.blocks, model._embedded(x))))
    require_equal(model(x), expected, list(model.parameters()), **TIGHT)


def test_outputs_of_single_blocks_are_the_means_there():
    model, x = classifier(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    features, seen = model.forward_intermediates(x, output_fmt="NLC", return_prefix_tokens=True)
    for depth, (patches, prefix) in enumerate(seen, start=1):
        expected = formula(model.blocks[:depth], model._embedded(x))
        assert_close(torch.cat([prefix, patches], dim=1), expected)
    assert_close(features, model.norm(expected))
    assert_close(slopes(features, [model.cls_token]), slopes(model.norm(expected), [model.cls_token]))


def test_stochastic_depth_of_a_classifier_is_the_formula_s():
    model, x = classifier(drop_path_rate=0.5), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    noise = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = model.forward_head(model.norm(formula(model.blocks, model._embedded(x), noise=noise)))
    require_equal(model(x, noise), expected, list(model.parameters()), **TIGHT)


@pytest.mark.parametrize("decoder", ["softmax", "fourier"])
def test_a_masked_autoencoder_runs_both_stacks_on_streams(decoder):
    model = MaskedAutoencoder(**SMALL_MAE, decoder_attention=decoder, reversible=True).double()
    enliven(model, 0.2)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    noise = torch.rand(2, 16, dtype=torch.float64)
    seen = model(x, noise).loss

    def through(blocks, x, patches, outputs):
        y = formula(blocks, x, patches)
        return y if outputs is None else y[:, outputs]

    model._through = through
    require_equal(seen, model(x, noise).loss, list(model.parameters()), **TIGHT)


@pytest.mark.parametrize("kind", ["vit", "mae"])
def test_it_is_saved_and_loaded(kind, tmp_path):
    options = {"block": "xformers", "reversible": True}
    model = VisionTransformer(**SMALL, **options) if kind == "vit" else MaskedAutoencoder(**SMALL_MAE, **options)
    save_model(model, tmp_path)
    loaded, _ = load_model(tmp_path)
    assert (loaded.config["block"], loaded.config["reversible"]) == ("xformers", True)
    x = torch.randn(2, 3, 8, 8)
    assert_close(loaded.forward_features(x), model.forward_features(x))


def test_operations_of_the_forward_pass_stay_as_they_are():
    model, plain = VisionTransformer(**SMALL, reversible=True), VisionTransformer(**SMALL)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, 8, 8))
    assert model.flops() == plain.flops()
    with torch.utils.flop_counter.FlopCounterMode(display=False) as other, torch.no_grad():
        plain(torch.randn(1, 3, 8, 8))
    assert counter.get_total_flops() == other.get_total_flops()


@pytest.mark.parametrize("kind", ["vit", "mae"])
def test_checkpointing_beside_it_is_refused(kind):
    model = (
        VisionTransformer(**SMALL, reversible=True)
        if kind == "vit"
        else MaskedAutoencoder(**SMALL_MAE, reversible=True)
    )
    model.set_grad_checkpointing(False)
    with pytest.raises(ValueError, match="reversible blocks keep nothing that checkpointing could save"):
        model.set_grad_checkpointing()


COMPILED = """
import torch
from saccade.models.vit import VisionTransformer
model = VisionTransformer(img_size=8, patch_size=4, num_classes=3, embed_dim=8, depth=2, num_heads=2, reversible=True)
x = torch.randn(2, 3, 8, 8)
expected = model(x)
wanted = torch.autograd.grad(expected.sum(), list(model.parameters()))
seen = torch.compile(model, backend="aot_eager")(x)
torch.testing.assert_close(seen, expected)
torch.testing.assert_close(torch.autograd.grad(seen.sum(), list(model.parameters())), wanted)
"""


@pytest.mark.slow
def test_a_compiled_model_computes_the_same():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
