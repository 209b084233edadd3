"""Rivals: softmax models that people would make instead, near the cost that is asked for."""

import pytest
import torch

from saccade.measurement.rivals import families, nearest, rivals_of
from saccade.models.sizes import create_model


def flops(model, **options):
    with torch.device("meta"):
        return sum(create_model(model, "softmax", **options).flops().values())


def test_each_way_is_tried_from_the_dearest_to_the_cheapest():
    found = families("vit_nano_patch1_8", {})
    assert list(found) == ["larger patch", "fewer layers", "narrower", "token merging"]
    assert [one.label for one in found["larger patch"]] == ["softmax at patch_size=2", "softmax at patch_size=4"]
    assert [one.changes for one in found["fewer layers"]] == [{"depth": 1}]
    assert [one.changes["embed_dim"] for one in found["narrower"]] == [24, 16, 8]
    assert [one.changes["num_heads"] for one in found["narrower"]] == [3, 2, 1]
    assert found["token merging"][-1].changes == {"token_merging": 32}
    for family in found.values():
        shares = [one.share for one in family]
        assert shares == sorted(shares, reverse=True)
        assert all(0 < share < 1 for share in shares)


def test_a_share_is_that_of_declared_operations():
    whole = flops("vit_micro_patch4_32")
    for family in families("vit_micro_patch4_32", {}).values():
        for one in family:
            assert one.share == flops("vit_micro_patch4_32", **one.changes) / whole


@pytest.mark.parametrize("target", [0.2, 0.5, 0.8])
def test_the_nearest_of_each_way_is_named_with_complete_options(target):
    asked = {"num_classes": 7, "img_size": [32, 48]}
    chosen, whole = rivals_of("vit_micro_patch2_32", asked, target), flops("vit_micro_patch2_32", **asked)
    assert len({label for label, _ in chosen}) == 4
    for (label, options), family in zip(chosen, families("vit_micro_patch2_32", asked).values(), strict=True):
        assert options == {**asked, **nearest(family, target).changes}
        reached = flops("vit_micro_patch2_32", **options) / whole
        assert all(
            max(reached / target, target / reached) <= max(one.share / target, target / one.share) for one in family
        )
        name, _, value = label.removeprefix("softmax at ").partition("=")
        assert str(options[name]) == value


def test_a_patch_divides_the_image_and_leaves_a_grid():
    sizes = [
        one.changes["patch_size"] for one in families("vit_micro_patch2_32", {"img_size": [24, 16]})["larger patch"]
    ]
    assert sizes == [4, 8]
    oblong = families("vit_micro_patch2_32", {"img_size": [24, 16], "patch_size": [3, 2]})["larger patch"]
    assert [one.changes["patch_size"] for one in oblong] == [[6, 4], [12, 8]]


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"embed_layer": "conv", "patch_size": 1}, "larger patch"),
        ({"depth": 1}, "fewer layers"),
        ({"num_heads": 1}, "narrower"),
        ({"global_pool": "avg"}, "token merging"),
    ],
    ids=str,
)
def test_a_way_that_a_model_does_not_have_is_left_out(options, missing):
    assert missing not in families("vit_nano_patch1_8", options)


def test_what_has_no_rivals_is_refused():
    with pytest.raises(ValueError, match="masked autoencoder"):
        rivals_of("mae_nano_patch1_8", {}, 0.5)
    with pytest.raises(ValueError, match="below 1"):
        rivals_of("vit_nano_patch1_8", {}, 1.5)
