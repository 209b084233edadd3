"""The recipe: everything that decides what a training run computes, as frozen dataclasses that read and write TOML."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from saccade.data.augment import Augment
from saccade.training.checked import Within, check_fields, from_plain, setting_names, to_plain, unknown
from saccade.training.toml import write_toml


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """What is trained.

    Attributes:
        name: one of `saccade models`.
        attention: its written form, as in "nystrom(landmarks=16)".
        options: overrides of the model, as given to create_model; classes and channels come from the data.
        checkpoint: pre-trained model whose encoder it starts from: a folder of a saved model, or a file of weights of
            facebookresearch/mae, transformers or timm; None starts from nothing.
        checkpoint_sha256: of those weights, written out with the run; other weights are then refused.
        convert_channels: sums, repeats or cuts the weights that read pixels where the checkpoint's channels are others.
    """

    name: str = "vit_nano_patch1_8"
    attention: str = "softmax"
    options: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    convert_channels: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "model")
        if self.checkpoint is None and (self.convert_channels or self.checkpoint_sha256 is not None):
            raise ValueError(
                "model.convert_channels and model.checkpoint_sha256 say how model.checkpoint is taken, "
                "and none is given: give one, or leave them out"
            )


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What it is trained on.

    Attributes:
        name: a known name or a path, as given to load_data.
        crop_pct: share of the shorter side that is kept when pictures are decoded.
        in_chans: channels to convert pictures to; None keeps what the data has.
        on_bad_image: whether a picture that cannot be read ends the run or is skipped and counted.
        limit: how many training images are used; None uses all.
    """

    name: str = "digits"
    crop_pct: Annotated[float, Within(0, 1, above=True)] = 1.0
    in_chans: Annotated[int, Within(1)] | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    limit: Annotated[int, Within(1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "data")


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """How it is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        lr: highest learning rate of the schedule.
        schedule: "cosine" falls to `min_lr` at the last step, "constant" stays at `lr`.
        warmup_share: share of all steps in which the rate rises from 0 to `lr`, so that a shorter run warms up less.
        min_lr: learning rate that the cosine ends at.
        weight_decay: AdamW's, on matrices only.
        betas: AdamW's.
        layer_decay: rate of each block over that of the next, the head's at the top; 1 trains all at one rate. As in
            fine-tuning of BEiT and MAE (Clark et al. 2020, https://arxiv.org/abs/2003.10555).
        clip_grad: longest gradient; a longer one is scaled down to it, and 0 turns that off.
        label_smoothing: share of the target that is spread over all classes.
        dtype: of the weights; "bf16" keeps a float32 master copy in the optimiser.
        amp_dtype: "bf16" runs float32 weights under autocast.
        seed: of initial weights, order, augmentation, stochastic depth and dropout.
        logging_step: steps between two lines of the log.
    """

    epochs: Annotated[int, Within(1)] = 10
    batch_size: Annotated[int, Within(1)] = 128
    lr: Annotated[float, Within(0, above=True)] = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_share: Annotated[float, Within(0, 1)] = 0.05
    min_lr: Annotated[float, Within(0)] = 0.0
    weight_decay: Annotated[float, Within(0)] = 0.05
    betas: Annotated[tuple[float, float], Within(0, 0.999999)] = (0.9, 0.999)
    layer_decay: Annotated[float, Within(0, 1, above=True)] = 1.0
    clip_grad: Annotated[float, Within(0)] = 1.0
    label_smoothing: Annotated[float, Within(0, 0.99)] = 0.0
    dtype: Literal["fp32", "bf16"] = "fp32"
    amp_dtype: Literal["bf16"] | None = None
    seed: Annotated[int, Within(0, 2**53)] = 0
    logging_step: Annotated[int, Within(1)] = 50

    def __post_init__(self) -> None:
        check_fields(self, "train")
        if self.min_lr > self.lr:
            raise ValueError(f"train.min_lr = {self.min_lr:g}: must be at most train.lr, which is {self.lr:g}")
        if self.dtype == "bf16" and self.amp_dtype is not None:
            raise ValueError(
                "train.dtype = 'bf16' with train.amp_dtype = 'bf16': autocast has nothing to cast; give one of the two"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Model, data, augmentation and training of one run."""

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: Augment = field(default_factory=Augment)
    train: TrainRecipe = field(default_factory=TrainRecipe)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as tables of JSON's types."""
    return to_plain(recipe)


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Reads what `recipe_to_dict` wrote, or a part of it: the rest keeps its defaults.

    Raises:
        ValueError: an unknown setting, a wrong type, a value out of its range.
    """
    return from_plain(Recipe, values)


def recipe_to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; what is None is left out."""
    return write_toml(recipe_to_dict(recipe))


def recipe_from_toml(text: str) -> Recipe:
    """Reads a recipe, or a part of one: the rest keeps its defaults.

    Raises:
        ValueError: no TOML, an unknown setting, a wrong type, a value out of its range.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"the recipe is no TOML: {error}") from error
    return recipe_from_dict(values)


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values, by dotted name, as in {"train.lr": 3e-4, "model.options.depth": 6}.

    Raises:
        ValueError: an unknown setting, a wrong type, a value out of its range.
    """
    table = recipe_to_dict(recipe)
    for name, value in values.items():
        *path, last = name.split(".")
        inner = table
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise unknown(name, setting_names(Recipe))
        if not path and name not in table:
            raise unknown(name, setting_names(Recipe))
        inner[last] = to_plain(value)
    return recipe_from_dict(table)


def differences(one: Recipe, other: Recipe) -> list[str]:
    """What two recipes do not share, a sentence each: "train.lr is 0.003 there and 0.001 here"."""
    there, here = _flat(recipe_to_dict(one)), _flat(recipe_to_dict(other))
    return [
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Values by dotted name from what a user writes: "train.lr=3e-4", "model.attention=linear", "augment.flip=0".

    Raises:
        ValueError: no name=value.
    """
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write name=value, as in train.lr=3e-4")
        values[name.strip()] = _value(text.strip())
    return values


def _flat(table: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """The values by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{at}{name}.") if isinstance(value, Mapping) else {f"{at}{name}": value}
    return flat


def _value(text: str) -> Any:
    """A value of TOML or of Python; anything else is a word, which needs no quotes."""
    for read in (lambda text: tomllib.loads(f"x = {text}")["x"], ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text
