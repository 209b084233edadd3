"""The doctor's rules on how a comparison is planned: seeds, tuning, images, scales, where weights come from."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.reports.fairness.case import Case
from saccade.reports.fairness.needs import IMAGES, OPERATIONS, RATES, RUNS
from saccade.reports.fairness.rule import Rule, Seen
from saccade.reports.numbers import many
from saccade.reports.statistics import LEAST_SEEDS

ENOUGH_SEEDS = 5


def seeds(case: Case) -> Iterator[Seen]:
    """Fewer runs of a mechanism than tell chance from difference.

    Original 004: one run each, called a result: 75.83 % against 65.58 %, and nobody knows what a second would have
    said.
    """
    for plan in case.plans:
        if plan.seeds is None:
            continue
        if plan.seeds < LEAST_SEEDS:
            yield Seen(
                f"{many(plan.seeds, 'seed')}: accuracies are shown, but chance cannot be told from "
                "difference, so nothing is decided",
                remedy=f"--seeds {ENOUGH_SEEDS} ({LEAST_SEEDS} at the least)",
            )
        elif plan.seeds < ENOUGH_SEEDS:
            yield Seen(f"{plan.seeds} seeds give wide intervals: true differences may stay undecided", "warning")


def untuned(case: Case) -> Iterator[Seen]:
    """The same untuned learning rate for all.

    Original 004: a rate of 1e-3 for all, which mostly suits softmax; where baselines are tuned, too, gaps close
    (Touvron et al. 2022, DeiT III, arXiv 2204.07118).
    """
    for plan in case.plans:
        if plan.tuning == "none":
            yield Seen("every mechanism is trained at the recipe's learning rate, which may suit one and not another")
        if plan.tuning == "some":
            yield Seen("some mechanisms were tuned and others not: the latter may only look worse")


def tuned_beforehand(case: Case) -> Iterator[Seen]:
    """Learning rates that were chosen elsewhere.

    No original, and no fault by itself: a reader must know where to look, for a rate that was tuned on other images or
    for another model is none.
    """
    for plan in case.plans:
        if plan.tuning == "beforehand":
            yield Seen(f"learning rates come from the tuning runs in {plan.tuned_where}")
        if plan.tuning == "elsewhere":
            yield Seen("learning rates differ between mechanisms, and none of these records says how they were chosen")


def where(case: Case) -> Iterator[Seen]:
    """Which parts of a model differ between two rows of the table.

    Original 000 changed the attention of encoder and decoder at once, and only its printed model says so.
    """
    for plan in case.plans:
        if len(plan.parts) > 1:
            fixed = [
                f"the {name} has {plan.softmax.model.get(f'{name}_attention', 'the same attention')} in all rows"
                for name in plan.fixed
            ]
            yield Seen("; ".join([f"each mechanism is in the {' and in the '.join(plan.swapped)}", *fixed]))


def copied_data(case: Case) -> Iterator[Seen]:
    """Images that are not the published ones: compressed again, or fewer.

    No original: what was compressed anew or cut down is another data set, of which a figure for the whole says nothing.
    """
    for plan in case.plans:
        if plan.data.get("copied"):
            yield Seen(
                f"the images of {plan.data.get('name')} were compressed again or are fewer than the published ones: no "
                "accuracy here may stand beside a published one"
            )


def one_scale(case: Case) -> Iterator[Seen]:
    """A winner at one size.

    Originals 000 to 004: one size each; the order of models changes with scale (Tay et al. 2022, arXiv 2207.10551).
    """
    if all(plan.scales < 2 for plan in case.plans):
        yield Seen("one size of model and image: the order may be another at a larger one")


def from_scratch(case: Case) -> Iterator[Seen]:
    """Weights that start at random.

    Original 004: training from scratch overestimates gaps that pre-training, even on the same images, closes (Amos et
    al. 2023, arXiv 2310.02980).
    """
    if any(plan.init == "scratch" for plan in case.plans):
        yield Seen("weights start at random: pre-training, even on the same images, mostly makes the gaps smaller")


PLAN_RULES = (
    Rule("seeds", seeds, ("error", "warning"), (RUNS,), f"--seeds {ENOUGH_SEEDS}; finished runs are kept"),
    Rule("untuned", untuned, ("warning",), (RATES,), "--tune 5 tries the same rates for each"),
    Rule("tuned beforehand", tuned_beforehand, ("note",), (RATES,)),
    Rule("what is swapped", where, ("note",), (OPERATIONS,)),
    Rule("copied data", copied_data, ("warning",), (IMAGES,), "the original files"),
    Rule(
        "one scale",
        one_scale,
        ("warning",),
        (RUNS,),
        "repeat it at twice the width or four times the tokens before relying on it",
    ),
    Rule("from scratch only", from_scratch, ("warning",), (RUNS,), "read a gap as an upper bound"),
)
