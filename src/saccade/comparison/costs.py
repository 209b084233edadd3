"""The costs of a comparison: operations by declaration, peak memory by cell, seconds by round."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from saccade.comparison.question import BASELINE, Entry, Question
from saccade.comparison.store import Store
from saccade.measurement.machine import machine_facts
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.seconds import time_rivals
from saccade.measurement.subject import Subject
from saccade.measurement.terms import Clock
from saccade.measurement.timed import kernels
from saccade.models.sizes import create_model
from saccade.record import Record
from saccade.training.progress import Progress

# What the table shows; a forward pass alone is no user's question.
SHOWN = ("step", "latency", "inference")

# Images of an inference call that is to show the throughput.
GOOD_BATCH = 64

# What must be equal for two timings to stand beside each other.
SAME_MACHINE = ("processor", "cores", "accelerator", "torch", "saccade")


@dataclass(frozen=True)
class Terms:
    """The equal terms of all measurements of one comparison."""

    batch_size: int
    dtype: str
    amp_dtype: str | None
    device: str
    threads: int
    clock: Clock
    repeats: int

    def subject(self, question: Question, entry: Entry) -> Subject:
        """What a measuring worker builds."""
        return Subject(
            model=question.recipe.model.name,
            attention=entry.attention,
            options={**question.recipe.model.options, **entry.changes},
            batch_size=self.batch_size,
            inference_batch=max(GOOD_BATCH, self.batch_size),
            dtype=self.dtype,
            amp_dtype=self.amp_dtype,
            device=self.device,
            threads=self.threads,
            clock=self.clock,
        )

    def conditions(self) -> dict[str, Any]:
        """The terms as a record's conditions name them."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "amp_dtype": self.amp_dtype,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "clock": self.clock,
        }


def kernel_of(question: Question, terms: Terms, entry: Entry) -> str:
    """The kernels of the encoder that run on these terms; "eager" for a mechanism that has no choice."""
    subject = terms.subject(question, entry)
    with torch.device("meta"):
        model = create_model(subject.model, subject.attention, **subject.options)
    return kernels(model, subject)["kernel_run"] or "eager"


def baselines(question: Question, terms: Terms) -> list[Entry]:
    """Softmax by each of its kernels: the same function, timed beside each other."""
    usual = question.entry(BASELINE)
    other = "explicit" if kernel_of(question, terms, usual) == "sdpa" else "sdpa"
    return [usual, question.entry(f'softmax(kernel="{other}")')]


def measure_memory(
    question: Question, terms: Terms, entries: Sequence[Entry], store: Store, jobs: int, progress: Progress
) -> None:
    """Measures the peak of each mechanism that has none on these terms; each is kept the moment it is there.

    A process's own bytes do not depend on its neighbours, so `jobs` are weighed at a time; on an accelerator one.
    """
    missing = [entry for entry in entries if store.named(_memory_cell(entry, terms)) is None]
    if not missing:
        return
    progress.say(f"peak memory of {len(missing)} models, each in a fresh process")
    with ThreadPoolExecutor(jobs if terms.device == "cpu" else 1) as pool:
        weighed = pool.map(lambda entry: measure_peak(terms.subject(question, entry)), missing)
        for entry, record in zip(missing, weighed, strict=True):
            record = _told(record, entry)
            # A failure is shown in this run's answer and tried again in the next one.
            store.add(_memory_cell(entry, terms), record) if record.error is None else store.hold(record)


def measure_seconds(
    question: Question,
    terms: Terms,
    entries: Sequence[Entry],
    store: Store,
    progress: Progress,
) -> None:
    """Times, in one new round with softmax, every mechanism that has no times on these terms."""
    done = [record for record in store.records() if record.kind == "seconds" and enough(record, terms)]
    missing = [entry for entry in entries if not any(measured_alike(record, terms, [entry]) for record in done)]
    if not missing:
        return
    rivals = {entry.key: entry for entry in [*baselines(question, terms), *missing]}
    progress.say(f"timing {len(rivals)} models in turns, each in its own process")
    store.add_round(time_entries(question, terms, list(rivals.values()), SHOWN))


def time_entries(question: Question, terms: Terms, entries: Sequence[Entry], what: Sequence[str]) -> list[Record]:
    """One round, in which these take turns."""
    subjects = [terms.subject(question, entry) for entry in entries]
    records = time_rivals(subjects, repeats=terms.repeats, what=what)
    return [_told(record, entry) for record, entry in zip(records, entries, strict=True)]


def measured_alike(record: Record, terms: Terms, entries: Sequence[Entry]) -> bool:
    """Whether a record holds seconds or bytes of one of these mechanisms, on these terms and this machine."""
    return (
        record.kind in ("memory", "seconds")
        and any(entry.owns(record) for entry in entries)
        and all(record.conditions.get(key) == value for key, value in terms.conditions().items())
        and _machine(record.machine) == _machine(machine_facts())
    )


def enough(record: Record, terms: Terms) -> bool:
    """Whether a timing succeeded with as many repeats as are asked for."""
    return record.error is None and len(record.values["step_seconds"]) >= terms.repeats


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {fact: facts.get(fact) for fact in SAME_MACHINE}


def _told(record: Record, entry: Entry) -> Record:
    """The record with what sets it apart."""
    return replace(record, conditions={**record.conditions, "source": entry.source, **entry.marks})


def _memory_cell(entry: Entry, terms: Terms) -> str:
    asked = [entry.key, entry.source, terms.conditions(), _machine(machine_facts())]
    return f"memory-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]}"
