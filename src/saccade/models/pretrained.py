"""A pre-trained model on disk, saccade's or others': its weights under our names, and what is known beside them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade.models.mae_weights import encoder_options, mae_state, read_tensors
from saccade.models.options import rows_and_columns
from saccade.models.sizes import MODELS, is_masked_autoencoder, model_defaults
from saccade.models.vit import VisionTransformer
from saccade.models.weights import WEIGHTS, is_saved, read_saved, sha256_of

# What a classifier is given anew: by its data, by its recipe, or by the pooling it is made for.
_NOT_THE_ENCODERS = {"attention", "num_classes", "in_chans", "global_pool", "fc_norm"}


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights to start from.

    Attributes:
        source: as the user named it.
        sha256: of the file with the weights.
        state: the weights, under timm's and facebookresearch/mae's names.
        config: every option of the model, from a folder of saccade's; None for a file of others', which has none.
        name: of the model, in that folder, if it was made by one.
        facts: what the folder says of its run.
    """

    source: str
    sha256: str
    state: Mapping[str, Tensor]
    config: Mapping[str, Any] | None
    name: str | None
    facts: Mapping[str, Any]

    @property
    def known(self) -> dict[str, Any]:
        """Options of the encoder that are known for sure: all of them, or what the shapes say."""
        if self.config is not None:
            return dict(self.config)
        return {key: value for key, value in encoder_options(self.state, self.source).items() if key != "num_heads"}

    @property
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of a patch, pixels."""
        return rows_and_columns("patch_size", self.known["patch_size"])

    def grid(self, likely: tuple[int, int] | None = None) -> tuple[int, int]:
        """Rows and columns of patches that it was trained on.

        Args:
            likely: taken where a file of others' has so many positions; otherwise they are a square's.

        Raises:
            ValueError: a file of others' whose number of positions is none of a square.
        """
        if self.config is not None:
            sides = zip(rows_and_columns("img_size", self.config["img_size"]), self.patch_size, strict=True)
            rows, columns = (pixels // patch for pixels, patch in sides)
            return rows, columns
        positions = self.state["pos_embed"].shape[1]
        prefix = sum(self.state[name].shape[1] for name in ("cls_token", "reg_token") if name in self.state)
        for patches in (positions - prefix, positions):
            if likely is not None and patches == likely[0] * likely[1]:
                return likely
            if patches > 0 and (side := math.isqrt(patches)) ** 2 == patches:
                return side, side
        raise ValueError(
            f"{self.source} has {positions} positions, which belong to no square grid of patches; "
            "give the img_size that it was trained at"
        )


def read_pretrained(source: Path | str, trust_class: Collection[str] | None = None) -> Pretrained:
    """Reads the weights of a model, and runs nothing of what is beside them.

    Args:
        source: a folder that `save_model` wrote, of a masked autoencoder or a classifier, or a file (.pth, .bin,
            .safetensors) of facebookresearch/mae, transformers or timm.
        trust_class: classes outside saccade's table that a folder may name as its attention; None for who does not
            build what it names.

    Raises:
        ValueError: none of these, or an attention that is not trusted.
    """
    path = Path(source)
    if path.is_dir() or is_saved(path):
        if not is_saved(path):
            raise ValueError(
                f"{path} is no folder of a saved model; of others' models give the file with the weights "
                "(.pth, .bin or .safetensors)"
            )
        _, written, state = read_saved(path, trust_class)
        sha256 = written["weights_sha256"]
        return Pretrained(str(source), sha256, state, written["config"], written["name"], written["facts"])
    if not path.exists():
        raise ValueError(
            f"{path}: there is no such file or folder; give the folder of a run, or a file with weights "
            "(.pth, .bin or .safetensors)"
        )
    state = mae_state(read_tensors(path), str(path))
    if missing := {"blocks.0.mlp.fc2.weight", "pos_embed"} - set(state):
        raise ValueError(f"{path} holds no Vision Transformer: it has no {' and no '.join(sorted(missing))}")
    return Pretrained(str(source), sha256_of(path), state, None, None, {})


def weights_sha256(source: Path | str) -> str:
    """The SHA-256 of the file with the weights.

    Raises:
        ValueError: there is none.
    """
    path = Path(source)
    file = (
        path if path.is_file() and not is_saved(path) else path / WEIGHTS if path.is_dir() else path.with_name(WEIGHTS)
    )
    if not file.is_file():
        raise ValueError(
            f"{source}: there is no such checkpoint; give the folder of a saved model, or a file of weights"
        )
    return sha256_of(file)


def classifier_of(found: Pretrained, likely: tuple[int, int] | None = None) -> tuple[str, str, dict[str, Any]]:
    """Name, attention and options of the classifier that has a pre-trained model's encoder.

    Heads and attention stand in no file of others': the heads are as published, the attention softmax.

    Args:
        found: the pre-trained model.
        likely: its rows and columns of patches, as `Pretrained.grid` takes them.

    Raises:
        ValueError: a file of others' whose grid is no square and not the likely one.
    """
    known = encoder_options(found.state, found.source) if found.config is None else dict(found.config)
    if found.config is None:
        grid = found.grid(likely)
        known["img_size"] = tuple(side * patch for side, patch in zip(grid, found.patch_size, strict=True))
        known["class_token"] = "cls_token" in found.state
        known["reg_tokens"] = found.state["reg_token"].shape[1] if "reg_token" in found.state else 0
    name = _name_of(found.name, known)
    signature = inspect.signature(VisionTransformer).parameters.values()
    usual = {one.name: one.default for one in signature} | model_defaults(name)
    options = {
        key: known[key]
        for key in usual
        if key in known and key not in _NOT_THE_ENCODERS and not key.endswith("_rate")
        if _plain(key, known[key]) != _plain(key, usual[key])
    }
    return name, known.get("attention", "softmax"), options


def _name_of(name: str | None, known: Mapping[str, Any]) -> str:
    """The classifier beside a masked autoencoder, itself, or the one that has the most options in common."""
    counterpart = None if name is None else name.replace("mae_", "vit_", 1)
    if counterpart in MODELS:
        return counterpart
    telling = ("embed_dim", "depth", "num_heads", "patch_size", "img_size")

    def alike(one: str) -> int:
        return sum(_plain(key, MODELS[one][key]) == _plain(key, known[key]) for key in telling)

    return max((one for one in MODELS if one.startswith("vit_") and not is_masked_autoencoder(one)), key=alike)


def _plain(key: str, value: Any) -> Any:
    """One form for a size, however it is written."""
    return rows_and_columns(key, value) if key in ("img_size", "patch_size") else value
