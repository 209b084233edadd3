"""The named recipes: TOML files beside this module, each with command, machine, minutes and result on top."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saccade.training.recipe import Recipe

_FOLDER = Path(__file__).parent / "named"


@dataclass(frozen=True)
class Named:
    """A recipe of saccade's own.

    Attributes:
        name: what --recipe takes.
        title: what it is for.
        command: how it was run.
        machine: where it was run.
        minutes: how long it took there.
        result: what came out.
        text: the whole file, TOML.
    """

    name: str
    title: str
    command: str
    machine: str
    minutes: str
    result: str
    text: str


def list_recipes() -> list[str]:
    """The names."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def named(name: str) -> Named:
    """What a named recipe says of itself, read without torch.

    Raises:
        ValueError: there is none of that name; the nearest is named.
    """
    if name not in list_recipes():
        near = difflib.get_close_matches(name, list_recipes(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"there is no recipe {name!r}: {hint}known are {', '.join(list_recipes())}, or a TOML file")
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    top = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    said = dict(line.split(": ", 1) for line in top[1:5])
    return Named(name, top[0], said["command"], said["machine"], said["minutes"], said["result"], text)


def named_recipe(name: str, trust_class: Collection[str] = ()) -> Recipe:
    """The recipe of that name, or of a TOML file where `name` ends in .toml.

    Args:
        name: one of `list_recipes()`, or a path.
        trust_class: classes outside saccade's table that a file may name as its attention; their code runs.

    Raises:
        ValueError: no such name or file, a file that is no recipe, or an attention that is not trusted.
    """
    from saccade.training.recipe import recipe_from_toml

    if not name.endswith(".toml"):
        return recipe_from_toml(named(name).text)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--recipe {name}: cannot be read ({error}); `saccade recipes` lists the named ones"
        ) from error
    try:
        recipe = recipe_from_toml(text)
        _check_trusted(recipe, trust_class)
    except ValueError as error:
        raise ValueError(f"--recipe {name}: {error}") from error
    return recipe


def recipe_for(data: str | None, model: str | None, *, pretraining: bool = False) -> str:
    """The name of the recipe for these, where the user names none: the model's image size decides, else the data.

    Args:
        data: as the user wrote it, if so.
        model: as the user wrote it, if so.
        pretraining: whether a masked autoencoder is wanted, where no model says so.

    Raises:
        ValueError: there is no such model.
    """
    from saccade.models.sizes import is_masked_autoencoder, model_defaults

    if model in ("vit", "vitl", "vitx"):
        return "original-004"
    source = Path(data or "digits").name
    if model is None:
        side = 8 if source == "digits" else 32 if source in _SMALL else 224
    else:
        side = model_defaults(model)["img_size"]
    if pretraining if model is None else is_masked_autoencoder(model):
        return "mae-digits" if side <= 8 else "mae-cifar10-micro" if side <= 32 else "mae"
    if side <= 8:
        return "digits"
    if side <= 32:
        return "mnist-micro" if source in _NOT_MIRRORED else "cifar10-micro"
    return "vit"


# Data sets of 28 and 32 pixels, and those whose mirror images mean something else, by the name of set or folder.
_SMALL = ("cifar10", "cifar100", "mnist", "fashion_mnist")
_NOT_MIRRORED = ("digits", "mnist")


def own_classes(recipe: Recipe) -> list[str]:
    """The attentions that a recipe names and that are not in saccade's table."""
    from saccade.attention import TABLE, parse_layers
    from saccade.models.sizes import model_defaults

    options = model_defaults(recipe.model.name) | dict(recipe.model.options)
    layers = list(parse_layers(recipe.model.attention, options["depth"]))
    if options.get("decoder_attention"):
        layers += parse_layers(options["decoder_attention"], options["decoder_depth"])
    return sorted({layer.name for layer in layers} - set(TABLE))


def _check_trusted(recipe: Recipe, trust_class: Collection[str]) -> None:
    """A file must not choose whose code runs."""
    for name in own_classes(recipe):
        if name not in trust_class:
            raise ValueError(
                f"it names the attention {name!r}, whose code is not saccade's; "
                f"where you trust it, add --trust-class {name}"
            )
