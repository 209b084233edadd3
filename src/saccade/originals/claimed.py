"""Claims: what an original published, as the records that the doctor reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from saccade.attention import resolved_text
from saccade.measurement.operations import operations
from saccade.models.sizes import create_model, model_defaults
from saccade.record import Record


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """One model of an original, as far as its text or its code tells of it.

    Attributes:
        model: that has its sizes.
        attention: what it had, in saccade's words; it may be one that saccade refuses.
        beside: options of its attention that all of its rivals have, too.
        options: of the model.
        conditions: on which it was measured.
        accelerator: as the original calls it; None where it does not.
    """

    model: str
    attention: str = "softmax"
    beside: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    accelerator: str | None = None

    @property
    def written(self) -> str:
        """The attention with all options."""
        if not self.beside:
            return self.attention
        name, bracket, options = self.attention.partition("(")
        return f"{name}({options.removesuffix(')') + ', ' if bracket else ''}{self.beside})"

    def record(self, kind: str, values: Mapping[str, Any], *, seed: int | None = None, **conditions: Any) -> Record:
        """A published figure; of a training run with a seed, which is its number where it has not told one."""
        depth = (model_defaults(self.model) | dict(self.options))["depth"]
        return Record(
            kind=kind,
            attention=self.attention,
            attention_resolved=resolved_text(self.written, depth),
            model=self.model,
            model_options=dict(self.options),
            values=values,
            conditions={**self.conditions, **conditions},
            seed=seed,
            machine={} if self.accelerator is None else {"accelerator": self.accelerator},
        )

    def operations(self, *, sizes_only: bool = False) -> Record:
        """Its arithmetic; of an attention that saccade refuses the sizes alone."""
        counted = _counted(self.model, "softmax" if sizes_only else self.written, tuple(self.options.items()))
        if sizes_only:
            counted = {name: counted[name] for name in ("grid", "stacks")}
        return self.record("operations", counted)


@cache
def _counted(model: str, attention: str, options: tuple[tuple[str, Any], ...]) -> Mapping[str, Any]:
    """Several claims are about one model."""
    with torch.device("meta"):
        return operations(create_model(model, attention, **dict(options)))
