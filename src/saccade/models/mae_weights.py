"""Masked autoencoders of others: the checkpoints of facebookresearch/mae and of transformers, read and written."""

from __future__ import annotations

import argparse
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saccade.models.mae import MaskedAutoencoder
from saccade.models.weights import check_fits

# What transformers calls a module, on the hub and in its newer classes, and what facebookresearch/mae calls it.
_RENAMED = [
    (r"^vit\.embeddings\.cls_token$", "cls_token"),
    (r"^vit\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^vit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^vit\.(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
    (r"^vit\.layernorm\.", "norm."),
    (r"^decoder\.decoder_layers\.(\d+)\.", r"decoder_blocks.\1."),
    (r"^decoder\.", ""),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.attention\.(?:attention\.query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.value|v_proj)\.", ".attn.v."),
]

# The same, on the way back to the layout of facebook/vit-mae-* on the hub.
_TO_HUB = [
    (r"^(cls_token)$", r"vit.embeddings.\1"),
    (r"^pos_embed$", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"vit.encoder.layer.\1."),
    (r"^norm\.", "vit.layernorm."),
    (r"^decoder_blocks\.(\d+)\.", r"decoder.decoder_layers.\1."),
    (r"^(mask_token|decoder_pos_embed|decoder_embed\.|decoder_norm\.|decoder_pred\.)", r"decoder.\1"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]
_HUB_PROJECTIONS = ("attention.attention.query", "attention.attention.key", "attention.attention.value")


def load_mae(path: Path | str, **overrides: Any) -> MaskedAutoencoder:
    """A masked autoencoder from a checkpoint of facebookresearch/mae (.pth) or of transformers (.safetensors, .bin).

    Widths, depths and patches are the checkpoint's. Heads stand in none: they are D / 64 in the encoder (80 in the
    huge model of width 1,280) and 16 in the decoder, as published. A pickle is read as tensors and plain values only:
    nothing in it runs.

    Example:
        load_mae("mae_visualize_vit_large.pth", norm_pix_loss=False)

    Args:
        path: a file.
        overrides: arguments of MaskedAutoencoder that the checkpoint does not hold, as num_heads, norm_pix_loss, and
            img_size where its patches are no square grid.

    Raises:
        ValueError: no such file, a pickle of anything else, no weights of a masked autoencoder, an encoder alone,
            weights that are missing, unknown or of another shape, a grid that is no square and not said, or positions
            that are not MAE's fixed ones.
    """
    path = Path(path)
    state = mae_state(read_tensors(path), str(path))
    model = MaskedAutoencoder(**_options(state, path, overrides))
    check_fits(path, model.state_dict(), state)
    for name in ("pos_embed", "decoder_pos_embed"):
        if not torch.allclose(getattr(model, name), state[name].float(), atol=1e-5):
            rows, columns = model.tokens.grid
            raise ValueError(
                f"{path}: its {name} are not the fixed sines of MAE on {rows} x {columns} patches, which this model "
                "keeps; where the grid is another one, give img_size=(rows, columns), in pixels"
            )
    model.load_state_dict(state)
    return model


def mae_state(state: Mapping[str, Tensor], source: str = "the state dict") -> dict[str, Tensor]:
    """The same weights under the names of facebookresearch/mae, which are ours.

    Args:
        state: of facebookresearch/mae or of transformers' ViTMAEForPreTraining, as on the hub or as in memory.
        source: what the error names.

    Raises:
        ValueError: keys that belong to neither, or queries without keys and values of their shape.
    """
    if "patch_embed.proj.weight" in state:
        return dict(state)
    if "vit.embeddings.patch_embeddings.projection.weight" not in state:
        raise ValueError(
            f"{source} holds no masked autoencoder: it has neither patch_embed.proj.weight (facebookresearch/mae) nor "
            "vit.embeddings.patch_embeddings.projection.weight (transformers)"
        )
    renamed = {_renamed(key, _RENAMED): value for key, value in state.items()}
    joined = {key: value for key, value in renamed.items() if not re.search(r"\.attn\.[qkv]\.", key)}
    for key, name in ((key, _renamed(key, _RENAMED)) for key in state):
        if ".attn.q." in name:
            parts = [renamed.get(name.replace(".attn.q.", f".attn.{one}.")) for one in "qkv"]
            alike = [part for part in parts if part is not None and part.shape == state[key].shape]
            if len(alike) < len(parts):
                raise ValueError(f"{source} does not fit its model: beside {key} is no key or no value of its shape")
            joined[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(alike)
    return joined


def transformers_state(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """The weights in the layout of facebook/vit-mae-* on the hub, which `ViTMAEForPreTraining.from_pretrained` reads.

    Raises:
        ValueError: a layer that transformers' model does not have: it knows softmax with the usual options only.
    """
    if (softmax := {model.attention, model.decoder_attention}) != {"softmax"}:
        other = ", ".join(sorted(softmax - {"softmax"}))
        raise ValueError(f"transformers' ViTMAE has no {other}: only a model with softmax throughout can be written")
    for option, only in (("mlp_layer", "mlp"), ("block", "pre"), ("reversible", False), ("objective", "mae")):
        if model.config[option] != only:
            raise ValueError(f"transformers' ViTMAE has no {option}={model.config[option]!r}, only {only!r}")
    written: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        name = _renamed(key, _TO_HUB)
        if ".attn.qkv." in name:
            for projection, part in zip(_HUB_PROJECTIONS, value.chunk(3), strict=True):
                written[name.replace("attn.qkv", projection)] = part.clone()
        else:
            written[name] = value
    return written


def _renamed(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, name in rules:
        key = re.sub(pattern, name, key)
    return key


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, or under "model" in it; a pickle is read as tensors and plain values only.

    Raises:
        ValueError: no such file, or no state dict in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give a .pth, .bin or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # torch warns of pickles that it did not write; whether they can be read is judged here.
        # Training checkpoints of facebookresearch/mae and timm hold their command line, too: names with plain values.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    # The unpickler interprets whatever bytes it is given, and so fails in every way there is.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as tensors and plain values, which is all that is read: {_reason(error)}"
        ) from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name, or such under 'model'")
    return state


def _reason(error: Exception) -> str:
    """What the unpickler met, without torch's advice to read the file unsafely."""
    _, _, met = str(error).rpartition("WeightsUnpickler error:")
    sentence = next((line.strip().partition(". ")[0] for line in met.splitlines() if line.strip()), "")
    return ": ".join(filter(None, [type(error).__name__, sentence]))


def _options(state: Mapping[str, Tensor], path: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the shapes say of the model, and what they do not."""
    if "decoder_pred.weight" not in state:
        raise ValueError(
            f"{path} holds the encoder alone: pre-training needs the decoder, too, as in the full checkpoint"
        )
    options = {
        **encoder_options(state, str(path)),
        "decoder_embed_dim": _shape(state, "decoder_embed.weight", 2, str(path))[0],
        "decoder_depth": _depth(state, "decoder_blocks", str(path)),
        **overrides,
    }
    if "img_size" not in overrides:
        patches = _shape(state, "pos_embed", 3, str(path))[1] - 1
        side = math.isqrt(max(0, patches))
        if side**2 != patches:
            raise ValueError(
                f"{path} has {patches} patches, which are no square grid, and does not say which: "
                "load_mae needs its img_size=(rows, columns), in pixels"
            )
        options["img_size"] = tuple(side * pixels for pixels in options["patch_size"])
    return options


def encoder_options(state: Mapping[str, Tensor], source: str = "the state dict") -> dict[str, Any]:
    """What the shapes of an encoder's weights, under our names, say of it; heads are as published.

    Args:
        state: under our names.
        source: what the error names.

    Raises:
        ValueError: weights that are missing, or have other dimensions.
    """
    width, channels, *patch = _shape(state, "patch_embed.proj.weight", 4, source)
    return {
        "patch_size": tuple(patch),
        "in_chans": channels,
        "embed_dim": width,
        "depth": _depth(state, "blocks", source),
        "num_heads": max(1, width // (80 if width == 1280 else 64)),
        "mlp_ratio": _shape(state, "blocks.0.mlp.fc2.weight", 2, source)[1] / width,
    }


def _depth(state: Mapping[str, Tensor], blocks: str, source: str) -> int:
    found = (re.match(rf"{blocks}\.(\d+)\.", key) for key in state)
    depth = 1 + max((int(block[1]) for block in found if block), default=-1)
    if depth == 0:
        raise ValueError(f"{source} does not fit its model: {blocks}.0 is missing")
    return depth


def _shape(state: Mapping[str, Tensor], key: str, dimensions: int, source: str) -> torch.Size:
    if key not in state:
        raise ValueError(f"{source} does not fit its model: {key} is missing")
    if (shape := state[key].shape).numel() == 0 or len(shape) != dimensions:
        raise ValueError(f"{source} does not fit its model: {key} is {tuple(shape)}, not of {dimensions} dimensions")
    return shape
