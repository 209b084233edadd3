"""Starting from a pre-trained model: its encoder is brought into another model, and every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade.attention import TABLE, parse_layers, resolved_text
from saccade.models.mae import MaskedAutoencoder
from saccade.models.pretrained import Pretrained, read_pretrained
from saccade.models.reshaping import Reshaped, Reshaping
from saccade.models.vit import VisionTransformer

# Options in which a model may differ from the one that it starts from. All others that both have must be equal.
_MAY_DIFFER = {
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "global_pool",
    "fc_norm",
    "pos_embed",
    "no_embed_class",
    "drop_rate",
    "pos_drop_rate",
    "proj_drop_rate",
    "drop_path_rate",
    "mask_ratio",
    "norm_pix_loss",
    "objective",
    "mask_patch_size",
}
_ENCODER = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "blocks.")
_DECODER = ("decoder_", "mask_token")


@dataclass(frozen=True)
class Transfer:
    """What a model starts from, tensor by tensor.

    Attributes:
        source: where the pre-trained model lies.
        sha256: of its weights.
        loaded: tensors of the model that hold the pre-trained values.
        reshaped: those that hold them resized, interpolated or computed for another grid.
        fresh: those that start as in training from scratch.
        unused: tensors of the pre-trained model that have no place here.
        remarks: what else its user should know.
    """

    source: str
    sha256: str
    loaded: tuple[str, ...]
    reshaped: Mapping[str, Reshaped]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """A few lines for people."""
        lines = [
            f"starts from {self.source}: {len(self.loaded)} tensors as they are, {len(self.reshaped)} brought to other "
            f"shapes; fresh: {_few(self.fresh)}; unused: {_few(self.unused)}"
        ]
        told: dict[str, list[str]] = {}
        for name, one in self.reshaped.items():
            told.setdefault(one.how, []).append(f"{name} {_shape(one.before)} to {_shape(one.after)}")
        lines += [f"{how}: {names[0]}" + _more(len(names) - 1) for how, names in told.items()]
        return lines + list(self.remarks)

    def facts(self) -> dict[str, Any]:
        """The same as values that JSON holds."""
        reshaped = {
            name: {"from": list(one.before), "to": list(one.after), "how": one.how}
            for name, one in self.reshaped.items()
        }
        return {
            "source": self.source,
            "weights_sha256": self.sha256,
            "loaded": list(self.loaded),
            "reshaped": reshaped,
            "fresh": list(self.fresh),
            "unused": list(self.unused),
        }


def start_from(
    model: VisionTransformer | MaskedAutoencoder, source: Path | str, *, convert_channels: bool = False
) -> Transfer:
    """Fills a model with the encoder of a pre-trained one, and a masked autoencoder with its decoder, if that is alike.

    All of the encoder must come from there: attention, heads, width and depth are equal, or it is refused. Positions
    that are learned start between the old ones where the grid of patches is another; sines are computed for it, and
    what an attention keeps by place is brought there by its own `regrid`. A head always starts fresh: it belongs to
    its classes. So does a norm behind the pooling, unless the other model has one, too, as in MAE's own fine-tuning.

    Example:
        start_from(create_model("vit_base_patch16_224", global_pool="avg"), "mae_pretrain_vit_base.pth").notes()

    Args:
        model: built, on any device.
        source: a folder that `save_model` wrote, or a file (.pth, .bin, .safetensors) of facebookresearch/mae,
            transformers or timm.
        convert_channels: sums, repeats or cuts the weights that read pixels where the number of channels is another.

    Raises:
        ValueError: something else than a Vision Transformer or a masked autoencoder, or one whose encoder differs.
    """
    found = read_pretrained(source)
    remarks = _checked_alike(model, found)
    state, reshaping = dict(found.state), Reshaping(model, found)
    if isinstance(model, MaskedAutoencoder) and (why := _other_decoder(model, found)):
        state = {key: value for key, value in state.items() if not key.startswith(_DECODER)}
        remarks.append(why)
    reshaping.pixels(state, convert_channels)
    reshaping.positions(state)
    reshaping.layers(state)
    wanted = model.state_dict()
    fresh = [name for name in wanted if name not in state or _starts_fresh(name, wanted[name], state[name])]
    filled = {name: state[name] for name in wanted if name not in fresh}
    _check_complete(found, wanted, state, fresh)
    model.load_state_dict(filled, strict=False)
    return Transfer(
        source=found.source,
        sha256=found.sha256,
        loaded=tuple(name for name in filled if name not in reshaping.reshaped),
        reshaped={name: reshaping.reshaped[name] for name in filled if name in reshaping.reshaped},
        fresh=tuple(fresh),
        unused=tuple(name for name in found.state if name not in filled),
        remarks=tuple(remarks),
    )


def _checked_alike(model: VisionTransformer | MaskedAutoencoder, found: Pretrained) -> list[str]:
    """Refuses an encoder of another make; says what could not be checked."""
    ours = model.config
    for option, theirs in found.known.items():
        skipped = option in _MAY_DIFFER or option == "attention" or option.startswith("decoder_")
        if not skipped and option in ours and ours[option] != theirs:
            raise ValueError(
                f"{found.source} has an encoder of {option}={theirs!r}, and the model is of {option}={ours[option]!r}: "
                "they must be equal"
            )
    if found.config is None:
        heads = f"{ours['num_heads']} heads of {model.attention}"
        return [f"{found.source} tells neither heads nor attention: taken as {heads}"]
    if not _same_attention(model.attention, found.config["attention"], ours["depth"]):
        raise ValueError(
            f"{found.source} was trained with the attention {found.config['attention']}, and the model has "
            f"{model.attention}: they must be equal, options included"
        )
    return []


def _same_attention(ours: str, theirs: str, depth: int) -> bool:
    """Whether every option of every layer agrees; a class that only the file names is not looked at, nor run."""
    named = {layer.name for layer in parse_layers(theirs, depth)}
    if named - set(TABLE) - {layer.name for layer in parse_layers(ours, depth)}:
        return False
    return resolved_text(ours, depth) == resolved_text(theirs, depth)


def _other_decoder(model: MaskedAutoencoder, found: Pretrained) -> str:
    """Why the decoder starts fresh; "" where it does not."""
    theirs, ours = ((one or {}).get("objective", "mae") for one in (found.config, model.config))
    if theirs != ours:
        return f"{found.source} was trained by {theirs}, which has another decoder than {ours}: it starts fresh"
    if ours == "simmim":
        return ""
    if "decoder_embed.weight" not in found.state:
        return f"{found.source} has no decoder: it starts fresh"
    if found.config is None:
        alike = all(
            name in found.state and found.state[name].shape == value.shape
            for name, value in model.state_dict().items()
            if name.startswith("decoder_") and "pos_embed" not in name and "pred" not in name
        )
        return "" if alike else f"{found.source} has another decoder: it starts fresh"
    for option in ("decoder_embed_dim", "decoder_depth", "decoder_num_heads"):
        if found.config[option] != model.config[option]:
            return f"{found.source} has a decoder of {option}={found.config[option]}: it starts fresh"
    theirs = found.config["decoder_attention"]
    if not _same_attention(model.decoder_attention, theirs, model.config["decoder_depth"]):
        return f"{found.source} has a decoder with {theirs}: it starts fresh"
    return ""


def _starts_fresh(name: str, wanted: Tensor, given: Tensor) -> bool:
    """A head belongs to its classes, and what predicts pixels to their number."""
    return name.startswith("head.") or (name.startswith("decoder_pred.") and given.shape != wanted.shape)


def _check_complete(
    found: Pretrained, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: Sequence[str]
) -> None:
    """All of the encoder, and nothing else of an encoder.

    Raises:
        ValueError: a tensor of one that the other has not, or has in another shape.
    """
    for name in [*wanted, *state]:
        if name.startswith(_ENCODER) and (name not in state or name not in wanted):
            has, lacks = ("the model", found.source) if name in wanted else (found.source, "the model")
            raise ValueError(f"{has} has a tensor {name} in its encoder that {lacks} does not have: build it alike")
    for name, value in wanted.items():
        if name not in fresh and state[name].shape != value.shape:
            raise ValueError(
                f"{found.source}: {name} is {_shape(state[name].shape)}, and the model's {_shape(value.shape)}"
            )


def _few(names: Sequence[str]) -> str:
    """The modules of the tensors, each once."""
    modules = dict.fromkeys(name.split(".")[0] for name in names)
    return ", ".join(modules) or "nothing"


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
