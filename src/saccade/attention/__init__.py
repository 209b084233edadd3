"""The attention mechanisms: the table of names, and `build`, which makes a layer from its written form."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from saccade.attention.tokens import Tokens
from saccade.attention.written import Written, parse, parse_layers, write_layers

if TYPE_CHECKING:
    from saccade.attention.base import Attention

TABLE = {
    "softmax": "saccade.attention.softmax:Softmax",
    "linear": "saccade.attention.linear:Linear",
    "efficient": "saccade.attention.efficient:Efficient",
    "focused": "saccade.attention.focused:Focused",
    "hydra": "saccade.attention.hydra:Hydra",
    "performer": "saccade.attention.performer:Performer",
    "cosformer": "saccade.attention.cosformer:CosFormer",
    "linformer": "saccade.attention.linformer:Linformer",
    "nystrom": "saccade.attention.nystrom:Nystrom",
    "orthoformer": "saccade.attention.orthoformer:Orthoformer",
    "fourier": "saccade.attention.fourier:Fourier",
    "lambda": "saccade.attention.lambda_layer:Lambda",
    "xca": "saccade.attention.xca:XCA",
    "local": "saccade.attention.local:Local",
    "window": "saccade.attention.window:Window",
    "axial": "saccade.attention.axial:Axial",
    "dilated": "saccade.attention.dilated:Dilated",
    "global": "saccade.attention.global_tokens:Global",
    "random": "saccade.attention.random_pairs:Random",
    "block_sparse": "saccade.attention.block_sparse:BlockSparse",
    "pooling": "saccade.attention.pooling:Pooling",
    "visual": "saccade.attention.visual:Visual",
    "compositional": "saccade.attention.compositional:Compositional",
    "differential": "saccade.attention.differential:Differential",
    "synthesizer": "saccade.attention.synthesizer:Synthesizer",
    "agent": "saccade.attention.agent:Agent",
    "pattern": "saccade.attention.pattern:Pattern",
}

# What every layer is told by its model, and no user writes.
_GIVEN = {"self", "dim", "num_heads", "tokens", "layer"}


def list_attentions() -> list[str]:
    """The names of the mechanisms that saccade brings."""
    return list(TABLE)


def attention_class(name: str) -> type[Attention]:
    """The class behind a name of the table, `my.module:Mine`, or `path/to/file.py:Mine`.

    Raises:
        ValueError: no such name, module or class, or a class that is no Attention or lacks a method.
    """
    place = TABLE.get(name, name)
    if ":" not in place:
        near = difflib.get_close_matches(name, TABLE, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"there is no attention {name!r}: {hint}known are {', '.join(TABLE)}, or your own class as my.module:Mine"
        )
    module_name, _, class_name = place.rpartition(":")
    module = _module(module_name, name)
    from saccade.attention.base import Attention

    mechanisms = {
        own.__name__: own
        for own in vars(module).values()
        if isinstance(own, type) and issubclass(own, Attention) and own.__module__ == module.__name__
    }
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Attention)):
        raise ValueError(
            f"{name!r}: {class_name!r} is no subclass of saccade.attention.base.Attention in {module_name!r}, "
            f"whose subclasses are: {', '.join(mechanisms) or 'none'}"
        )
    if lacking := sorted(found.__abstractmethods__):
        raise ValueError(
            f"{name!r}: {class_name} has no {', '.join(lacking)}; saccade.attention.base says what each must be"
        )
    return found


def options_of(cls: type[Attention]) -> dict[str, object]:
    """Every option that the class takes, with its default; `inspect.Parameter.empty` where it has none."""
    options: dict[str, object] = {}
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
        for parameter in parameters:
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _GIVEN:
                options.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return dict(sorted(options.items()))


def resolve(written: Written) -> Written:
    """The same attention with every option written out, defaults included.

    Raises:
        ValueError: an unknown name or option, one that must be given and is not, or no truth value where one belongs.
    """
    cls = attention_class(written.name)
    known = options_of(cls)
    for key in dict(written.options):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            allowed = f"its options are {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"{written}: {written.name} has no option {key!r}: {hint}{allowed}")
    for key, value in written.options:
        if isinstance(known[key], bool) and not isinstance(value, bool):
            raise ValueError(f"{written}: {key} must be True or False, not {value!r}")
    options = {**known, **dict(written.options)}
    if missing := [key for key, value in options.items() if value is inspect.Parameter.empty]:
        raise ValueError(f"{written}: {written.name} needs the option {missing[0]}, which has no default")
    return Written(written.name, tuple(sorted(options.items())))


def build(
    attention: str | Written, dim: int, num_heads: int, tokens: Tokens, *, layer: int = 0, patches: int | None = None
) -> Attention:
    """Builds one layer from its written form, or refuses.

    Args:
        attention: a name with options, as in "nystrom(landmarks=16)".
        dim: width D of a token.
        num_heads: heads H.
        tokens: prefix and whole grid.
        layer: index of the layer in its model.
        patches: how many patches the layer will see at a time, where not the whole grid.

    Raises:
        ValueError: an unknown name or option, or a layer that makes no sense at this size.
    """
    written = parse(attention) if isinstance(attention, str) else attention
    resolve(written)
    try:
        made = attention_class(written.name)(dim, num_heads, tokens, layer=layer, **dict(written.options))
    except TypeError as error:
        raise ValueError(f"{written}: {error}") from error
    seen = tokens.patches if patches is None else patches
    if reason := made.refusal(seen):
        raise ValueError(reason + _advice(made, written, seen))
    return made


def _advice(refused: Attention, written: Written, patches: int) -> str:
    """Options that fit where a name alone was refused, for its user to write."""
    options = {} if written.options else type(refused).options_for(refused.tokens, patches)
    if not options:
        return ""
    fit = type(refused)(refused.dim, refused.num_heads, refused.tokens, layer=refused.layer, **options)
    return "" if fit.refusal(patches) else f"; at this size {Written(written.name, tuple(options.items()))} fits"


def fitting(name: str, dim: int, num_heads: int, tokens: Tokens, *, patches: int | None = None) -> str:
    """The mechanism of that name as it makes sense at this size: by its defaults, or by the options it proposes.

    Args:
        name: of the table, or a class of one's own.
        dim: width D of a token.
        num_heads: heads H.
        tokens: prefix and whole grid.
        patches: how many patches the layer will see at a time, where not the whole grid.

    Raises:
        ValueError: its proposed options are refused, too.
    """
    cls, seen = attention_class(name), tokens.patches if patches is None else patches
    if cls(dim, num_heads, tokens).refusal(seen) is None:
        return name
    proposed = Written(name, tuple(sorted(cls.options_for(tokens, seen).items())))
    build(proposed, dim, num_heads, tokens, patches=seen)
    return str(proposed)


def resolved_text(attention: str, depth: int) -> str:
    """Every option of every layer, defaults included, as one text: what tells two attentions apart."""
    return write_layers(tuple(resolve(written) for written in parse_layers(attention, depth)))


def _module(module_name: str, asked: str) -> ModuleType:
    if module_name == "__main__":
        raise ValueError(
            f"{asked!r}: a class in __main__ cannot be found by other processes; put it into a file of its own"
        )
    if module_name.endswith(".py"):
        return _module_of_file(Path(module_name), asked)
    if not all(name.isidentifier() for name in module_name.split(".")):
        raise ValueError(f"{asked!r}: {module_name!r} is no module: write my.module:Mine or path/to/file.py:Mine")
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the user's own one misses is no wrong name: its traceback says more.
        if f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{asked!r}: there is no module {module_name!r} in {here} or among the installed ones"
            ) from error
        raise


def _module_of_file(path: Path, asked: str) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{asked!r}: there is no file {path}")
    name = f"saccade_file_{path.resolve().as_posix().replace('/', '_').removesuffix('.py')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            del sys.modules[name]
            raise ValueError(f"{asked!r}: {path}, line {error.lineno}: {error.msg}") from error
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


__all__ = [
    "TABLE",
    "Tokens",
    "Written",
    "attention_class",
    "build",
    "fitting",
    "list_attentions",
    "options_of",
    "parse",
    "parse_layers",
    "resolve",
    "resolved_text",
    "write_layers",
]
