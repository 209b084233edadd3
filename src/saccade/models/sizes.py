"""The models by name: what each name stands for, and `create_model`, which builds one."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.attention.base import Attention
    from saccade.models.mae import MaskedAutoencoder
    from saccade.models.vit import VisionTransformer

_WIDTHS = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}
_PATCH_SIZES = (8, 14, 16, 32)
_IMG_SIZES = (224, 384, 448, 512)
_MICRO = {"img_size": 32, "num_classes": 10, "embed_dim": 128, "depth": 4, "num_heads": 8}
_NANO = {"img_size": 8, "in_chans": 1, "num_classes": 10, "embed_dim": 32, "depth": 2, "num_heads": 4}
# MAE's own decoder, and ones for small encoders: half as wide, half as deep.
_DECODER = {"decoder_embed_dim": 512, "decoder_depth": 8, "decoder_num_heads": 16}
_MICRO_DECODER = {"decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4}
_NANO_DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
_PIXELS: dict[str, Any] = {**_MICRO, "patch_size": 1}


def _unlabelled(options: dict[str, Any]) -> dict[str, Any]:
    """The options without the number of classes."""
    return {key: value for key, value in options.items() if key != "num_classes"}


MODELS: dict[str, dict[str, Any]] = {
    # On 1,077 images learned positions stay at chance.
    "vit_nano_patch1_8": {**_NANO, "patch_size": 1, "pos_embed": "sine"},
    **{f"vit_micro_patch{patch}_32": {**_MICRO, "patch_size": patch} for patch in (1, 2, 4)},
    "vit_micro_conv_32": {**_PIXELS, "embed_layer": "conv"},
    "vit": {**_MICRO, "patch_size": 2},
    "vitl": {**_PIXELS, "attention": "linear(bias=False)"},
    "vitx": {**_PIXELS, "embed_layer": "conv", "attention": "linear(bias=False)"},
    **{
        f"vit_{size}_patch{patch}_{side}": {**widths, "img_size": side, "patch_size": patch}
        for size, widths in _WIDTHS.items()
        for patch in _PATCH_SIZES
        for side in _IMG_SIZES
        if side % patch == 0
    },
    "mae_nano_patch1_8": {**_unlabelled(_NANO), **_NANO_DECODER, "patch_size": 1},
    **{
        f"mae_micro_patch{patch}_32": {**_unlabelled(_MICRO), **_MICRO_DECODER, "patch_size": patch} for patch in (2, 4)
    },
    **{
        f"mae_{size}_patch{patch}_{side}": {**widths, **_DECODER, "img_size": side, "patch_size": patch}
        for size, widths in _WIDTHS.items()
        for patch in _PATCH_SIZES
        for side in _IMG_SIZES
        if side % patch == 0
    },
}


def create_model(
    name: str, attention: str | type[Attention] | None = None, *, seed: int = 0, **overrides: Any
) -> VisionTransformer | MaskedAutoencoder:
    """Builds a model by name.

    Example:
        create_model("vit_small_patch16_224", "nystrom(landmarks=16)", num_classes=10, img_size=(160, 240))
        create_model("mae_base_patch16_224", "linear", decoder_attention="softmax")

    Args:
        name: one of `list_models()`.
        attention: its written form, or a subclass of Attention; None for the one of the name (`model_defaults`), which
            is softmax for all but vitl and vitx.
        seed: initial values are f(seed, parameter name).
        overrides: any argument of VisionTransformer, or for a name with mae_ of MaskedAutoencoder.

    Raises:
        ValueError: an unknown name or option, or what the model refuses.
    """
    options = model_defaults(name) | overrides
    if attention is not None:
        options["attention"] = attention
    cls = _class_of(name)
    _check_known(name, overrides, list(inspect.signature(cls).parameters))
    if options.get("objective") == "simmim":
        _check_no_decoder(name, overrides)
    model = cls(**options, seed=seed)
    model.name = name
    return model


def create_classifier(
    name: str, attention: str | type[Attention] | None = None, *, seed: int = 0, **overrides: Any
) -> VisionTransformer:
    """As `create_model`, for what needs a head.

    Raises:
        ValueError: a masked autoencoder, or what create_model refuses.
    """
    if is_masked_autoencoder(name):
        raise ValueError(
            f"{name} is a masked autoencoder, which learns without labels and has no classes: "
            f"a classifier of that size is {name.replace('mae_', 'vit_', 1)}"
        )
    model = create_model(name, attention, seed=seed, **overrides)
    from saccade.models.vit import VisionTransformer

    assert isinstance(model, VisionTransformer)
    return model


def is_masked_autoencoder(name: str) -> bool:
    """Whether the name stands for a masked autoencoder.

    Raises:
        ValueError: an unknown name.
    """
    return "decoder_embed_dim" in model_defaults(name)


def list_models(filter: str = "*") -> list[str]:  # noqa: A002
    """The names of the models that match a pattern with * and ?, as in "vit_base_*"."""
    return fnmatch.filter(MODELS, filter)


def model_defaults(name: str) -> dict[str, Any]:
    """The arguments of the model's class that a name stands for, its attention among them.

    Raises:
        ValueError: an unknown name.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        hint = f"near are {', '.join(near)}" if near else "list_models(), or saccade models, names them"
        raise ValueError(f"there is no model {name!r}: {hint}")
    return {"attention": "softmax"} | MODELS[name]


def _class_of(name: str) -> type[VisionTransformer | MaskedAutoencoder]:
    if is_masked_autoencoder(name):
        from saccade.models.mae import MaskedAutoencoder

        return MaskedAutoencoder
    from saccade.models.vit import VisionTransformer

    return VisionTransformer


def _check_known(name: str, overrides: dict[str, Any], known: list[str]) -> None:
    for option, value in overrides.items():
        if option in ("qkv_bias", "qk_norm"):
            raise ValueError(f'{name}: {option} belongs to the attention: attention="softmax({option}={value})"')
        if option == "token_merging" and option not in known:
            raise ValueError(
                f"{name}: token_merging={value} with a masked autoencoder, which needs every patch where it was: leave "
                "token_merging out"
            )
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"{name} has no option {option!r}: {hint}its options are {', '.join(known)}")


def _check_no_decoder(name: str, overrides: dict[str, Any]) -> None:
    """The sizes of a decoder that belong to the name are not asked for, and mean nothing."""
    for option in _DECODER:
        if option in overrides and overrides[option] != MODELS[name][option]:
            raise ValueError(
                f'{name}: {option}={overrides[option]} with objective="simmim", which has no decoder: '
                f"leave {option} out"
            )
