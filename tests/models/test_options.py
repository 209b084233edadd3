"""What a model can be asked for, and the words with which the rest is refused."""

import inspect

import pytest

from saccade.attention.softmax import Softmax
from saccade.models.mae import MaskedAutoencoder
from saccade.models.options import attention_text, checked_mae_options, checked_options, rows_and_columns
from saccade.models.vit import VisionTransformer

SMALL = {"img_size": 8, "patch_size": 4, "num_classes": 3, "embed_dim": 8, "depth": 1, "num_heads": 2}

REFUSED = {
    "pooling": ({"global_pool": "max"}, r"global_pool='max': must be one of 'token', 'avg', 'all', ''"),
    "mlp": ({"mlp_layer": "glu"}, "must be one of 'mlp', 'swiglu'"),
    "embedding": ({"embed_layer": "hybrid"}, "must be one of 'patch', 'conv'"),
    "positions": ({"pos_embed": "rope"}, "must be one of 'learn', 'sine', 'none'"),
    "no class token to pool": ({"class_token": False}, 'use class_token=True, or global_pool="avg"'),
    "block": ({"block": "post"}, r"block='post': must be one of 'pre', 'xformers'"),
    "reversible": ({"reversible": "yes"}, "reversible='yes': must be True or False"),
    "depth": ({"depth": 0}, "depth=0: must be a whole number of at least 1"),
    "width": ({"embed_dim": 8.0}, r"embed_dim=8\.0: must be a whole number"),
    "classes": ({"num_classes": -1}, "at least 0"),
    "channels": ({"in_chans": 0}, "at least 1"),
    "a flag for a number": ({"depth": True}, "depth=True: must be a whole number"),
    "heads": ({"num_heads": 3}, "3 heads on width 8: the number of heads must divide the width"),
    "hidden width": ({"mlp_ratio": 0.01}, "must be larger"),
    "rate": ({"drop_path_rate": 1.0}, r"drop_path_rate=1\.0: must be at least 0 and below 1"),
    "image": ({"img_size": 9}, r"img_size 9 x 9 with patch_size 4 x 4: the patch must divide the image"),
    "image of three sides": ({"img_size": (8, 8, 8)}, r"\(rows, columns\)"),
    "image of none": ({"img_size": 0}, "a whole number above 0"),
    "image in words": ({"img_size": "8"}, "a whole number above 0"),
    "mixture": ({"attention": "softmax*2"}, "counts must sum to 1"),
    "attention": ({"attention": "softmaxx"}, "did you mean 'softmax'"),
}


def build(options: dict) -> VisionTransformer:
    """As the constructor does, past the check of types that tests alone have."""
    parameters = inspect.signature(VisionTransformer).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.name != "seed"}
    return VisionTransformer(**checked_options(defaults | SMALL | options))


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        build(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *[
            ({"mask_ratio": one}, f"mask_ratio={one!r}: must be a number above 0 and below 1")
            for one in ("1", None, True)
        ],
        ({"norm_pix_loss": "yes"}, "norm_pix_loss='yes': must be True or False"),
        ({"norm_pix_loss": True, "patch_size": 1, "in_chans": 1}, "a single value has no deviation"),
    ],
    ids=str,
)
def test_what_makes_no_sense_in_a_masked_autoencoder_is_refused_in_words(options, words):
    parameters = inspect.signature(MaskedAutoencoder).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.name != "seed"}
    with pytest.raises(ValueError, match=words):
        checked_mae_options(defaults | options)
    assert checked_mae_options(defaults | {"norm_pix_loss": True, "patch_size": 1})["in_chans"] == 3


@pytest.mark.parametrize(("size", "sides"), [(4, (4, 4)), ([4, 6], (4, 6)), ((1, 2), (1, 2))])
def test_one_side_or_two(size, sides):
    assert rows_and_columns("img_size", size) == sides


def test_a_class_of_a_function_or_of_main_is_refused():
    class Local(Softmax):
        pass

    with pytest.raises(ValueError, match="is no subclass"):
        attention_text(Local)
    Local.__module__, Local.__qualname__ = "__main__", "Local"
    with pytest.raises(ValueError, match="put it into a file of its own"):
        attention_text(Local)


def test_a_class_that_its_name_does_not_lead_to_is_refused():
    other = type("Softmax", (Softmax,), {"__module__": Softmax.__module__})
    with pytest.raises(ValueError, match="its module holds another class of that name"):
        attention_text(other)
