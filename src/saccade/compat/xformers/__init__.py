"""The attentions that xFormers shipped until v0.0.28, with their names and calls, and without their faults.

`from xformers.components.attention import NystromAttention` becomes
`from saccade.compat.xformers import NystromAttention`. docs/xformers.md says what each does differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saccade.compat.xformers.base import Attention
from saccade.compat.xformers.compositional import CompositionalAttention
from saccade.compat.xformers.dispatch import InputProjection, MultiHeadDispatch, built
from saccade.compat.xformers.grid import Pooling, Visual
from saccade.compat.xformers.kernels import FavorAttention, FeatureMapType, FourierMix, LambdaLayer
from saccade.compat.xformers.landmarks import (
    LandmarkSelection,
    LinformerAttention,
    NystromAttention,
    OrthoFormerAttention,
)
from saccade.compat.xformers.masked import GlobalAttention, LocalAttention, RandomAttention, ScaledDotProduct
from saccade.compat.xformers.masks import AttentionMask

ATTENTION_REGISTRY: dict[str, type[Attention]] = {
    "scaled_dot_product": ScaledDotProduct,
    "local": LocalAttention,
    "global": GlobalAttention,
    "random": RandomAttention,
    "linformer": LinformerAttention,
    "nystrom": NystromAttention,
    "orthoformer": OrthoFormerAttention,
    "favor": FavorAttention,
    "fourier_mix": FourierMix,
    "lambda": LambdaLayer,
    "pooling": Pooling,
    "visual": Visual,
    "compositional": CompositionalAttention,
}
"""The attentions by the names that a configuration has for them."""

SUCCESSORS = {
    "scaled_dot_product": "softmax",
    "local": "local",
    "global": "global",
    "random": "random",
    "linformer": "linformer",
    "nystrom": "nystrom",
    "orthoformer": "orthoformer",
    "favor": "performer",
    "fourier_mix": "fourier",
    "lambda": "lambda",
    "pooling": "pooling",
    "visual": "visual",
    "compositional": "compositional",
}
"""The mechanism of `saccade attentions` that each has become: a whole layer, for patches on a grid."""


def build_attention(config: Mapping[str, Any]) -> Attention:
    """The attention that `config["name"]` names, with the options that it takes among the others.

    Raises:
        ValueError: an unknown name or option, or one that is missing.
    """
    options = dict(config)
    return built(options.pop("name", None), ATTENTION_REGISTRY, options)


def build_multi_head_attention(multi_head_config: Mapping[str, Any]) -> MultiHeadDispatch:
    """MultiHeadDispatch from a configuration whose "attention" is an attention, or a configuration of one.

    Such a one gets `num_heads`, `dim_model` and `dim_head` from the whole, where it does not name them.

    Raises:
        ValueError: an unknown name or option, or one that is missing.
    """
    options = {option: value for option, value in multi_head_config.items() if value is not None}
    attention = options.pop("attention")
    if not isinstance(attention, Attention):
        heads, dim = options["num_heads"], options["dim_model"]
        whole = {"num_heads": heads, "dim_model": dim, "dim_head": dim // heads}
        attention = build_attention({**whole, **attention})
    return MultiHeadDispatch(attention=attention, **options)


__all__ = [
    "ATTENTION_REGISTRY",
    "SUCCESSORS",
    "Attention",
    "AttentionMask",
    "CompositionalAttention",
    "FavorAttention",
    "FeatureMapType",
    "FourierMix",
    "GlobalAttention",
    "InputProjection",
    "LambdaLayer",
    "LandmarkSelection",
    "LinformerAttention",
    "LocalAttention",
    "MultiHeadDispatch",
    "NystromAttention",
    "OrthoFormerAttention",
    "Pooling",
    "RandomAttention",
    "ScaledDotProduct",
    "Visual",
    "build_attention",
    "build_multi_head_attention",
]
