"""The names of models, what they stand for, and the parameters of each as published."""

import subprocess
import sys

import pytest
import torch

from saccade.models import create_model, list_models, model_defaults
from saccade.models.mae import MaskedAutoencoder
from saccade.models.sizes import is_masked_autoencoder
from saccade.models.vit import VisionTransformer

COUNTS = {
    ("vit_base_patch16_224", "softmax", 1000): 86_567_656,
    ("vit_micro_patch2_32", "softmax", 10): 829_322,
    ("vit_micro_patch1_32", "linear(bias=False)", 10): 924_426,
    ("vit_micro_conv_32", "linear(bias=False)", 10): 1_017_162,
}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "attention", "num_classes"), COUNTS)
def test_parameters_are_as_many_as_published(name, attention, num_classes):
    with torch.device("meta"):
        model = create_model(name, attention=attention, num_classes=num_classes)
    assert count(model) == COUNTS[name, attention, num_classes]


def test_the_base_model_without_class_token_and_positions_has_its_modules_parameters():
    with torch.device("meta"):
        model = create_model(
            "vit_base_patch16_224", class_token=False, pos_embed="none", global_pool="all", num_heads=8
        )
    assert count(model) == 86_415_592


@pytest.mark.parametrize(("alias", "parameters"), [("vit", 829_322), ("vitl", 924_426), ("vitx", 1_017_162)])
def test_the_short_names_bring_their_attention_and_their_classes(alias, parameters):
    model = create_model(alias)
    assert count(model) == parameters
    assert model.name == alias
    assert model.attention == model_defaults(alias)["attention"]


def test_an_attention_that_is_named_overrides_the_one_of_the_name():
    assert create_model("vitl").attention == "linear(bias=False)"
    assert create_model("vitl", "softmax").attention == "softmax"
    assert create_model("vit").attention == "softmax"


@pytest.mark.parametrize("name", list_models())
def test_every_name_builds(name):
    with torch.device("meta"):
        model = create_model(name, in_chans=2)
    assert model.in_chans == 2
    assert model.tokens.count > 1
    assert is_masked_autoencoder(name) == isinstance(model, MaskedAutoencoder)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
def test_sizes_are_those_of_timm(size):
    from tests.peers import timm

    name = f"vit_{size}_patch{14 if size == 'huge' else 16}_224"
    with torch.device("meta"):
        ours, theirs = (
            create_model(name, num_classes=1000).state_dict(),
            timm.create_model(name, num_classes=1000).state_dict(),
        )
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_overrides_are_arguments_of_the_model():
    model = create_model("vit_nano_patch1_8", img_size=(4, 6), in_chans=2, num_classes=7, depth=1, seed=3)
    assert isinstance(model, VisionTransformer)
    assert model(torch.randn(1, 2, 4, 6)).shape == (1, 7)
    assert torch.equal(model.head.weight, create_model("vit_nano_patch1_8", num_classes=7, seed=3).head.weight)


def test_patterns_choose_names():
    assert list_models("vit_micro_*") == [
        "vit_micro_patch1_32",
        "vit_micro_patch2_32",
        "vit_micro_patch4_32",
        "vit_micro_conv_32",
    ]
    assert set(list_models("vit*huge*14*")) == {"vit_huge_patch14_224", "vit_huge_patch14_448"}
    assert list_models("resnet*") == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit_bse_patch16_224", {}, "near are vit_base_patch16_224"),
        ("resnet50", {}, r"list_models\(\), or saccade models, names them"),
        ("vit", {"dept": 3}, "did you mean depth"),
        ("vit", {"zzz": 3}, "its options are img_size, patch_size"),
        ("vit", {"qkv_bias": False}, r'attention="softmax\(qkv_bias=False\)"'),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name, options, words):
    with pytest.raises(ValueError, match=words):
        create_model(name, **options)


def test_defaults_are_a_copy():
    model_defaults("vit")["depth"] = 99
    assert model_defaults("vit")["depth"] == 4


def test_names_do_not_import_torch():
    code = (
        "import sys, saccade.models as m; m.list_models(), m.model_defaults('vit'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
