"""The doctor's rules on training runs: what makes a difference in accuracy mean something else."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from statistics import mean, stdev

from saccade.record import Record
from saccade.reports.course import average_of
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import ACCURACIES, ANSWERS, ANY_RUNS, LOSSES, REFERENCES, RUNS, TUNING_RUNS
from saccade.reports.fairness.rule import Rule, Seen
from saccade.reports.numbers import many, signed
from saccade.reports.statistics import ALPHA, LEAST_SEEDS
from saccade.reports.student import quantile
from saccade.reports.trained import (
    Trained,
    answers_known,
    chance_percent,
    gained_points,
    rate_of,
    reconstruction,
    right_answers,
    validation_percent,
)
from saccade.training.pretraining import below


def diverged(case: Case) -> Iterator[Seen]:
    """A run that ended in NaN and was counted, or left out, without a word.

    No original says how many of its runs failed, and a table has no place for those that did.
    """
    seeds = {case.name(function): own.diverged for function, own in case.trained.items() if own.diverged}
    if seeds:
        cells = [f"{name} (seed {', '.join(map(str, each))})" for name, each in seeds.items()]
        yield Seen(
            f"these runs ended in a loss that is not finite, and their mechanism gets no verdict: {listed(cells)}"
        )


def same_answers(case: Case) -> Iterator[Seen]:
    """A mechanism right and wrong on the same test images as softmax at every seed.

    Original 000: "nystrom" and softmax agreed to the megabyte, being the same function.
    """
    softmax = case.trained.get(case.baseline or "", Trained())
    for function, own in case.trained.items():
        # Two models that guess the same class agree, and are not the same for that.
        if function == case.baseline or (own.mean_percent or 0.0) < case.least_learned_percent:
            continue
        shared = own.finished.keys() & softmax.finished.keys()
        if shared and all(_same(own.finished[seed], softmax.finished[seed]) for seed in shared):
            yield Seen(
                f"{case.name(function)} is right and wrong on the same test images as softmax at every seed: it is "
                "softmax under another name"
            )


def nothing_learned(case: Case) -> Iterator[Seen]:
    """A run hardly better than guessing.

    Original 001, in another unit: on standardised pixels a loss that does not fall below 1 is that of guessing.
    """
    least = case.least_learned_percent
    low = [(name, own, percent) for name, own, percent in case.learned() if percent < least]
    if low:
        softmax = any(own is case.trained.get(case.baseline or "") for _, own, _ in low)
        yield Seen(
            f"guessing reaches {chance_percent(case.records):.1f} %, and hardly more was reached by "
            + listed(f"{name} ({percent:.1f} %)" for name, _, percent in low),
            "error" if softmax else "warning",
        )


def nothing_reconstructed(case: Case) -> Iterator[Seen]:
    """A masked autoencoder whose loss is not below that of predicting one colour, or one picture, for all.

    Original 001: "the loss does not fall below 1": on standardised pixels 1.0 is the loss of predicting the mean.
    """
    average = next((average_of(one) for one in case.runs), "mean")
    runs = {case.name(function): own for function, own in case.trained.items()}
    softmax = case.name(case.baseline) if case.baseline else ""
    if low := _not_below(runs, "baseline_loss"):
        yield Seen(
            f"in pre-training these learned nothing, their loss is not below that of predicting the {average}: "
            + listed(low.values()),
            "error" if softmax in low else "warning",
        )
    elif low := _not_below(runs, "mean_picture_loss"):
        yield Seen(
            f"what these predict is no better than the {average} picture, whatever patches they are shown: "
            + listed(low.values()),
            "warning",
        )


def nothing_added(case: Case) -> Iterator[Seen]:
    """A pre-trained encoder that is not shown to be better than a random one, or than training from scratch.

    Originals 000 and 001 stop at the loss: for all they say, the features of a random encoder would have done as well.
    """
    low = {}
    for function, own in case.trained.items():
        gains = [gain for one in own.finished.values() if (gain := gained_points(one)) is not None]
        if gains and not (told := _gain(gains))[0]:
            low[function] = f"{case.name(function)} ({told[1]})"
    if low:
        yield Seen(
            f"pre-training has not been shown to make these better than they are without it: {listed(low.values())}"
        )


def mixed_rates(case: Case) -> Iterator[Seen]:
    """Seeds of one mechanism at different learning rates: their mean is that of no recipe.

    No original had a second seed; whoever adds seeds to a comparison after tuning it again makes this one.
    """
    mixed = [
        case.name(function)
        for function, own in case.trained.items()
        if len({rate_of(one) for one in own.finished.values()}) > 1
    ]
    if mixed:
        yield Seen(f"the seeds of these were trained at different learning rates: {listed(mixed)}")


def optimum_at_edge(case: Case) -> Iterator[Seen]:
    """A best rate at the end of its grid: the mechanism is still untuned, and looks worse than it is.

    Original 004 tried one rate, which is both ends of a grid.
    """
    edges = []
    for function, own in case.trained.items():
        if len(own.tuning) < 2:
            continue
        best = max(own.tuning, key=lambda one: validation_percent(one, 0.0))
        if best in (own.tuning[0], own.tuning[-1]):
            edges.append(f"{case.name(function)} ({rate_of(best):.3g})")
    if edges:
        yield Seen(
            f"the best learning rate is the first or last that was tried: {listed(edges)}; a better one may lie beyond"
        )


def selection_on_test(case: Case) -> Iterator[Seen]:
    """A choice made on the images that the result is then read from.

    Original 004: 50,000 training and 10,000 test images and no validation part: nothing else to choose an epoch by.
    """
    seen = [one.attention for one in case.tuning if any(key[:5] == "test_" for key in one.values)]
    none = any(one.data and one.data.get("images", {}).get("validation") == 0 for one in case.records)
    if seen or none:
        what = f"tuning runs hold test results: {listed(seen)}" if seen else "there are no validation images"
        yield Seen(f"{what}; what is chosen on the test set looks better than it is")


_ANOTHER_RATE = "more epochs or another learning rate: --tune 5"

TRAINING_RULES = (
    Rule("diverged", diverged, ("warning",), (RUNS,), "a lower learning rate: --tune 5 finds one"),
    Rule("same answers", same_answers, ("error",), (ANSWERS,), "other options, or leave it out"),
    Rule("nothing learned", nothing_learned, ("error", "warning"), (ACCURACIES,), _ANOTHER_RATE),
    Rule("nothing reconstructed", nothing_reconstructed, ("error", "warning"), (LOSSES,), _ANOTHER_RATE),
    Rule(
        "nothing added",
        nothing_added,
        ("warning",),
        (REFERENCES,),
        "more epochs of pre-training, or another learning rate: --tune 5",
    ),
    Rule("mixed rates", mixed_rates, ("error",), (RUNS,), "train all seeds at one rate"),
    Rule("optimum at the edge", optimum_at_edge, ("warning",), (TUNING_RUNS,), "a wider grid for all mechanisms"),
    Rule("selection on test", selection_on_test, ("error",), (ANY_RUNS,), "choose on a validation part"),
)


def _not_below(runs: dict[str, Trained], constant: str) -> dict[str, str]:
    """Those whose loss is not below that of a constant, with both in words; means over seeds."""
    low = {}
    for name, own in runs.items():
        told = [losses for one in own.finished.values() if {"loss", constant} <= set(losses := reconstruction(one))]
        if not told:
            continue
        loss, least = (mean(losses[key] for losses in told) for key in ("loss", constant))
        if not below(loss, least):
            low[name] = f"{name} ({loss:.3f} against {least:.3f})"
    return low


def _gain(points: list[float]) -> tuple[bool, str]:
    """Whether the seeds show that something was gained, and how much in words, mean over seeds and 95 % interval."""
    middle = mean(points)
    if len(points) < LEAST_SEEDS:
        return middle > 0, f"{signed(middle)} points, without an interval: {many(len(points), 'seed')}"
    half = quantile(1 - ALPHA, len(points) - 1) * stdev(points) / sqrt(len(points))
    ends = f"{signed(middle - half)} … {signed(middle + half)}"
    return middle - half > 0, f"{signed(middle)} points, 95 % interval {ends}"


def _same(one: Record, other: Record) -> bool:
    if not (answers_known(one) and answers_known(other)):
        return False
    ours, theirs = right_answers(one), right_answers(other)
    return len(ours) == len(theirs) and bool((ours == theirs).all()) and not ours.all()
