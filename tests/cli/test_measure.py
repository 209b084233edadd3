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
    for words in ("cls_token", "pos_embed", "patch_embed", "blocks.11.mlp", "197 x 768", "86,567,656", "4.1%"):
        assert words in text


def test_a_summary_as_json_is_a_line_a_layer_and_a_total(capsys):
    lines = [json.loads(line) for line in said(capsys, "summary", "vit_base_patch16_224", "--json").out.splitlines()]
    *rows, total = lines
    assert {"name", "type", "output_shape", "parameters", "flops"} == set(rows[0])
    assert total["name"] == "total"
    assert total["parameters"] == sum(row["parameters"] for row in rows) == 86_567_656
    assert total["flops_per_image"] == sum(row["flops"] for row in rows)


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


@pytest.mark.parametrize(
    ("flags", "words"),
    [
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
