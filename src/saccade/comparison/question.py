"""The question of a comparison: one model, recipe, data set and device, and the mechanisms to be told apart."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from saccade.attention import TABLE, attention_class, parse_layers, resolved_text
from saccade.comparison.then import Then
from saccade.models.sizes import model_defaults
from saccade.record import Record
from saccade.training.recipe import Recipe, recipe_to_dict, with_values

BASELINE = "softmax"


@dataclass(frozen=True)
class Entry:
    """One mechanism of a comparison, or a rival: softmax in another model.

    Attributes:
        attention: as its user wrote it.
        attention_resolved: with every option written out.
        source: hash of the files of classes that are not saccade's own: edited, they are other mechanisms.
        scale: the question's.
        rival: what a rival is called.
        rival_of: the mechanism whose cost it meets, by its `attention_resolved`.
        changes: options of a rival's model that are not the question's.
    """

    attention: str
    attention_resolved: str
    source: str = ""
    scale: str = ""
    rival: str = ""
    rival_of: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells it apart at its scale."""
        return self.rival or self.attention_resolved

    @property
    def key(self) -> str:
        """What tells it apart in its folder."""
        return f"{self.name} at {self.scale}" if self.scale else self.name

    @property
    def marks(self) -> dict[str, str]:
        """Conditions that set its records apart; none of a mechanism at the size that was asked for."""
        told = {"rival": self.rival, "scale": self.scale}
        return {name: word for name, word in told.items() if word}

    def owns(self, record: Record) -> bool:
        """Whether a record is of it."""
        told = record.conditions
        theirs = (record.attention_resolved, *(told.get(name, "") for name in ("source", "scale", "rival")))
        return theirs == (self.attention_resolved, self.source, self.scale, self.rival)


@dataclass(frozen=True)
class Question:
    """What all cells of a comparison share; its hash names the default folder.

    Attributes:
        recipe: with the model's data-dependent options (classes, channels) filled in.
        data: facts of the images.
        device: as torch writes it.
        depth: layers of the model; of the encoder, where there is a decoder too.
        then: how an encoder is judged that has been pre-trained; None for a classifier.
        scale: what the model's size is called where everything is repeated at another one; "" as it was asked for.
    """

    recipe: Recipe
    data: Mapping[str, Any]
    device: str
    depth: int
    then: Then | None = None
    scale: str = ""

    @property
    def decoder_attention(self) -> str | None:
        """That of the decoder in all rows; None where it follows the encoder's, or there is no decoder."""
        return self.recipe.model.options.get("decoder_attention")

    def entry(self, attention: str) -> Entry:
        """The mechanism, or why there is no such."""
        source = source_hash(attention, self.depth)
        if self.decoder_attention is not None:
            depth = (model_defaults(self.recipe.model.name) | dict(self.recipe.model.options))["decoder_depth"]
            source += source_hash(self.decoder_attention, depth)
        return Entry(attention, resolved_text(attention, self.depth), source, self.scale)

    def rival(self, name: str, of: Entry, changes: Mapping[str, Any]) -> Entry:
        """Softmax in another model than the question's, of the cost of a mechanism."""
        return replace(self.entry(BASELINE), rival=name, rival_of=of.attention_resolved, changes=changes)

    def epochs(self, what: Literal["training", "tuning"]) -> int:
        """Those of all runs of a cell; where it is not for tuning, fine-tuning is done from the start, too."""
        after = 0 if self.then is None else self.then.epochs
        return self.recipe.train.epochs + after * (2 if what == "training" else 1)

    def entries(self, attentions: Sequence[str], note: Callable[[str], None]) -> list[Entry]:
        """Softmax first, then each mechanism once."""
        wanted = [self.entry(attention.strip()) for attention in attentions]
        baseline = self.entry(BASELINE)
        if all(entry.attention_resolved != baseline.attention_resolved for entry in wanted):
            note("softmax is added: everything is compared with it")
        unique = {baseline.attention_resolved: baseline}
        for entry in wanted:
            first = unique.setdefault(entry.attention_resolved, entry)
            if first is not entry and first.attention != entry.attention:
                note(f"{entry.attention} is {first.attention} written otherwise: it gets no second row")
        return list(unique.values())

    def example(self) -> Record:
        """A record of this question's training, for others to be held against."""
        recipe = recipe_to_dict(self.recipe)
        return Record(
            kind="tuning",
            attention=BASELINE,
            attention_resolved=self.entry(BASELINE).attention_resolved,
            model=self.recipe.model.name,
            model_options=recipe["model"]["options"],
            data=self.data,
            recipe=recipe,
            conditions={**self.entry(BASELINE).marks, **({} if self.then is None else {"then": self.then.plain()})},
        )

    @property
    def key(self) -> str:
        """Eight digits that stand for everything but mechanisms, rivals, scales, seeds and the number of rates."""
        recipe = recipe_to_dict(with_values(self.recipe, {"model.attention": BASELINE, "train.seed": 0}))
        recipe["train"].pop("logging_step", None)
        told = [recipe, self.data["fingerprint"], self.device.split(":")[0]]
        if self.then is not None:
            told.append(self.then.plain())
        asked = json.dumps(told, sort_keys=True, default=str)
        return hashlib.sha256(asked.encode()).hexdigest()[:8]

    def default_folder(self) -> Path:
        """runs/compare-<data>-<model>-<key>."""
        data = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.recipe.data.name).name).strip("-") or "data"
        return Path("runs") / f"compare-{data}-{self.recipe.model.name}-{self.key}"


def source_hash(attention: str, depth: int) -> str:
    """Hash of the files that hold the classes outside the table; empty where there are none."""
    foreign = sorted({written.name for written in parse_layers(attention, depth)} - set(TABLE))
    files = [Path(inspect.getfile(attention_class(name))).read_bytes() for name in foreign]
    return hashlib.sha256(b"".join(files)).hexdigest()[:12] if files else ""
