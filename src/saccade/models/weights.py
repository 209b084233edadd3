"""Models on disk: model.safetensors and config.json, written whole, read without running anything they contain."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saccade.attention import TABLE, parse_layers
from saccade.models.mae import MaskedAutoencoder
from saccade.models.vit import VisionTransformer
from saccade.record import write_whole

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
LAYOUT = 1
_FIELDS = {"layout", "name", "dtype", "config", "facts", "weights_sha256"}
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def save_model(
    model: VisionTransformer | MaskedAutoencoder, folder: Path | str, facts: Mapping[str, Any] | None = None
) -> None:
    """Writes a model so that a kill leaves the old one or the new one, and `load_model` notices where it is neither.

    Args:
        model: on any device.
        folder: made where it is not there.
        facts: of the run, for whoever loads the model; anything that JSON holds.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, model.state_dict())
    written = {
        "layout": LAYOUT,
        "name": model.name,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "config": model.config,
        "facts": dict(facts or {}),
        "weights_sha256": sha256_of(folder / WEIGHTS),
    }
    write_whole(folder / CONFIG, json.dumps(written, indent=2, ensure_ascii=False) + "\n")


def load_model(
    path: Path | str, trust_class: Collection[str] = ()
) -> tuple[VisionTransformer | MaskedAutoencoder, dict[str, Any]]:
    """Reads what `save_model` wrote: the model, on the CPU, and the facts.

    Args:
        path: the folder, or one of its two files.
        trust_class: classes outside saccade's table that the file may name as its attention, as "my.module:Mine"; their
            code runs.

    Raises:
        ValueError: a pickle, files that `save_model` did not write or that do not belong together, or an attention
            outside the table that is not trusted.
    """
    folder, written, state = read_saved(path, trust_class)
    try:
        model = (MaskedAutoencoder if "decoder_depth" in written["config"] else VisionTransformer)(**written["config"])
    except TypeError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    model.name = written["name"]
    model.to(_DTYPES[written["dtype"]])
    check_fits(folder / WEIGHTS, model.state_dict(), state)
    model.load_state_dict(state)
    return model, written["facts"]


def read_saved(
    path: Path | str, trust_class: Collection[str] | None = ()
) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Folder, fields of config.json and weights of a saved model, which is not built.

    Args:
        path: as in `load_model`.
        trust_class: as in `load_model`; None does not ask whose attention it names, and then it must not be built.

    Raises:
        ValueError: as in `load_model`.
    """
    folder = _folder(Path(path))
    written = _read_config(folder / CONFIG)
    if trust_class is not None:
        _check_trusted(folder / CONFIG, written["config"], trust_class)
    return folder, written, _read_weights(folder / WEIGHTS, written["weights_sha256"])


def is_saved(path: Path) -> bool:
    """Whether `path` is a folder that `save_model` wrote, or one of its two files: others name theirs alike."""
    folder = path.parent if path.name in (WEIGHTS, CONFIG) else path
    try:
        _read_config(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return True


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Reads the weights alone of what `save_model` wrote; no model is built.

    Raises:
        ValueError: a pickle, or files that `save_model` did not write or that do not belong together.
    """
    folder = _folder(Path(path))
    return _read_weights(folder / WEIGHTS, _read_config(folder / CONFIG)["weights_sha256"])


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file so that a kill leaves the old one or the new one, never a half."""
    state = {key: value.cpu().contiguous() for key, value in tensors.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.close(handle)
        save_file(state, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def check_fits(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Whether a file holds all weights of a model, in their shapes, and no others.

    Raises:
        ValueError: the first key, by name, that is missing, unknown or of another shape.
    """
    for key in sorted(wanted.keys() | found.keys()):
        if key not in found or key not in wanted:
            raise ValueError(f"{path} does not fit its model: {key} is {'missing' if key in wanted else 'unknown'}")
        if wanted[key].shape != found[key].shape:
            raise ValueError(
                f"{path} does not fit its model: {key} is {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}"
            )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> Path:
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        raise ValueError(f"{path} is a pickle, which can run code when it is read: give a folder with {WEIGHTS}")
    folder = path.parent if path.name in (WEIGHTS, CONFIG) else path
    for file in (WEIGHTS, CONFIG):
        if not (folder / file).is_file():
            raise ValueError(f"{path} is no saved model: {folder / file} is missing")
    return folder


def _read_config(path: Path) -> dict[str, Any]:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(written, dict) or set(written) != _FIELDS or not isinstance(written["config"], dict):
        raise ValueError(f"{path} was not written by saccade: its fields must be {', '.join(sorted(_FIELDS))}")
    if written["layout"] != LAYOUT or written["dtype"] not in _DTYPES:
        raise ValueError(
            f"{path}: layout {written['layout']!r}, dtype {written['dtype']!r}; "
            f"this saccade reads layout {LAYOUT} and {', '.join(_DTYPES)}"
        )
    return written


def _check_trusted(path: Path, config: Mapping[str, Any], trust_class: Collection[str]) -> None:
    parts = ["", "decoder_"] if "decoder_depth" in config else [""]
    named: set[str] = set()
    for part in parts:
        attention, depth = config.get(f"{part}attention"), config.get(f"{part}depth")
        if not isinstance(attention, str) or not isinstance(depth, int) or depth < 1:
            raise ValueError(
                f"{path}: its config must say the {part}attention, as text, and the {part}depth, a whole number above 0"
            )
        named |= {layer.name for layer in parse_layers(attention, depth)}
    for name in sorted(named - set(TABLE) - set(trust_class)):
        raise ValueError(
            f"{path} names the attention {name!r}, whose code is not saccade's: name it as --trust-class {name}"
        )


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    if sha256_of(path) != sha256:
        raise ValueError(f"{path} is not the file that {path.with_name(CONFIG)} was written for: save the model again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
