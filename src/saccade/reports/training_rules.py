"""The doctor's rules on training runs: what makes a difference in accuracy mean something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saccade.record import Record
from saccade.reports.finding import Finding, listed
from saccade.reports.function import baseline_of, function_of
from saccade.reports.rows import Row
from saccade.reports.terms import differing
from saccade.reports.trained import (
    Trained,
    chance_percent,
    rate_of,
    right_answers,
    trained_by_function,
    validation_percent,
)
from saccade.training.pretraining import below

# A run has learned something where it has come this part of the way from guessing to all right.
LEAST_LEARNED = 0.1

# What may differ between two training runs of one comparison; the fingerprint says whether the images do.
_FREE = ("model.attention", "train.lr", "train.seed", "train.logging_step", "data.name")


def diverged(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A run that ended in NaN and was counted, or left out, without a word."""
    seeds = {row.attention: row.diverged for row in rows if row.diverged}
    if seeds:
        cells = [f"{name} (seed {', '.join(map(str, each))})" for name, each in seeds.items()]
        yield Finding(
            "diverged",
            "warning",
            f"these runs ended in a loss that is not finite, and their mechanism gets no verdict: {listed(cells)}",
            "a lower learning rate: --tune 5 finds one",
        )


def same_answers(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Softmax under another name: "nystrom" and softmax agreed to the megabyte."""
    trained = trained_by_function(records)
    softmax = trained.get(baseline_of(records) or "", Trained())
    # Two models that guess the same class agree, and are not the same for that.
    least = _least_learned(records)
    learned = [row for row in rows if not row.baseline and (row.mean_percent or 0.0) >= least]
    for function, name in {function_of(row.attention_resolved): row.attention for row in learned}.items():
        own = trained.get(function, Trained())
        shared = own.finished.keys() & softmax.finished.keys()
        if shared and all(_same(own.finished[seed], softmax.finished[seed]) for seed in shared):
            yield Finding(
                "degenerate",
                "error",
                f"{name} is right and wrong on the same test images as softmax at every seed: it is softmax under "
                "another name",
                "other options, or leave it out",
            )


def nothing_learned(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A run as good as guessing: a loss of 1 on standardised pixels is that of always predicting the mean."""
    chance, least = chance_percent(records), _least_learned(records)
    low = {row.attention: row for row in rows if row.mean_percent is not None and row.mean_percent < least}
    if low:
        yield Finding(
            "nothing learned",
            "error" if any(row.baseline for row in low.values()) else "warning",
            f"guessing reaches {chance:.1f} %, and hardly more was reached by "
            + listed(f"{name} ({row.mean_percent:.1f} %)" for name, row in low.items()),
            "more epochs or another learning rate: --tune 5",
        )


def nothing_reconstructed(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A masked autoencoder that never beat predicting the mean, for epochs; its loss looked small all the same."""
    trained = [row for row in _trained(records, rows) if row.loss is not None]
    if low := _not_below(trained, "mean_loss"):
        yield Finding(
            "nothing reconstructed",
            "error" if any(row.baseline for row in low) else "warning",
            "in pre-training these learned nothing, their loss is not below that of predicting the mean: "
            + listed(f"{row.attention} ({row.loss:.3f} against {row.mean_loss:.3f})" for row in low),
            "more epochs or another learning rate: --tune 5",
        )
    elif low := _not_below(trained, "mean_picture_loss"):
        yield Finding(
            "nothing reconstructed",
            "warning",
            "what these predict is no better than the mean picture, whatever patches they are shown: "
            + listed(f"{row.attention} ({row.loss:.3f} against {row.mean_picture_loss:.3f})" for row in low),
            "more epochs or another learning rate: --tune 5",
        )


def _not_below(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows whose loss is not below another one of theirs."""
    return [
        row
        for row in rows
        if row.loss is not None and (other := getattr(row, name)) is not None and not below(row.loss, other)
    ]


def nothing_added(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A pre-trained encoder as good as a random one: what is compared are random features."""
    low = [
        f"{row.attention} ({row.mean_percent:.1f} % against {row.reference_percent:.1f} %)"
        for row in _trained(records, rows)
        if row.mean_percent is not None
        and row.reference_percent is not None
        and row.mean_percent <= row.reference_percent
    ]
    if low:
        yield Finding(
            "nothing added",
            "warning",
            f"pre-training has not made these better than they are without it: {listed(low)}",
            "more epochs of pre-training, or another learning rate: --tune 5",
        )


def _least_learned(records: Sequence[Record]) -> float:
    """Below so much accuracy hardly anything was learned."""
    chance = chance_percent(records)
    return chance + LEAST_LEARNED * (100 - chance)


def second_change(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Runs that differ in more than attention, rate and seed: other images, another recipe, another budget."""
    runs = [one for one in records if one.kind == "accuracy" and one.error is None]
    changed = differing(_everything_else(one) for one in runs)
    for name, values in changed.items():
        yield Finding(
            "a second thing changed",
            "error",
            f"{name} is not the same in all training runs: {listed(values)}; no difference can be put down to the "
            "attention",
            "train all mechanisms with the same recipe, into a folder of its own",
        )


def rates_of_one(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """Seeds of one mechanism at different learning rates: their mean is that of no recipe."""
    trained = trained_by_function(records)
    mixed = [
        row.attention
        for row in rows
        if (own := trained.get(function_of(row.attention_resolved)))
        and len({rate_of(one) for one in own.finished.values()}) > 1
    ]
    if mixed:
        yield Finding(
            "mixed rates",
            "error",
            f"the seeds of these were trained at different learning rates: {listed(mixed)}",
            "train all seeds at one rate",
        )


def optimum_at_edge(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A best rate at the end of its grid: the mechanism is still untuned, and looks worse than it is."""
    edges = []
    for function, own in trained_by_function(records).items():
        if len(own.tuning) < 2:
            continue
        best = max(own.tuning, key=lambda one: validation_percent(one, 0.0))
        if best in (own.tuning[0], own.tuning[-1]):
            name = next((row.attention for row in rows if function_of(row.attention_resolved) == function), function)
            edges.append(f"{name} ({rate_of(best):.3g})")
    if edges:
        yield Finding(
            "optimum at the edge",
            "warning",
            f"the best learning rate is the first or last that was tried: {listed(edges)}; a better one may lie beyond",
            "a wider grid for all mechanisms",
        )


def selection_on_test(records: Sequence[Record], rows: Sequence[Row]) -> Iterator[Finding]:
    """A choice made on the images that the result is then read from."""
    seen = [one.attention for one in records if one.kind == "tuning" and any(key[:5] == "test_" for key in one.values)]
    none = any(one.data and one.data.get("images", {}).get("validation") == 0 for one in records)
    if seen or none:
        what = f"tuning runs hold test results: {listed(seen)}" if seen else "there are no validation images"
        yield Finding(
            "selection on test",
            "error",
            f"{what}; what is chosen on the test set looks better than it is",
            "choose on a validation part",
        )


TRAINING_RULES = (
    diverged,
    same_answers,
    nothing_learned,
    nothing_reconstructed,
    nothing_added,
    second_change,
    rates_of_one,
    optimum_at_edge,
    selection_on_test,
)


def _trained(records: Sequence[Record], rows: Sequence[Row]) -> list[Row]:
    """The rows of what was trained; the other kernels of softmax have the same numbers."""
    names = {one.attention for one in records if one.kind == "accuracy"}
    return [row for row in rows if row.attention in names]


def _same(one: Record, other: Record) -> bool:
    ours, theirs = right_answers(one), right_answers(other)
    return len(ours) == len(theirs) and bool((ours == theirs).all()) and not ours.all()


def _everything_else(record: Record) -> dict[str, Any]:
    """All that must be the same in every training run of a comparison."""
    data = record.data or {}
    return {
        "model": record.model,
        **{f"model.{name}": value for name, value in record.model_options.items()},
        **{name: value for name, value in _flat(record.recipe or {}) if name not in _FREE},
        "data.fingerprint": data.get("fingerprint"),
        "images_seen": record.values.get("images_seen"),
        **{f"then.{name}": value for name, value in _flat(record.conditions.get("then", {}))},
    }


def _flat(recipe: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
