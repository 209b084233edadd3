"""Groups: what a bench sets beside each other, by size and terms, from what its user asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from saccade.measurement.benching import layer, whole
from saccade.measurement.benching.layer import LayerSubject
from saccade.measurement.benching.layers import layer_subjects, square
from saccade.measurement.benching.rounds import Group
from saccade.measurement.benching.whole import planned, rivals_beside, whole_subjects
from saccade.measurement.subject import Subject
from saccade.measurement.terms import Terms
from saccade.measurement.work import work_of
from saccade.models.options import rows_and_columns
from saccade.models.sizes import model_defaults

WHAT = (*layer.WHAT, *whole.WHAT)
TOKENS = (196, 784, 3136)
DIM, HEADS, PREFIX = 512, 8, 0

Size = int | Sequence[int]

# The options of a model that its blocks have; masked autoencoders have no layer scale.
BLOCK = ("mlp_ratio", "mlp_layer", "init_values", "reversible")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a bench is asked for.

    Attributes:
        attentions: as their user wrote them.
        what: of `WHAT`.
        terms: each gives groups of its own.
        model: whose layers, blocks or self are measured; None for layers of `dim`, `heads` and `prefix`.
        options: of the model.
        tokens: numbers of patches, each of a square grid.
        img_size: of the model, instead.
        patch_size: of the model.
        dim: width of a token, without a model.
        heads: into which it is divided, without a model.
        prefix: tokens in front of the patches, without a model.
        rivals: whether softmax in cheaper models takes part, where models do.

    Raises:
        ValueError: what contradicts itself, or a model or size that is none.
    """

    attentions: Sequence[str]
    what: Sequence[str]
    terms: Sequence[Terms]
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tokens: Sequence[int] = ()
    img_size: Sequence[Size] = ()
    patch_size: Sequence[Size] = ()
    dim: int | None = None
    heads: int | None = None
    prefix: int | None = None
    rivals: bool = False

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("at least one batch size and one dtype are needed, as 4 and fp32")
        if not self.what or set(self.what) - set(WHAT):
            raise ValueError(f"what={list(self.what)}: must be any of {', '.join(WHAT)}")
        given = [name for name in ("options", "img_size", "patch_size") if getattr(self, name)]
        if self.model is None and (given or set(self.what) & set(whole.WHAT)):
            told = " and ".join(given) or "what=['model']"
            raise ValueError(f"{told} without a model: name one, as vit_small_patch16_224 (--model)")
        sizes = [name for name in ("dim", "heads", "prefix") if getattr(self, name) is not None]
        if self.model is not None and sizes:
            raise ValueError(f"{' and '.join(sizes)} with model={self.model!r}, which has its own: leave one out")
        if self.rivals and "model" not in self.what:
            raise ValueError("rivals are whole models: ask for what=['model'], too (--what model --model NAME)")
        if self.tokens and self.img_size:
            raise ValueError("tokens and img_size: at a patch size the one says the other; give one of the two")
        if len(self.patch_size) > 1 and len(self.tokens or self.img_size) > 1:
            raise ValueError(
                "several sizes of patches and several of images: what grows would be two things; give one of either"
            )

    def groups(self) -> list[Group]:
        """For each of the terms, the sizes ascending; layers and blocks of a size, then the model."""
        parts = tuple(what for what in layer.WHAT if what in self.what)
        found = []
        for terms in self.terms:
            for size in self._sizes():
                if parts:
                    found.append(Group(layer_subjects(self.attentions, replace(size.layer, terms=terms)), parts))
                if size.model is not None and "model" in self.what:
                    subject = _subject(size.model, terms)
                    models = whole_subjects(self.attentions, subject)
                    rivals = rivals_beside(models, subject) if self.rivals else []
                    found.append(Group([*models, *rivals], whole.WHAT))
        return found

    def _sizes(self) -> list[_Size]:
        if self.model is None:
            return self._layer_sizes()
        options = sized(
            self.model, self.options, tokens=self.tokens, img_size=self.img_size, patch_size=self.patch_size
        )
        found = [_Size.of(self.model, each) for each in options]
        # One of them for each number of tokens.
        unique = {size.layer.tokens.count: size for size in found}
        return [unique[count] for count in sorted(unique)]

    def _layer_sizes(self) -> list[_Size]:
        grids = sorted({square(patches) for patches in self.tokens or TOKENS})
        base = LayerSubject(
            attention="softmax",
            dim=DIM if self.dim is None else self.dim,
            num_heads=HEADS if self.heads is None else self.heads,
            grid=grids[0],
            prefix=PREFIX if self.prefix is None else self.prefix,
        )
        return [_Size(replace(base, grid=grid)) for grid in grids]


@dataclass(frozen=True)
class _Size:
    """A layer of this size, and the model that has it."""

    layer: LayerSubject
    model: Subject | None = None

    @classmethod
    def of(cls, model: str, options: Mapping[str, Any]) -> _Size:
        """The encoder's layers, and the block around them, on all patches."""
        made = planned(model, options)
        encoder, config = work_of(made).stacks[0], made.config
        block: dict[str, Any] = {name: config[name] for name in BLOCK if name in config}
        inner = LayerSubject(
            attention="softmax",
            dim=encoder.width,
            num_heads=encoder.heads,
            grid=encoder.tokens.grid,
            prefix=encoder.tokens.prefix,
            block={**block, "style": config["block"]},
        )
        return cls(inner, Subject(model=model, options=options))


def sized(
    model: str,
    options: Mapping[str, Any],
    *,
    tokens: Sequence[int] = (),
    img_size: Sequence[Size] = (),
    patch_size: Sequence[Size] = (),
) -> list[dict[str, Any]]:
    """The options of a model at each of several sizes.

    Args:
        model: its name.
        options: at every size.
        tokens: numbers of patches; the images are as large as that takes.
        img_size: of the images.
        patch_size: of the patches.

    Raises:
        ValueError: no such model, or a number that is no square.
    """
    usual = model_defaults(model) | dict(options)
    found = []
    for patch in patch_size or (usual["patch_size"],):
        own = {"patch_size": patch} if patch_size else {}
        sides: Iterable[Mapping[str, Any]] = [{"img_size": size} for size in img_size] or [{}]
        if tokens:
            sides = [{"img_size": _image(square(patches), patch)} for patches in tokens]
        found += [{**options, **own, **side} for side in sides]
    return found


def _image(grid: tuple[int, int], patch: Size) -> Size:
    """The image that such patches cut into such a grid."""
    rows, columns = (cells * side for cells, side in zip(grid, rows_and_columns("patch_size", patch), strict=True))
    return rows if rows == columns else [rows, columns]


def _subject(size: Subject, terms: Terms) -> Subject:
    return replace(size, inference_batch=terms.batch_size, **asdict(terms))
