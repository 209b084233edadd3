"""The layer tables of the two originals that pre-trained: parameters, module by module, as their printouts say."""

import json
import re

import pytest
import torch

import saccade
from saccade.cli import run

# A block of original 000's plain model as torch printed it, and of its xFormers one, whose printout leaves out the
# biases of FusedMLP (they are FusedDropoutBias's) and the values of FusedLayerNorm. Beside our names.
PLAIN = {
    "norm1": "LayerNorm(({w},))",
    "attn.qkv": "Linear(in_features={w}, out_features={3w}, bias=True)",
    "attn.proj": "Linear(in_features={w}, out_features={w}, bias=True)",
    "norm2": "LayerNorm(({w},))",
    "mlp.fc1": "Linear(in_features={w}, out_features={4w}, bias=True)",
    "mlp.fc2": "Linear(in_features={4w}, out_features={w}, bias=True)",
}
XFORMERS = {
    "norm1": "FusedLayerNorm(({w},))",
    "attn.qkv.q_proj": "Linear(in_features={w}, out_features={w}, bias=True)",
    "attn.qkv.k_proj": "Linear(in_features={w}, out_features={w}, bias=True)",
    "attn.qkv.v_proj": "Linear(in_features={w}, out_features={w}, bias=True)",
    "attn.proj": "Linear(in_features={w}, out_features={w}, bias=True)",
    "post_norm": "FusedLayerNorm(({w},))",
    "norm2": "FusedLayerNorm(({w},))",
    "mlp.fc1": "Linear(in_features={w}, out_features={4w}, bias=True)",
    "mlp.fc2": "Linear(in_features={4w}, out_features={w}, bias=True)",
}
AROUND = {
    "patch_embed.proj": "Conv2d(3, 1024, kernel_size=(16, 16), stride=(16, 16))",
    "norm": "LayerNorm((1024,))",
    "decoder_embed": "Linear(in_features=1024, out_features=512, bias=True)",
    "decoder_norm": "LayerNorm((512,))",
    "decoder_pred": "Linear(in_features=512, out_features=768, bias=True)",
}


def parameters_of(printed: str) -> int:
    """How many numbers a printed module learns."""
    numbers = [int(one) for one in re.findall(r"\d+", printed.replace("Conv2d", ""))]
    if "Linear" in printed:
        inputs, outputs = numbers
        return inputs * outputs + outputs
    if "Conv" in printed:
        inputs, outputs, rows, columns = numbers[:4]
        return inputs * outputs * rows * columns + outputs
    return 2 * numbers[0]


def printed_table(block: dict[str, str]) -> dict[str, int]:
    """Parameters by module: 24 blocks of width 1024, then 8 of width 512."""
    printed = dict(AROUND)
    for stack, depth, width in (("blocks", 24, 1024), ("decoder_blocks", 8, 512)):
        sizes = {"w": width, "3w": 3 * width, "4w": 4 * width}
        for layer in range(depth):
            for name, text in block.items():
                printed[f"{stack}.{layer}.{name}"] = re.sub(r"{(.*?)}", lambda m, s=sizes: str(s[m[1]]), text)
    return {name: parameters_of(text) for name, text in printed.items()}


def made_table(**options) -> dict[str, int]:
    """Parameters of the innermost modules of our model."""
    with torch.device("meta"):
        model = saccade.create_model("mae_large_patch16_224", img_size=112, **options)
    counts = {}
    for name, parameter in model.named_parameters():
        if name not in ("cls_token", "mask_token"):
            module = name.rpartition(".")[0]
            counts[module] = counts.get(module, 0) + parameter.numel()
    return counts


@pytest.mark.parametrize(
    ("style", "block", "total"), [("pre", PLAIN, 329_237_760), ("xformers", XFORMERS, 329_295_104)]
)
def test_both_models_of_the_first_have_its_parameters_module_by_module(style, block, total):
    assert made_table(block=style) == printed_table(block)
    assert sum(printed_table(block).values()) == total


def test_what_its_reversible_blocks_lack_is_the_norm_behind():
    theirs = {name: count for name, count in printed_table(XFORMERS).items() if not name.endswith("post_norm")}
    assert made_table(block="xformers", reversible=True) == theirs


def summed(*arguments: str, capsys) -> tuple[dict[str, int], dict[str, int]]:
    """What `saccade summary --json` says: parameters by row, and the sums."""
    assert run(["summary", *arguments, "--json"]) == 0
    *rows, total = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["name"]: row["parameters"] for row in rows}, total


def test_the_summary_shows_encoder_decoder_and_tokens_of_the_first(capsys):
    options = ("--img-size", "112", "--set", "block=xformers")
    rows, total = summed("mae_large_patch16_224", *options, capsys=capsys)
    assert (rows["cls_token"], rows["mask_token"]) == (1024, 512)
    assert (rows["blocks.23.attn"], rows["decoder_blocks.7.attn"]) == (4_198_400, 1_050_624)
    assert (rows["blocks.23.post_norm"], rows["decoder_blocks.7.mlp"]) == (2048, 2_099_712)
    assert sum(rows.values()) == total["parameters"] == 329_295_104 + 1024 + 512


@pytest.mark.parametrize(
    ("patch", "decoder", "attention", "parameters", "by_row"),
    [
        (8, (512, 16), "softmax", 27_706_816, (8_320, 66_048, 1_050_624, 131_712, 2_099_712, 66_048, 32_832)),
        (8, (512, 16), "lambda", 20_038_848, (8_320, 22_240, 157_840, 131_712, 2_099_712, 66_048, 32_832)),
        (16, (128, 8), "softmax", 4_048_384, None),
        (16, (128, 8), "lambda", 3_172_224, None),
    ],
)
def test_the_summary_has_the_second_s_parameters(patch, decoder, attention, parameters, by_row, capsys):
    sizes = {"patch_size": patch, "embed_dim": 128, "depth": 12, "num_heads": 8, "decoder_depth": 8}
    sizes |= {"decoder_embed_dim": decoder[0], "decoder_num_heads": decoder[1]}
    settings = [part for name, value in sizes.items() for part in ("--set", f"{name}={value}")]
    arguments = ("mae_base_patch16_224", "--in-chans", "1", "--attention", attention, *settings)
    rows, total = summed(*arguments, capsys=capsys)
    assert total["parameters"] - rows["cls_token"] - rows["mask_token"] == parameters
    names = ("patch_embed", "blocks.0.attn", "decoder_blocks.0.attn", "blocks.0.mlp", "decoder_blocks.0.mlp")
    if by_row:
        assert tuple(rows[name] for name in (*names, "decoder_embed", "decoder_pred")) == by_row
