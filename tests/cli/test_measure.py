"""`summary` and `models` say what there is, in words and as JSON."""

import json

import pytest

from saccade.cli import run
from saccade.models.sizes import list_models


def said(capsys, *arguments, code=0):
    assert run(list(arguments)) == code
    return capsys.readouterr()


def test_a_summary_lists_every_layer_and_the_sums(capsys):
    text = said(capsys, "summary", "vit_base_patch16_224").out
    layers = ("cls_token", "pos_embed", "patch_embed", "blocks.11.mlp", "197 x 768")
    for words in (*layers, "86,567,656", "4.1%", "a step of 8 images in fp32"):
        assert words in text


def test_a_summary_as_json_is_a_line_a_layer_and_a_total(capsys):
    lines = [json.loads(line) for line in said(capsys, "summary", "vit_base_patch16_224", "--json").out.splitlines()]
    *rows, total = lines
    assert set(rows[0]) == {"name", "type", "output_shape", "parameters", "flops", "backward_flops", "kept_bytes"}
    assert total["name"] == "total"
    assert total["parameters"] == sum(row["parameters"] for row in rows) == 86_567_656
    assert total["flops_per_image"] == sum(row["flops"] for row in rows)
    assert total["backward_flops_per_image"] == sum(row["backward_flops"] for row in rows)
    kept = sum(row["kept_bytes"] for row in rows) + total["kept_between_bytes_per_image"]
    assert total["kept_bytes_per_image"] == pytest.approx(kept)


def test_a_summary_takes_the_models_options(capsys):
    flags = ["--attention", "linear(bias=False)", "--img-size", "32", "16", "--in_chans", "1", "--num-classes", "7"]
    text = said(
        capsys, "summary", "vit_micro_patch4_32", *flags, "--set", "depth=1", "--set", "global_pool=avg", "--json"
    )
    rows = {row["name"]: row for row in map(json.loads, text.out.splitlines())}
    assert rows["patch_embed"]["output_shape"] == [8 * 4, 128]
    assert rows["head"]["output_shape"] == [7]
    assert rows["total"]["attention"] == "linear(bias=False)"
    assert rows["total"]["depth"] == 1
    assert "fc_norm" in rows


def test_a_summary_has_the_forms_of_others(capsys):
    told = said(capsys, "summary", "vit_nano_patch1_8", "--style", "torchinfo", "--batch-size", "2")
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[3].split() == ["VisionTransformer", "[2,", "10]", "32"]
    assert "│    └─Block: 2-1                        [2, 65, 32]               --" in lines

    told = said(capsys, "summary", "vit_nano_patch1_8", "--style", "torchsummary")
    assert "        PatchEmbed-1               [-1, 64, 32]              64" in told.out.splitlines()
    assert "cls_token 32" in told.err


def test_activations_are_those_of_the_step_asked_for(capsys):
    def kept(*flags):
        return json.loads(said(capsys, "summary", "vit_nano_patch1_8", *flags, "--json").out.splitlines()[-1])

    assert kept("--dtype", "bf16")["kept_bytes_per_image"] < 0.9 * kept()["kept_bytes_per_image"]
    # Of 512 images norms and MLPs keep less.
    assert kept("--batch-size", "512")["kept_bytes_per_image"] < kept("--batch-size", "1")["kept_bytes_per_image"]


def test_what_cannot_be_trained_has_no_activations(capsys):
    told = said(capsys, "summary", "vit_nano_patch1_8", "--set", "global_pool=")
    assert "No activations" in told.err
    assert "pooled head" in told.err
    assert "–" in told.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["vit_nano_patch1_8", "--style", "torchinfo", "--json"], "leave one of the two out"),
        (["vit_nano_patch1_8", "--batch-size", "0"], "batch_size=0: must be at least 1"),
        (["vit_nano_patch1_8", "--style", "torchsummary", "--batch-size", "0"], "batch_size=0: must be at least 1"),
        (["vit_bse_patch16_224"], "vit_base_patch16_224"),
        (["vit_base_patch16_224", "--img-size", "225"], "patch must divide the image"),
        (["vit_base_patch16_224", "--set", "dpth=3"], "did you mean depth?"),
        (["vit_base_patch16_224", "--set", "depth"], "write name=value"),
        (["vit_base_patch16_224", "--attention", "softmx"], "did you mean 'softmax'?"),
        (["vit_nano_patch1_8", "--attention", "nystrom(landmarks=65)"], "landmarks must be"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(capsys, flags, words):
    told = said(capsys, "summary", *flags, code=2)
    assert told.out == ""
    assert words in told.err
    assert told.err.count("\n") == 1


def test_models_are_listed_with_their_sizes(capsys):
    text = said(capsys, "models").out
    assert all(name in text for name in list_models())


def test_models_are_filtered(capsys):
    lines = said(capsys, "models", "vit_micro_*", "--json").out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == list_models("vit_micro_*")
    assert json.loads(lines[0])["tokens"] == 1025


def test_a_filter_that_fits_nothing_is_a_mistake(capsys):
    assert "no model is called 'resnet*'" in said(capsys, "models", "resnet*", code=2).err
