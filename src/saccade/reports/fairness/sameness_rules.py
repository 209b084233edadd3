"""The doctor's rules on what must be the same for all: the model around the attention, the terms, the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from saccade.record import Record
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import MACHINES, RECORDS
from saccade.reports.fairness.rule import Rule, Seen
from saccade.reports.surroundings import options_around
from saccade.reports.terms import Facts, conflicting, differing, machine, terms, unmatched, versions

# What may differ between two training runs; the record itself names the model, and fingerprints the images.
_FREE = ("model.attention", "model.name", "train.lr", "train.seed", "train.logging_step", "data.name")

# What changed in comparisons of others that no option of a model of ours says.
_BESIDE = ("block", "reversible", "data_order")

_MEASURED = ("operations", "seconds", "memory", "batch")

# So many differences are named; where there are more, the sides have little in common.
MOST_TOLD = 8


def second_change(case: Case) -> Iterator[Seen]:
    """Models or runs that differ in more than attention, rate and seed: patches, blocks, order of data, budget.

    Originals 000 and 004: five mechanisms in reversible blocks, the baseline in plain ones; patch size 2 for softmax
    and 1 for linear attention.
    """
    # A rival is meant to be another model.
    own = [one for one in case.records if not one.conditions.get("rival")]
    runs = [one for one in own if one.kind == "accuracy" and one.error is None]
    changed = differing(_models(runs)) | conflicting(map(_training, runs))
    for kind in _MEASURED:
        measured = [one for one in own if one.kind == kind]
        changed = _unequal(case, measured, _models(measured), differing) | changed
    if changed:
        yield Seen(f"not the same for all: {_told(changed)}; no difference can be put down to the attention")


def unequal_terms(case: Case) -> Iterator[Seen]:
    """One side's best against the other's default: precision, batch, threads, clock, checkpointing, compilation.

    Original 000: five mechanisms with reversible blocks, which save memory, beside a baseline without.
    """
    groups: dict[tuple[str, str | None], list[Record]] = {}
    for one in case.records:
        if one.kind in ("seconds", "memory", "batch", "accuracy"):
            groups.setdefault((one.kind, one.round), []).append(one)
    for (kind, _), group in groups.items():
        # Code of others may know no other precision, and is raced all the same: its name then says so.
        race = all(one.conditions.get("rival") for one in group)
        if unequal := _unequal(case, group, list(map(_terms, group)), conflicting):
            yield Seen(
                f"records of {kind} are not on the same terms: {_told(unequal)}; equal terms are what makes a ratio "
                "mean something",
                "warning" if race else "error",
            )


def unlike_machines(case: Case) -> Iterator[Seen]:
    """Costs of two machines, or of two versions of torch, in one table.

    No original on its own: 002's times are of an A100 and 004's of an M1 Pro, so that no ratio of the two means much.
    """
    costs = [one for one in case.records if one.kind in ("seconds", "memory")]
    if unlike := conflicting(_of_machine(one, machine) for one in costs):
        yield Seen(f"costs were not measured on one machine: {_told(unlike)}")


def unlike_versions(case: Case) -> Iterator[Seen]:
    """Accuracies of two machines or versions of the code in one table.

    Original 000: its five mechanisms ran in another version of its code than its baseline, as only its history says.
    """
    # A rate is a choice and no result: it may have been tuned by an earlier version, as long as all were by that one.
    unlike = {
        **conflicting(_of_machine(one, versions) for one in case.tuning),
        **conflicting(_of_machine(one, versions) for one in case.records if one.kind != "tuning"),
        **conflicting(_of_machine(one, machine) for one in case.records if one.kind == "accuracy"),
    }
    if unlike:
        yield Seen(f"the records were not made alike: {_told(unlike)}")


SAMENESS_RULES = (
    Rule(
        "a second thing changed",
        second_change,
        ("error",),
        (RECORDS,),
        "give every mechanism the same model and recipe, in a folder of its own",
    ),
    Rule("unequal terms", unequal_terms, ("error", "warning"), (RECORDS,), "measure all on the same terms"),
    Rule("unlike machines", unlike_machines, ("error",), (MACHINES,), "measure all on one machine"),
    Rule(
        "unlike versions",
        unlike_versions,
        ("warning",),
        (MACHINES,),
        "make them anew in another folder, if results seem odd",
    ),
)


def _told(facts: Mapping[str, Sequence[str]]) -> str:
    """The names, each with the values that are there."""
    told = [f"{name} ({listed(values)})" for name, values in facts.items()]
    rest = len(told) - MOST_TOLD
    return "; ".join(told[:MOST_TOLD]) + (f"; and {rest} more" if rest > 0 else "")


def _terms(record: Record) -> Facts:
    """The terms that the record tells."""
    return {name: value for name, value in terms(record).items() if name in record.conditions}


def _of_machine(record: Record, facts: Callable[[Record], Facts]) -> Facts:
    """Facts of its machine that the record tells."""
    return {name: value for name, value in facts(record).items() if name in record.machine}


def _unequal(
    case: Case,
    records: Sequence[Record],
    facts: Sequence[Facts],
    compare: Callable[[Sequence[Facts]], dict[str, list[str]]],
) -> dict[str, list[str]]:
    """How the facts of records of one kind differ from softmax's; without softmax, from those of the first mechanism.

    Runs are averaged over seeds, so that all of them must be alike.
    """
    if not records or records[0].kind == "accuracy":
        return compare(facts)
    baseline = [fact for one, fact in zip(records, facts, strict=True) if case.is_softmax(one)]
    first = [fact for one, fact in zip(records, facts, strict=True) if one.attention == records[0].attention]
    return unmatched(facts, baseline or first, compare)


def _models(records: Sequence[Record]) -> list[Facts]:
    """The model around each attention, or the layer; and how it is judged after pre-training."""
    return [
        {
            "model": record.model,
            **{f"model.{name}": value for name, value in options.items()},
            **{name: record.conditions[name] for name in _BESIDE if name in record.conditions},
            **{f"then.{name}": value for name, value in _flat(record.conditions.get("then") or {})},
        }
        for record, options in zip(records, options_around(records), strict=True)
    ]


def _training(record: Record) -> Facts:
    """All else that must be the same in every training run of a comparison, where it is told."""
    told = {
        "data.fingerprint": (record.data or {}).get("fingerprint"),
        "images_seen": record.values.get("images_seen"),
    }
    recipe = {name: value for name, value in _flat(record.recipe or {}) if name not in _FREE}
    return {
        **{name: value for name, value in recipe.items() if not name.startswith("model.options.")},
        **{name: value for name, value in told.items() if value is not None},
    }


def _flat(recipe: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
