"""Planned: what a comparison, or a bench, was planned to be, read from the records that it left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saccade.attention.tokens import Tokens
from saccade.models.sizes import MODELS, is_masked_autoencoder
from saccade.record import Record
from saccade.reports.built import layers_of
from saccade.reports.fairness.plan import Contender, PlanFacts, Tuning, arithmetic
from saccade.reports.function import BASELINE, baseline_of, function_of
from saccade.reports.surroundings import decoder_follows, options_around
from saccade.reports.trained import Trained, rate_of, trained_by_function

# What is timed without a model around it.
LAYERS = ("core", "layer", "block")

_COSTS = ("seconds", "memory", "batch")


def plans_of(records: Iterable[Record], scales: int = 1) -> tuple[PlanFacts, ...]:
    """A plan for each model, and for each size of a layer, at which softmax was counted or measured.

    Where there is none, one plan without any operations: what is known of training is known all the same.

    Args:
        records: at one scale.
        scales: sizes of the model at which all of it was repeated.
    """
    own = [one for one in records if not one.conditions.get("rival")]
    baseline = baseline_of(own)
    shared = {"scales": scales} | _of_training(own) | _of_costs(own)
    counted = _groups([one for one in own if one.kind == "operations" and one.error is None])
    layers = [one for one in own if one.kind in ("seconds", "memory") and one.conditions.get("what") in LAYERS]
    measured = _groups(layers)
    plans = [
        PlanFacts(**_contenders(group, own, baseline), **shared)
        for group in counted
        if any(function_of(one.attention_resolved) == baseline for one in group)
    ]
    plans += [
        PlanFacts(**_layers(group, baseline), **shared)
        for group in measured
        if any(function_of(one.attention_resolved) == baseline and one.error is None for one in group)
    ]
    return tuple(plans) or (PlanFacts(softmax=Contender(attention=BASELINE, kernel=None), rivals=(), **shared),)


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each model or layer at one size."""
    groups: dict[str, list[Record]] = {}
    for one, options in zip(records, options_around(records), strict=True):
        size = [one.conditions.get(name) for name in ("what", "tokens", "prefix", "width", "heads")]
        place = json.dumps([one.model, options, size], sort_keys=True, default=str)
        groups.setdefault(place, []).append(one)
    return list(groups.values())


def _of_training(records: Sequence[Record]) -> dict[str, Any]:
    """What all plans share of how models were trained; None where nothing was."""
    runs = [one for one in records if one.kind == "accuracy"]
    trained = {name: own for name, own in trained_by_function(records).items() if own.finished or own.diverged}
    last = next((one for one in reversed(runs) if one.data), None)
    return {
        "seeds": min((len(own.finished) + len(own.diverged) for own in trained.values()), default=None),
        "tuning": _tuning(trained),
        "data": last.data if last and last.data else {},
        "init": _init(runs[-1]) if runs else None,
        "fixed": () if all(map(decoder_follows, records)) else ("decoder",),
    }


def _tuning(trained: Mapping[str, Trained]) -> Tuning | None:
    """How rates were chosen, as far as the runs betray it."""
    tuned = [bool(own.tuning) for own in trained.values()]
    if any(tuned):
        return "here" if all(tuned) else "some"
    rates = {rate_of(run) for own in trained.values() for run in own.finished.values()} - {None}
    if not rates:
        return None
    return "none" if len(rates) == 1 else "elsewhere"


def _init(run: Record) -> str:
    """What the weights started from, before labels were seen."""
    masked = run.model in MODELS and is_masked_autoencoder(run.model)
    if masked or run.conditions.get("then"):
        return "mae"
    return "checkpoint" if (run.recipe or {}).get("model", {}).get("checkpoint") else "scratch"


def _of_costs(records: Sequence[Record]) -> dict[str, Any]:
    """Where costs were measured, or else where models were trained, and at how few images a step."""
    told = [one.conditions for one in sorted(records, key=lambda one: one.kind not in _COSTS)]
    device = next((one["device"] for one in told if one.get("device")), None)
    return {
        "device": device,
        "batch_size": min((one["batch_size"] for one in told if one.get("batch_size")), default=None),
    }


def _contenders(group: Sequence[Record], records: Sequence[Record], baseline: str | None) -> dict[str, Any]:
    """Softmax and the others, by what was counted of their models."""
    softmax = next(one for one in group if function_of(one.attention_resolved) == baseline)
    found = {
        one.attention_resolved: Contender(
            attention=one.attention,
            operations=one.values,
            model={"model": one.model, **one.model_options},
            kernel=_kernel(one, records),
            refusal=_refusal(one),
        )
        for one in (softmax, *(one for one in group if function_of(one.attention_resolved) != baseline))
    }
    first, *others = found.values()
    return {"softmax": first, "rivals": tuple(others)}


def _kernel(counted: Record, records: Sequence[Record]) -> str | None:
    """What ran where its model was timed; of softmax by several, one that is not written out in steps."""
    function = function_of(counted.attention_resolved)
    ran = [
        str(kernel)
        for one in records
        if one.kind == "seconds"
        and function_of(one.attention_resolved) == function
        and (kernel := one.conditions.get("kernel_run"))
    ]
    return min(ran, key=lambda kernel: kernel in ("eager", "explicit"), default=None)


def _refusal(counted: Record) -> str | None:
    """Why it is another mechanism in some part of its model, at the number of patches that this part sees."""
    values = counted.values
    stacks = values.get("stacks") or {"encoder": values}
    if not all({"tokens", "width", "heads"} <= set(part) for part in stacks.values()) or "grid" not in values:
        return None
    rows, columns = values["grid"]
    # The part that sees most sees the whole grid, and the prefix before it.
    prefix = max(0, max(part["tokens"] for part in stacks.values()) - rows * columns)
    own = [part for name, part in stacks.items() if name != "decoder" or decoder_follows(counted)]
    for part in own:
        tokens = Tokens((rows, columns), prefix)
        for layer in layers_of(counted.attention_resolved, part["width"], part["heads"], tokens):
            if reason := layer.refusal(part["tokens"] - prefix):
                return reason
    return None


def _layers(group: Sequence[Record], baseline: str | None) -> dict[str, Any]:
    """Softmax and the others, by the measures of the layer that was timed or weighed."""
    found: dict[str, Contender] = {}
    for one in group:
        if one.error is None:
            function = function_of(one.attention_resolved)
            name = BASELINE if function == baseline else one.attention
            found.setdefault(function, Contender(attention=name, kernel=_kernel(one, group), **_measures(one)))
    assert baseline is not None
    softmax, told = found.pop(baseline), group[0].conditions
    return {
        "softmax": softmax,
        "rivals": tuple(found.values()),
        "timed": f"what is timed (the {told['what']} of {told.get('tokens', '?')} tokens)",
        "layer_flops": _layer_flops(told["what"], softmax.operations) if softmax.operations else None,
    }


def _measures(record: Record) -> dict[str, Any]:
    """What `operations` would count of the layer, as far as it can be told from its measures, and why it is refused."""
    told = record.conditions
    if not {"tokens", "width", "heads", "grid"} <= set(told):
        return {}
    width, heads, prefix = told["width"], told["heads"], told.get("prefix", 0)
    rows, columns = told["grid"]
    patches = told["tokens"] - prefix
    counted = {"tokens": told["tokens"], "width": width, "heads": heads, "head_width": width // heads, "depth": 1}
    layer = next(layers_of(record.attention_resolved, width, heads, Tokens((rows, columns), prefix)), None)
    if layer is None:
        return {"operations": counted}
    counted["attention_flops_per_image"] = layer.flops(patches)
    return {"operations": counted, "refusal": layer.refusal(patches)}


def _layer_flops(what: str, size: Mapping[str, Any]) -> int | float:
    """Of softmax, on one image, forward: mixing alone, with its projections, or in a whole block."""
    mixing, block = arithmetic(size)
    projections = 8 * size["tokens"] * size["width"] ** 2
    return {"core": mixing, "layer": mixing + projections, "block": block}[what]
