"""Layer: one attention at one size, its core alone, whole, or within a block, as a measuring process builds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.attention import attention_class, build, parse, resolve
from saccade.attention.base import Attention, MultiHead
from saccade.attention.initial import seeded
from saccade.attention.made import Made
from saccade.attention.tokens import Tokens
from saccade.attention.written import Written
from saccade.measurement.benching.entrant import PROCESS_BYTES, Served, Weighed
from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.memory.predict import predicted_bytes
from saccade.measurement.terms import DTYPES, Terms, require_positive
from saccade.measurement.timed import ChoosesKernel
from saccade.models.block import Block
from saccade.record import Record

WHAT = ("core", "layer", "block")
"""The mixing of given queries, keys and values; the whole layer, projections included; and the block around it: norms,
attention, MLP, shortcuts."""

MLP_RATIO = 4.0


@dataclass(frozen=True, kw_only=True)
class LayerSubject:
    """One attention at one size, on these terms.

    Attributes:
        attention: its written form; where it names no option and the defaults are refused at this size, the class's
            `options_for` fills in.
        dim: width D of a token.
        num_heads: heads H.
        grid: rows and columns of patches, all of them visible.
        prefix: tokens in front of them.
        block: what its block is made of, `mlp_ratio` and the options of `Block`; the others are as they are there.
        terms: what rivals share.

    Raises:
        ValueError: no such attention or option, a number below 1, or heads that do not divide the width.
    """

    attention: str
    dim: int
    num_heads: int
    grid: tuple[int, int]
    prefix: int = 0
    block: Mapping[str, Any] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)

    acts: ClassVar[tuple[str, ...]] = ("forward", "forward_backward")

    def __post_init__(self) -> None:
        require_positive(dim=self.dim, heads=self.num_heads)
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads on width {self.dim}: the number of heads must divide the width")
        self.tokens  # noqa: B018
        resolve(parse(self.attention))

    @property
    def tokens(self) -> Tokens:
        """What the layer is built for."""
        return Tokens(self.grid, self.prefix)

    @cached_property
    def written(self) -> Written:
        """The attention with the options that are used."""
        asked = parse(self.attention)
        chosen = Made(asked, self.dim, self.num_heads).options(self.tokens, self.tokens.patches)
        return Written(asked.name, tuple(sorted(chosen.items())))

    @property
    def what(self) -> tuple[str, ...]:
        """Those of `WHAT` that it has."""
        return tuple(what for what in WHAT if self.lacks(what) is None)

    def lacks(self, what: str) -> str | None:
        """Why there is no such thing of it; None where there is."""
        if what == "core" and not issubclass(attention_class(self.written.name), MultiHead):
            return "no core: it does not mix queries, keys and values of heads between projections"
        if what == "block" and self.block.get("reversible"):
            return "no block: reversible blocks are steps of two streams, which a block alone does not have"
        return None

    def refusal(self) -> str | None:
        """Why it makes no sense at this size; None where it does."""
        try:
            with torch.device("meta"):
                build(self.written, self.dim, self.num_heads, self.tokens)
        except ValueError as error:
            return str(error)
        return None

    def built(self) -> Attention:
        """The layer on its device, in the dtype of the weights; its weights are those of every process.

        Raises:
            ValueError: it makes no sense at this size.
        """
        made = build(self.written, self.dim, self.num_heads, self.tokens)
        made.reset_parameters(seeded(0))
        return made.to(self.terms.device, DTYPES[self.terms.dtype])

    def module(self, what: str) -> nn.Module:
        """What is called: the layer, its core alone or a block around it; with checkpointing, run again by backward."""
        made = self._module(what)
        return Recomputed(made) if self.terms.checkpointing else made

    def shapes(self, what: str) -> list[tuple[int, ...]]:
        """Of its inputs, with which the output shares the first."""
        batch, count = self.terms.batch_size, self.tokens.count
        if what != "core":
            return [(batch, count, self.dim)]
        return [(batch, self.num_heads, count, self.dim // self.num_heads)] * 3

    def dtype(self, what: str) -> torch.dtype:
        """Of its inputs: under autocast a core is given what projections put out there."""
        return self.terms.mixing_dtype if what == "core" else DTYPES[self.terms.dtype]

    def needed_bytes(self, what: str) -> int | None:
        """Predicted for forward and backward, inputs included; None where that cannot be told.

        Raises:
            ValueError: it makes no sense at this size.
        """
        peak = predicted_bytes(self.module(what), self.shapes(what), self.dtype(what), self.terms)
        return None if peak is None else peak + self.input_bytes(what)

    def resting_bytes(self, what: str) -> int:
        """What its process holds between its turns; weights are few beside the rest."""
        return PROCESS_BYTES + self.input_bytes(what)

    def input_bytes(self, what: str) -> int:
        """Of its inputs and of the gradient of its output."""
        shapes = self.shapes(what)
        return sum(torch.Size(shape).numel() for shape in [*shapes, shapes[0]]) * self.dtype(what).itemsize

    def declared(self) -> Record | None:
        """A layer or block is no model."""
        return None

    def timed(self, what: Sequence[str]) -> Served:
        """What lives in its timing process."""
        return Served(
            "saccade.measurement.benching.layer_worker:timed_layer", {"subject": asdict(self), "what": list(what)}
        )

    def weigh(self, what: str, patience_seconds: float) -> Weighed:
        """The peak of forward and backward, in a fresh process."""
        with Worker(
            "saccade.measurement.benching.layer_worker:LayerPeak",
            {"subject": asdict(self), "what": what},
            threads=self.terms.threads,
            patience_seconds=patience_seconds,
        ) as worker:
            process = {"process": worker.process}
            try:
                worker.ready()
                return Weighed(worker.ask("measure"), {**worker.ask("facts"), **process})
            except WorkerFailed as failed:
                return Weighed(conditions=process, error=str(failed))

    def act_prefix(self, what: str) -> str:
        """One process answers for all kinds of calls."""
        return f"{what}_"

    def conditions(self, what: str) -> dict[str, Any]:
        """The terms and the size, as a record names them."""
        return {
            **self.terms.conditions(),
            "what": what,
            "tokens": self.tokens.count,
            "grid": list(self.grid),
            "prefix": self.prefix,
            "width": self.dim,
            "heads": self.num_heads,
            "head_width": self.dim // self.num_heads,
            "options_chosen": self.written != parse(self.attention),
        }

    def about(self, what: str) -> dict[str, Any]:
        """The fields of a record that say what was measured; there is no model but the layer or the block."""
        options = {"dim": self.dim, "num_heads": self.num_heads, "grid": list(self.grid)}
        return {
            "attention": self.attention,
            "attention_resolved": str(resolve(self.written)),
            "model": what,
            "model_options": {**options, **({"mlp_ratio": MLP_RATIO} | dict(self.block) if what == "block" else {})},
        }

    def _module(self, what: str) -> nn.Module:
        made = self.built()
        if what == "layer":
            return made
        if what == "block":
            options = dict(self.block)
            hidden = int(self.dim * options.pop("mlp_ratio", MLP_RATIO))
            block = Block(made, hidden, **options)
            block.reset_parameters(seeded(0))
            return block.to(self.terms.device, DTYPES[self.terms.dtype])
        assert isinstance(made, MultiHead)
        return Core(made)


def subject_from(plain: Mapping[str, Any]) -> LayerSubject:
    """The subject that `asdict` and JSON have made plain."""
    return LayerSubject(**{**plain, "grid": tuple(plain["grid"]), "terms": Terms(**plain["terms"])})


class Core(nn.Module):
    """What a layer does between its projections."""

    def __init__(self, layer: MultiHead) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, q: Float[Tensor, "b h n e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
    ) -> Float[Tensor, "b h n e"]:
        """`mix` on the whole grid."""
        return self.layer.mix(q, k, v, None)


class Recomputed(nn.Module):
    """A module that keeps only its inputs for the backward pass, and runs again in it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The module's output."""
        return checkpoint(self.module, *inputs, use_reentrant=False)


def kernel(subject: LayerSubject) -> dict[str, str | None]:
    """The kernel that was asked for and the one that runs; "eager" without a choice."""
    made = subject.built()
    if not isinstance(made, ChoosesKernel):
        return {"kernel_asked": None, "kernel_run": "eager"}
    device = torch.device(subject.terms.device)
    return {"kernel_asked": made.kernel, "kernel_run": made.kernel_for(subject.terms.mixing_dtype, device)}
