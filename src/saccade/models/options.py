"""The options of a Vision Transformer, checked and brought to one plain form that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from saccade.attention.written import parse_layers

if TYPE_CHECKING:
    from saccade.attention.base import Attention

WORDS = {
    "global_pool": ("token", "avg", "all", ""),
    "mlp_layer": ("mlp", "swiglu"),
    "block": ("pre", "xformers"),
    "embed_layer": ("patch", "conv"),
    "pos_embed": ("learn", "sine", "none"),
}
_SMALLEST = {
    "in_chans": 1,
    "num_classes": 0,
    "embed_dim": 1,
    "depth": 1,
    "num_heads": 1,
    "reg_tokens": 0,
    "token_merging": 0,
}
_RATES = ("drop_rate", "pos_drop_rate", "proj_drop_rate", "drop_path_rate")


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with sizes as (rows, columns), the attention as text, and the place of the last norm said.

    Raises:
        ValueError: a word or a number that is not allowed, or a class token wanted but not there.
    """
    checked = dict(options)
    for name in ("img_size", "patch_size"):
        checked[name] = rows_and_columns(name, options[name])
    for name, words in WORDS.items():
        _check_word(name, options[name], words)
    for name, smallest in _SMALLEST.items():
        _check_count(name, options[name], smallest)
    _check_flag("reversible", options["reversible"])
    for name in _RATES:
        if not 0 <= options[name] < 1:
            raise ValueError(f"{name}={options[name]}: must be at least 0 and below 1")
    if int(options["embed_dim"] * options["mlp_ratio"]) < 1:
        raise ValueError(f"mlp_ratio={options['mlp_ratio']}: the MLP needs a hidden layer, so it must be larger")
    if options["global_pool"] == "token" and not options["class_token"]:
        raise ValueError('global_pool="token" without a class token: use class_token=True, or global_pool="avg"')
    checked["attention"] = attention_text(options["attention"])
    if options["token_merging"]:
        _check_merging(checked)
    if options["fc_norm"] is None:
        checked["fc_norm"] = options["global_pool"] in ("avg", "all")
    return checked


_MAE_SMALLEST = {
    "in_chans": 1,
    "embed_dim": 1,
    "depth": 1,
    "num_heads": 1,
    "decoder_embed_dim": 1,
    "decoder_depth": 1,
    "decoder_num_heads": 1,
}


def checked_mae_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A masked autoencoder's options with sizes as (rows, columns), and both attentions as text.

    Raises:
        ValueError: a word or a number that is not allowed, patches of one value whose deviation is asked for, or an
            attention for the decoder that SimMIM does not have.
    """
    checked = dict(options)
    for name in ("img_size", "patch_size"):
        checked[name] = rows_and_columns(name, options[name])
    for name in ("mlp_layer", "block"):
        _check_word(name, options[name], WORDS[name])
    _check_word("objective", options["objective"], ("mae", "simmim"))
    if options["mask_patch_size"] is not None:
        checked["mask_patch_size"] = rows_and_columns("mask_patch_size", options["mask_patch_size"])
    for name in ("reversible", "norm_pix_loss"):
        _check_flag(name, options[name])
    for name, smallest in _MAE_SMALLEST.items():
        _check_count(name, options[name], smallest)
    if not isinstance(options["mask_ratio"], Real) or isinstance(options["mask_ratio"], bool):
        raise ValueError(f"mask_ratio={options['mask_ratio']!r}: must be a number above 0 and below 1")
    if options["norm_pix_loss"] and math.prod(checked["patch_size"]) * options["in_chans"] == 1:
        raise ValueError(
            "norm_pix_loss with patches of one value: a single value has no deviation; leave norm_pix_loss out, or "
            "take larger patches"
        )
    for name in ("embed_dim", "decoder_embed_dim"):
        if int(options[name] * options["mlp_ratio"]) < 1:
            raise ValueError(f"mlp_ratio={options['mlp_ratio']}: the MLP needs a hidden layer, so it must be larger")
        if options[name] % 4:
            raise ValueError(f"{name}={options[name]}: must be a multiple of 4, for the sine positions")
    checked["attention"] = attention_text(options["attention"])
    other = options["decoder_attention"]
    checked["decoder_attention"] = checked["attention"] if other is None else attention_text(other)
    # The encoder's own is what the config of every SimMIM model says.
    if options["objective"] == "simmim" and checked["decoder_attention"] != checked["attention"]:
        raise ValueError(
            f'decoder_attention={checked["decoder_attention"]!r} with objective="simmim", which has no decoder: leave '
            "decoder_attention out"
        )
    return checked


def _check_merging(options: Mapping[str, Any]) -> None:
    """Refuses what merged tokens cannot be used by."""
    asked = options["token_merging"]
    layers = parse_layers(options["attention"], options["depth"])
    other = next(
        (written for written in layers if written.name != "softmax" or dict(written.options).get("rope")), None
    )
    refused = {
        f"attention={str(other)!r}": other is not None,
        "reversible=True": options["reversible"],
        f"global_pool={options['global_pool']!r}": options["global_pool"] != "token",
        "depth=1": options["depth"] == 1,
    }
    for option, there in refused.items():
        if there:
            raise ValueError(
                f"token_merging={asked} with {option}: it joins the tokens of plain softmax attention whose keys are "
                "alike, block after block, in front of a class token that is read; leave one of the two out"
            )


def rows_and_columns(name: str, size: Any) -> tuple[int, int]:
    """One side, or two, as rows and columns.

    Raises:
        ValueError: anything but one or two positive whole numbers.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            f"{name}={size!r}: must be one side or (rows, columns), in pixels, each a whole number above 0"
        )
    return sides


def attention_text(attention: str | type[Attention]) -> str:
    """The written form of an attention: text as it is, a class by its name in the table, or as "module:Class".

    Raises:
        ValueError: a class that other processes could not find by its name.
    """
    if isinstance(attention, str):
        return attention
    from saccade.attention import TABLE, attention_class

    place = f"{attention.__module__}:{attention.__qualname__}"
    if attention_class(place) is not attention:
        raise ValueError(f"{place!r}: its module holds another class of that name")
    return next((name for name, known in TABLE.items() if known == place), place)


def _check_word(name: str, word: Any, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ValueError(f"{name}={word!r}: must be one of {', '.join(repr(one) for one in allowed)}")


def _check_flag(name: str, flag: Any) -> None:
    if not isinstance(flag, bool):
        raise ValueError(f"{name}={flag!r}: must be True or False")


def _check_count(name: str, count: Any, smallest: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < smallest:
        raise ValueError(f"{name}={count!r}: must be a whole number of at least {smallest}")
