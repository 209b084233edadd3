"""A clock that is told what it shows, so that rivals are chosen without timing anything."""

import json
from functools import cache

import torch

from saccade.measurement.machine import machine_facts
from saccade.models.sizes import create_model
from saccade.record import Record


class Clock:
    """Steps that are told and not measured: of a model by its declared operations, of a mechanism by its name."""

    def __init__(self, steps, of_share=lambda share: share):
        self.steps = steps
        self.of_share = of_share
        self.rounds = []
        self.machine = machine_facts()

    def __call__(self, question, terms, entries, what):
        self.rounds.append([entry.rival or entry.attention for entry in entries])
        return [self._record(question, terms, entry) for entry in entries]

    def _record(self, question, terms, entry):
        subject = terms.subject(question, entry)
        share = flops(subject.model, json.dumps(dict(subject.options)))
        share /= flops(subject.model, json.dumps(dict(question.recipe.model.options)))
        step = self.steps.get(entry.rival or entry.attention, self.of_share(share))
        return Record(
            kind="seconds",
            **subject.about(),
            values={} if step is None else {"step_seconds": [step] * terms.repeats},
            conditions={**terms.conditions(), "source": entry.source, **entry.marks},
            machine=self.machine,
            error="failed" if step is None else None,
        )


@cache
def flops(name, options):
    with torch.device("meta"):
        return sum(create_model(name, "softmax", **json.loads(options)).flops().values())
