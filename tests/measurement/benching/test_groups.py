"""What stands beside each other: sizes and terms, each a group with its own softmax."""

import pytest

from saccade.measurement.benching.groups import Asked, sized
from saccade.measurement.terms import Terms

TERMS = [Terms(batch_size=1), Terms(batch_size=8)]


def asked(**options):
    return Asked(**{"attentions": ["linear"], "what": ["core"], "terms": TERMS[:1], **options})


def sizes(groups):
    return [(group.entrants[0].conditions(group.what[0])["tokens"], group.what) for group in groups]


def test_every_combination_is_a_group_with_its_own_softmax():
    terms = [*TERMS, Terms(batch_size=1, dtype="bf16")]
    groups = asked(tokens=[16, 4, 16], terms=terms, what=["core", "layer"]).groups()
    told = [(one.entrants[0].terms, one.entrants[0].tokens.count) for one in groups]
    assert told == [(each, count) for each in terms for count in (4, 16)]
    for group in groups:
        assert len({one.terms for one in group.entrants}) == 1
        assert [one.attention for one in group.entrants][-1] == "linear"
        assert "softmax" in group.entrants[0].attention


def test_sizes_without_a_model_are_given_or_usual():
    assert [size for size, _ in sizes(asked().groups())] == [196, 784, 3136]
    (one, *_) = asked(tokens=[4], dim=16, heads=2, prefix=1).groups()[0].entrants
    assert (one.dim, one.num_heads, one.grid, one.prefix) == (16, 2, (2, 2), 1)


def test_a_model_gives_its_layers_and_blocks_their_size():
    groups = asked(
        model="vit_nano_patch1_8", options={"mlp_ratio": 3.0, "block": "xformers"}, what=["block", "model", "core"]
    ).groups()
    assert sizes(groups) == [(65, ("core", "block")), (65, ("model",))]
    inner = groups[0].entrants[0]
    assert (inner.dim, inner.num_heads, inner.grid, inner.prefix) == (32, 4, (8, 8), 1)
    assert inner.block == {
        "mlp_ratio": 3.0,
        "mlp_layer": "mlp",
        "init_values": None,
        "reversible": False,
        "style": "xformers",
    }
    assert inner.module("block").mlp.fc1.out_features == 96
    assert groups[1].entrants[0].subject.options == {"mlp_ratio": 3.0, "block": "xformers"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, [{}]),
        ({"tokens": [4, 16]}, [{"img_size": 32}, {"img_size": 64}]),
        ({"tokens": [4], "patch_size": [8, 4]}, [{"patch_size": 8, "img_size": 16}, {"patch_size": 4, "img_size": 8}]),
        ({"tokens": [4], "patch_size": [[8, 4]]}, [{"patch_size": [8, 4], "img_size": [16, 8]}]),
        ({"img_size": [64, 96]}, [{"img_size": 64}, {"img_size": 96}]),
        ({"patch_size": [32]}, [{"patch_size": 32}]),
    ],
)
def test_a_model_is_given_its_tokens_by_images_or_by_patches(options, found):
    assert sized("vit_tiny_patch16_224", {"depth": 2}, **options) == [{"depth": 2, **one} for one in found]


def test_sizes_of_a_model_ascend_in_tokens_whatever_makes_them():
    groups = asked(model="vit_tiny_patch16_224", patch_size=[32, 16, 56], what=["model"]).groups()
    assert [size for size, _ in sizes(groups)] == [17, 50, 197]
    assert {one.subject.inference_batch for one in groups[0].entrants} == {1}


def test_a_masked_autoencoder_is_measured_whole_and_its_layers_on_all_patches():
    groups = asked(model="mae_nano_patch1_8", what=["core", "model"]).groups()
    assert sizes(groups) == [(65, ("core",)), (65, ("model",))]


def test_rivals_stand_behind_those_they_are_beside():
    (group,) = asked(model="vit_nano_patch1_8", what=["model"], rivals=True).groups()
    named = [bool(one.rival) for one in group.entrants]
    assert named == sorted(named)
    assert any(named)
