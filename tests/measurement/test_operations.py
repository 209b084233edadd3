"""What is declared is what torch counts, and what a hand counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from saccade.attention import Tokens, fitting, list_attentions
from saccade.attention.flops import counted_flops
from saccade.attention.softmax import Softmax
from saccade.measurement.operations import layers, operations, operations_record, quadratic_share
from saccade.measurement.subject import Subject
from saccade.models.sizes import create_model


def planned(name, attention=None, **options):
    with torch.device("meta"):
        return create_model(name, attention, **options).eval()


GRID = Tokens((8, 8), prefix=1)


def image(model, device="cpu"):
    return torch.zeros(1, model.in_chans, *model.img_size, device=device)


def test_softmax_flops_are_torchs_own_count():
    model = create_model("vit_micro_patch4_32").eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image(model))
    assert operations(model)["flops_per_image"] == counter.get_total_flops()


@pytest.mark.parametrize("attention", list_attentions())
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg", "reg_tokens": 2, "mlp_layer": "swiglu"}], ids=str)
def test_declared_flops_are_counted_ones(attention, options):
    model = create_model("vit_micro_patch4_32", fitting(attention, 128, 8, GRID), depth=2, **options).eval()
    assert operations(model)["flops_per_image"] == counted_flops(lambda: model(image(model)))


def test_a_convolutional_stem_is_counted():
    model = create_model("vit_micro_conv_32", "linear", depth=1).eval()
    assert operations(model)["flops_per_image"] == counted_flops(lambda: model(image(model)))


def test_a_small_model_by_hand():
    """Width 8, 4 + 1 tokens, one block with all rows, 3 classes, patches of 2 x 2 x 1 pixels."""
    model = planned(
        "vit_nano_patch1_8",
        img_size=4,
        patch_size=2,
        embed_dim=8,
        depth=1,
        num_heads=2,
        num_classes=3,
        global_pool="all",
    )
    patch = 4 * (4 * 8)
    attention = 5 * (8 * 24 + 8 * 8) + 2 * 5 * 5 * 8
    mlp = 5 * 2 * (8 * 32)
    head = 8 * 3
    told = operations(model)
    assert told["flops_per_image"] == 2 * (patch + attention + mlp + head)
    assert told["attention_flops_per_image"] == 2 * attention
    assert told["attention_parameters"] == 8 * 24 + 24 + 8 * 8 + 8
    assert (told["tokens"], told["grid"], told["heads"], told["head_width"]) == (5, [2, 2], 2, 4)


def test_the_quadratic_share_is_n_over_n_plus_6_d():
    assert quadratic_share(planned("vit_base_patch16_224")) == pytest.approx(197 / (197 + 6 * 768))
    assert quadratic_share(planned("vit_nano_patch1_8", "fourier")) == pytest.approx(65 / (65 + 6 * 32))
    assert quadratic_share(planned("vit_micro_patch2_32", mlp_ratio=2.0)) == pytest.approx(257 / (257 + 4 * 128))


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("vit_base_patch16_224", {}, 86_567_656),
        ("vit_micro_patch2_32", {}, 829_322),
        ("vit_micro_patch1_32", {"attention": "linear(bias=False)"}, 924_426),
        ("vit_micro_conv_32", {"attention": "linear(bias=False)"}, 1_017_162),
        ("vit_huge_patch14_224", {"attention": "nystrom", "pos_embed": "sine"}, None),
        ("vit_micro_patch4_32", {"attention": "fourier", "reg_tokens": 4, "init_values": 1e-5}, None),
        ("vit_nano_patch1_8", {"attention": "lambda*1,linear*1", "num_classes": 0}, None),
        ("vit_nano_patch1_8", {"attention": "softmax(qk_norm=True)", "global_pool": ""}, None),
    ],
)
def test_the_layer_table_sums_to_the_model(name, options, parameters):
    model = planned(name, **options)
    rows = layers(model)
    told = operations(model)
    assert told["parameters"] == sum(row.parameters for row in rows) == sum(one.numel() for one in model.parameters())
    assert parameters in (None, told["parameters"])
    assert told["flops_per_image"] == sum(row.flops for row in rows)
    assert told["backward_flops_per_image"] == sum(row.backward_flops for row in rows)
    assert len({row.name for row in rows}) == len(rows)


def test_cls_and_positions_are_rows():
    rows = {row.name: row for row in layers(planned("vit_base_patch16_224"))}
    assert rows["cls_token"].parameters == 768
    assert rows["cls_token"].output_shape == (1, 768)
    assert rows["pos_embed"].parameters == 197 * 768
    assert rows["patch_embed"].output_shape == (196, 768)
    assert rows["patch_embed"].type == "PatchEmbed"
    assert rows["blocks.0.mlp"].output_shape == (197, 768)
    assert rows["blocks.0.attn"].type == "Softmax"
    assert rows["head"].output_shape == (1000,)


def test_of_the_last_block_the_rows_are_told_that_are_computed():
    rows = {row.name: row for row in layers(planned("vit_base_patch16_224"))}
    assert rows["blocks.11.attn"].output_shape == (1, 768)
    assert rows["blocks.11.mlp"].flops * 197 == rows["blocks.10.mlp"].flops


@pytest.mark.parametrize("attention", list_attentions())
def test_shapes_are_those_of_a_real_pass(attention):
    model = create_model("vit_micro_patch4_32", fitting(attention, 128, 8, GRID), depth=1).eval()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, given, output, name=name: seen.update({name: output.shape[1:]}))
    model(image(model))
    for row in layers(model):
        if row.type != "Parameter":
            assert row.output_shape == seen[row.name], row.name


def test_training_is_forward_and_backward():
    told = operations(planned("vit_nano_patch1_8", global_pool="avg"))
    forward, backward = told["flops_per_image"], told["backward_flops_per_image"]
    assert backward == 2 * forward - 2 * 64 * 32
    assert told["training_flops_per_image"] == forward + backward
    # Everything in the two blocks but what fc2 computes, and neither embedding nor head.
    blocks = forward - 2 * 64 * 32 - 2 * 32 * 10
    assert told["checkpointing_flops_per_image"] == blocks - 2 * 2 * 65 * 32 * 128


def test_reversible_blocks_have_nothing_to_checkpoint():
    told = operations(planned("vit_nano_patch1_8", reversible=True))
    assert told["checkpointing_flops_per_image"] is None
    assert told["training_flops_per_image"] > 3.5 * told["flops_per_image"]


class Reads(Softmax):
    """Does what only a tensor with values can, in training."""

    def mix(self, q, k, v, patches):
        return super().mix(q, k, v, patches) * (q.sum().item() if self.training else 1)


def test_what_reads_values_is_declared_forward_alone():
    model = planned("vit_nano_patch1_8", Reads)
    told = operations(model)
    assert told["flops_per_image"] > 0
    assert told["backward_flops_per_image"] is told["training_flops_per_image"] is None
    assert told["checkpointing_flops_per_image"] is None
    assert all(row.backward_flops in (None, 0) for row in layers(model))


def test_the_record_says_what_was_asked():
    record = operations_record(Subject(model="vit_nano_patch1_8", attention="linear", options={"depth": 1}))
    assert (record.kind, record.attention, record.model, record.model_options) == (
        *("operations", "linear", "vit_nano_patch1_8"),
        {"depth": 1},
    )
    assert record.values == operations(planned("vit_nano_patch1_8", "linear", depth=1))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="landmarks must be"):
        operations_record(Subject(model="vit_nano_patch1_8", attention="nystrom(landmarks=65)"))
