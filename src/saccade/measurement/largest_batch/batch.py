"""Batch: the largest batch of each attention within a budget of memory, predicted without a run, confirmed by runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from saccade.attention import list_attentions
from saccade.measurement.isolate import PATIENCE_SECONDS
from saccade.measurement.largest_batch.budget import Budget, budget_of, gigabytes
from saccade.measurement.largest_batch.foretelling import Foretellers, Foretold, Question
from saccade.measurement.largest_batch.trying import Trials, Tried, attempts, find_by_trying
from saccade.measurement.machine import cores, machine_facts
from saccade.measurement.subject import Subject, subject_of
from saccade.measurement.work import Model
from saccade.models.sizes import create_model
from saccade.record import Record
from saccade.training.progress import Progress, Silent

BASELINE = "softmax"

KINDS = {"training": "", "inference": "inference_"}
"""What a batch is for, and how the names of its values begin."""

Heard = Callable[[str, str, Tried], None]
"""Is told of each try: the attention, the kind, and how it went."""


def max_batch(
    attentions: Sequence[str] = (),
    *,
    model: str | Model,
    memory: str | None = None,
    for_gpu: str | None = None,
    training: bool = True,
    inference: bool = True,
    margin: float = 0.0,
    confirm: bool = False,
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    checkpointing: bool = False,
    device: str = "auto",
    threads: int | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
    progress: Progress | None = None,
    heard: Heard = lambda attention, kind, tried: None,
    finished: Callable[[list[Record]], None] = lambda records: None,
    **options: Any,
) -> list[Record]:
    """Says how many images each attention can train on, and answer for, at a time; no model is run unless asked for.

    On a CPU the smallest model is, on one image, for what each attention leaves in a process. Softmax is always in. A
    training step is saccade's own, with AdamW and its moments.

    Example:
        saccade.max_batch(["linear", "nystrom(landmarks=16)"], model="vit_small_patch16_224", memory="24GB")

    Args:
        attentions: their written forms; none means all of `list_attentions()`.
        model: a name of `list_models()`, or a model that create_model made.
        memory: with its unit, as in "24GB" (10^9 bytes) or "24GiB" (2^30); None for what is free. On a CPU it is what
            the process has resident, the interpreter and torch included; on a GPU that of the card.
        for_gpu: a GPU that need not be there, as in "a100-40gb".
        training: find the largest batch of a training step.
        inference: find the largest batch of a forward pass in eval mode.
        margin: share of the memory that is kept free.
        confirm: then try, in fresh processes, whose peak is measured: the answer fits, one image more does not, or
            only now and then; both are tried twice. Where that is not so, the search goes on from there.
        dtype: of the weights: "fp32" or "bf16".
        amp_dtype: "bf16" for autocast.
        checkpointing: blocks keep only their input for the backward pass.
        device: "auto", "cpu", "cuda", "cuda:1".
        threads: of a process; None for as many as torch uses in this one.
        patience_seconds: how long a try may take.
        progress: is told what is done.
        heard: is told of each try.
        finished: is given all records so far after each attention, to keep them.
        options: overrides of the model, as for create_model.

    Returns:
        A record of kind "batch" for each attention; `error` where it is refused, or a try crashed or hung. Its
        `values`, those of inference with `inference_` in front: `largest_batch`, 0 where not one image fits;
        `predicted_largest_batch`; `predicted_bytes_at` that one and `next_bytes` with one image more, `baseline_bytes`
        included; `bytes_per_image`; `within`, the share by which the model's bytes may be off; `confirmed`, None where
        nothing was tried; `next_fits`, "never" or "at times", of one image more; and what was `tried`.

    Raises:
        ValueError: what create_model refuses, all attentions are refused, an amount without a unit, an unknown GPU or
            device, or memory that is not even enough for a process without a model.
    """
    if patience_seconds <= 0:
        raise ValueError(f"patience_seconds={patience_seconds:g}: must be above 0")
    if not (training or inference):
        raise ValueError("training=False with inference=False: nothing is left to be found")
    base = subject_of(
        model,
        BASELINE,
        options,
        device="cpu" if for_gpu else device,
        threads=threads,
        batch_size=1,
        inference_batch=1,
        dtype=dtype,
        amp_dtype=amp_dtype,
        checkpointing=checkpointing,
    )
    budget = budget_of(memory, for_gpu, base.device, margin)
    base = replace(base, device=budget.device)
    if confirm:
        budget.require_here()
    asked = list(dict.fromkeys(one.strip() for one in attentions or list_attentions()))
    subjects = [replace(base, attention=name) for name in dict.fromkeys([BASELINE, *asked])]
    search = _Search(
        subjects=subjects,
        kinds=[kind for kind, wanted in zip(KINDS, (training, inference), strict=True) if wanted],
        tries=confirm,
        patience_seconds=patience_seconds,
        progress=progress or Silent(),
        heard=heard,
    )
    with Foretellers(min(cores(), len(subjects)), patience_seconds) as foretellers:
        # While they get ready: what is wrong with the model, and an unknown name; what is refused at this size is
        # marked.
        with torch.device("meta"):
            create_model(base.model, base.attention, **base.options)
        for subject in subjects:
            subject.attention_resolved  # noqa: B018
        budget, told = search.foretold(budget, foretellers)
    _require_sense(told[name] for name in asked)
    records: list[Record] = []
    for record in search.records(budget, told):
        records.append(record)
        finished(list(records))
    return records


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The search of one call.

    Attributes:
        subjects: an attention each, on the same terms.
        kinds: of `KINDS`.
        tries: whether what is foretold is tried.
    """

    subjects: Sequence[Subject]
    kinds: Sequence[str]
    tries: bool
    patience_seconds: float
    progress: Progress
    heard: Heard

    def foretold(self, budget: Budget, foretellers: Foretellers) -> tuple[Budget, dict[str, dict[str, Foretold]]]:
        """The budget, weighed, and what fits into it without trying, by attention and kind."""
        asked = [(subject, kind) for subject in self.subjects for kind in self.kinds]
        stays = foretellers.baselines(self.subjects) if budget.device == "cpu" else {}
        budget = budget.weighed(stays.get(BASELINE))
        allowed, taken = gigabytes(budget.allowed_bytes), gigabytes(budget.taken.of("training" in self.kinds))
        self.progress.say(f"{allowed} of memory, of which {taken} are taken before there is any model")
        self.progress.say(f"predicting {', '.join(subject.attention for subject in self.subjects)}")
        answers = foretellers.tell(
            Question(
                subject=subject,
                training=kind == "training",
                allowed_bytes=budget.allowed_bytes,
                taken_bytes=stays.get(subject.attention, budget.taken).of(kind == "training"),
            )
            for subject, kind in asked
        )
        told: dict[str, dict[str, Foretold]] = {}
        for (subject, kind), answer in zip(asked, answers, strict=True):
            told.setdefault(subject.attention, {})[kind] = answer
        return budget, told

    def records(self, budget: Budget, told: Mapping[str, Mapping[str, Foretold]]) -> Iterator[Record]:
        """One for each attention, tried where that is wanted."""
        for subject in self.subjects:
            own = told[subject.attention]
            trials = {kind: self._tried(subject, kind, own[kind], budget) for kind in self.kinds}
            yield _record(subject, budget, own, trials)

    def _tried(self, subject: Subject, kind: str, told: Foretold, budget: Budget) -> Trials | None:
        if not self.tries or told.refused:
            return None
        attempt = attempts(
            subject,
            kind == "training",
            budget.allowed_bytes,
            patience_seconds=self.patience_seconds,
            heard=lambda tried: self.heard(subject.attention, kind, tried),
        )
        return find_by_trying(attempt, near=told.found.batch_size if told.found else 1)


def _require_sense(told: Iterator[Mapping[str, Foretold]]) -> None:
    """Checks that one of the attentions makes sense at this size."""
    refused = [next(iter(own.values())).refused for own in told]
    if all(refused):
        raise ValueError(refused[0])


def _record(
    subject: Subject, budget: Budget, told: Mapping[str, Foretold], trials: Mapping[str, Trials | None]
) -> Record:
    errors = {kind: why for kind in told if (why := _why_not(told[kind], trials[kind]))}
    values: dict[str, Any] = {}
    if not all(one.refused for one in told.values()):
        for kind in told:
            numbers = _values(told[kind], trials[kind], budget.taken.of(kind == "training"))
            values |= {f"{KINDS[kind]}{name}": value for name, value in numbers.items()}
        values |= {
            "budget_bytes": budget.total_bytes,
            "margin": budget.margin,
            "verified": _verified(budget, list(trials.values())),
        }
    # The batch is no condition here, it is the answer.
    terms = {"batch_size": None, "memory_asked": budget.asked, "for": budget.gpu and budget.gpu.name}
    same = len(errors) == len(told) and len(set(errors.values())) == 1
    return Record(
        kind="batch",
        **subject.about(),
        values=values,
        conditions={**subject.conditions(), **terms},
        machine=machine_facts(),
        error=errors[next(iter(errors))]
        if same
        else "; ".join(f"{kind}: {why}" for kind, why in errors.items()) or None,
    )


def _why_not(told: Foretold, trials: Trials | None) -> str | None:
    """Why there is no answer, or none that was confirmed."""
    if trials is not None:
        return trials.error
    if told.refused:
        return f"refused: {told.refused}"
    return told.cannot and f"cannot be predicted: {told.cannot}"


def _values(told: Foretold, trials: Trials | None, least_bytes: int) -> dict[str, Any]:
    """The numbers; None where nothing is known."""
    found = told.found
    taken_bytes = least_bytes if told.taken_bytes is None else told.taken_bytes
    predicted = found and found.batch_size
    tried = trials and trials.batch_size
    at, more = (found.at_bytes, found.next_bytes) if found else (None, None)
    return {
        "largest_batch": predicted if tried is None else tried,
        "predicted_largest_batch": predicted,
        "predicted_bytes_at": at and at + taken_bytes,
        "next_bytes": more and more + taken_bytes,
        "bytes_per_image": found and found.bytes_per_image,
        "baseline_bytes": taken_bytes,
        "within": told.within,
        "confirmed": trials and trials.error is None,
        "next_fits": trials and trials.next_fits,
        "tried": [asdict(one) for one in trials.tried] if trials else [],
    }


def _verified(budget: Budget, trials: Sequence[Trials | None]) -> str:
    """How far the numbers are known to be right."""
    if budget.gpu is not None:
        return budget.gpu.verified
    # On a CPU what is predicted was held against what is measured, model by model.
    here = budget.device == "cpu" or all(one is not None and one.error is None for one in trials)
    return "here" if here else "unverified"
