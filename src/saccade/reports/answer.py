"""The answer: which attention to take, in a few sentences that claim no more than the verdicts allow."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.reports.basis import Basis
from saccade.reports.fairness.finding import Finding, listed
from saccade.reports.numbers import interval, many, signed, spread, times
from saccade.reports.ratios import EQUAL
from saccade.reports.rivals import against_rivals
from saccade.reports.rows import Row, best_softmax
from saccade.reports.scales import Scale
from saccade.reports.statistics import LEAST_SEEDS

# Said and handled here already: too few seeds confound nothing, they decide nothing.
_NO_CONFOUNDER = ("seeds",)


def answer(rows: Sequence[Row], basis: Basis, findings: Sequence[Finding] = ()) -> str:
    """Recommends the cheapest mechanism that is better or not worse, softmax being one of them.

    Args:
        rows: of the comparison.
        basis: what it rests on.
        findings: of the doctor; errors among them forbid a recommendation.
    """
    words = _hindered(rows, basis, findings)
    if not words:
        softmax, others = _baseline(rows), _mechanisms(rows)
        assert softmax is not None
        words = [_recommendation(softmax, others, basis), *_for_inference(softmax, others), *_open(others)]
    return " ".join([*words, *against_rivals(rows), basis.sentence])


def answer_at_scales(scales: Sequence[Scale]) -> str:
    """Recommends what holds at every scale, and says what does not.

    Args:
        scales: that which was asked for comes first; its basis speaks for all.
    """
    asked, *_ = scales
    words = [" ".join([_sentence(scale.where), *why]) for scale in scales if (why := _hindered_at(scale))]
    if words:
        words = ["No recommendation that holds at both scales.", *words]
    else:
        words = [_held(scales), *(word for scale in scales for word in _open(_mechanisms(scale.rows), scale.where))]
    rivals = [" ".join([_sentence(scale.where), *told]) for scale in scales if (told := against_rivals(scale.rows))]
    return " ".join([*words, *rivals, asked.basis.sentence])


def _hindered_at(scale: Scale) -> list[str]:
    return _hindered(scale.rows, scale.basis, scale.findings)


def _hindered(rows: Sequence[Row], basis: Basis, findings: Sequence[Finding]) -> list[str]:
    """Why nothing can be recommended, and what was measured all the same; empty where something can."""
    softmax, others = _baseline(rows), _mechanisms(rows)
    if softmax is None:
        return ["No recommendation: softmax, which all are compared with, has no finished training runs."]
    if not others:
        return [
            f"Softmax reached {softmax.mean_percent:.1f} % {softmax.course.accuracy}; nothing was compared with it."
        ]
    if errors := [one for one in findings if one.severity == "error" and one.rule not in _NO_CONFOUNDER]:
        confounders = listed(one.rule for one in errors)
        return [f"No recommendation: the comparison is confounded ({confounders}).", *_facts(softmax, others)]
    if len(basis.seeds) < LEAST_SEEDS:
        count = many(len(basis.seeds), "seed")
        return [
            f"No recommendation by accuracy: {count} cannot tell a difference from chance.",
            *_facts(softmax, others),
        ]
    return []


def _held(scales: Sequence[Scale]) -> str:
    """The cheapest at the size asked for of those that are worth their cost at every scale."""
    worth = {scale.where: [row.attention for row in _worth(scale)] for scale in scales}
    asked, *_ = scales
    held = [row for row in _worth(asked) if all(row.attention in names for names in worth.values())]
    only = [
        f"only {where}: {listed(missing, 20)}"
        for where, names in worth.items()
        if (missing := [name for name in names if name not in [row.attention for row in held]])
    ]
    besides = f" ({'; '.join(only)})" if only else ""
    if not held:
        softmax = _baseline(asked.rows)
        assert softmax is not None
        return f"Take {softmax.attention}: nothing else was shown to be worth its cost at both scales{besides}."
    taken = min(held, key=lambda row: row.costs.ratios["step"].value)
    told = [
        f"{_sentence(scale.where)} {_accuracy(row, scale.basis)}; {_costs(row)}."
        for scale in scales
        for row in scale.rows
        if row.attention == taken.attention
    ]
    return " ".join([f"Take {taken.attention}, which holds at both scales{besides}.", *told])


def _worth(scale: Scale) -> list[Row]:
    """Cheaper and not worse, or better and not dearer."""
    good = [row for row in _mechanisms(scale.rows) if row.eligible and "step" in row.costs.ratios]
    return [row for row in good if row.costs.ratios["step"].cheaper or _better_and_no_dearer(row, "step")]


def _sentence(where: str) -> str:
    """The beginning of a sentence on a scale."""
    return f"{where[0].upper()}{where[1:]}:"


def _mechanisms(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.baseline and not row.rival]


def _baseline(rows: Sequence[Row]) -> Row | None:
    """The fastest softmax; None where it has no accuracy to compare with."""
    softmax = best_softmax(rows) or next((row for row in rows if row.baseline), None)
    return softmax if softmax and softmax.accuracy_percent and not softmax.diverged else None


def _cheapest(softmax: Row, others: Sequence[Row], act: str) -> Row:
    """Of those that are better or not worse the cheapest; where none saves anything, a better one at no higher cost."""
    good = [row for row in others if row.eligible and act in row.costs.ratios]
    if cheaper := [row for row in good if row.costs.ratios[act].cheaper]:
        return min(cheaper, key=lambda row: row.costs.ratios[act].value)
    better = [row for row in good if _better_and_no_dearer(row, act)]
    return max(better, key=lambda row: row.difference.points if row.difference else 0.0, default=softmax)


def _better_and_no_dearer(row: Row, act: str) -> bool:
    """Better than softmax, and sure not to cost more."""
    ratio = row.costs.ratios[act]
    return row.verdict == "better" and max(ratio.value, ratio.high or ratio.value) <= EQUAL


def _recommendation(softmax: Row, others: Sequence[Row], basis: Basis) -> str:
    taken = _cheapest(softmax, others, "step")
    if taken is not softmax:
        return f"Take {taken.attention}: {_accuracy(taken, basis)}; {_costs(taken)}.{_as_cheap(taken, others)}"
    good = [row for row in others if row.eligible]
    if not good:
        return (
            f"Take {softmax.attention}: nothing else was shown to be not worse (margin {basis.margin_points:g} points)."
        )
    better = [row for row in good if row.verdict == "better"]
    if not better:
        return f"Take {softmax.attention}: of those that are not worse ({_names(good)}) none was shown to cost less."
    prices = [f"{row.attention} ({_accuracy(row, basis)}; {_costs(row)})" for row in better]
    return f"Take {softmax.attention} where cost counts: none that is not worse costs less. Better: {listed(prices)}."


def _accuracy(row: Row, basis: Basis) -> str:
    difference = row.difference
    assert difference is not None
    lower = difference.high_points is not None and difference.high_points < 0
    accuracy = " ".join(("its", row.course.judged_by, "accuracy")).replace("  ", " ")
    margin = f"{', lower but' if lower else ','} within the margin of {basis.margin_points:g}"
    return (
        f"{accuracy} is {row.verdict} than softmax's ({signed(difference.points)} points, 95 % interval "
        f"{interval(difference)}{margin if row.verdict == 'not worse' else ''})"
    )


def _costs(row: Row) -> str:
    """What it costs in training and in inference, as far as it was measured."""
    batch = f"in batches of {row.costs.inference_batch}" if row.costs.inference_batch else "in batches"
    acts = {
        "step": f"a {row.course.step} takes {{}}",
        "latency": "inference {} at batch 1",
        "inference": f"{{}} {batch}",
    }
    said = [
        text.format(f"{times(ratio.value)} × softmax's time" + (f" ({spread(ratio)})" if spread(ratio) else ""))
        if act == "step"
        else text.format(f"{times(ratio.value)} ×")
        for act, text in acts.items()
        if (ratio := row.costs.ratios.get(act))
    ]
    return ", ".join(said) if said else "its cost was not measured"


def _as_cheap(taken: Row, others: Sequence[Row]) -> str:
    """The others that cost about as little and are good enough: the choice among them is open."""
    own = taken.costs.ratios["step"].value
    alike = [
        row
        for row in others
        if row is not taken
        and row.eligible
        and (ratio := row.costs.ratios.get("step"))
        and ratio.cheaper
        and ratio.value < EQUAL * own
    ]
    return f" About as cheap: {_names(alike)}." if alike else ""


def _for_inference(softmax: Row, others: Sequence[Row]) -> list[str]:
    """Training and inference are two questions: where the second has another answer, it is given."""
    for_training = _cheapest(softmax, others, "step")
    for_inference = _cheapest(softmax, others, "inference")
    if for_inference is for_training or for_inference is softmax:
        return []
    ratio = for_inference.costs.ratios["inference"]
    return [
        f"For inference in batches alone: {for_inference.attention} ({for_inference.verdict}; "
        f"{times(ratio.value)} × softmax's time)."
    ]


def _open(others: Sequence[Row], where: str = "") -> list[str]:
    undecided = [row for row in others if row.verdict == "undecided"]
    place = f" {where}" if where else ""
    return [f"Undecided{place}, which is not equal: {_names(undecided)}."] if undecided else []


def _facts(softmax: Row, others: Sequence[Row]) -> list[str]:
    """What was measured, without a judgement."""
    reached = [f"{row.attention} {row.mean_percent:.1f} %" for row in others if row.mean_percent is not None]
    steps = [f"{row.attention} {times(ratio.value)} ×" for row in others if (ratio := row.costs.ratios.get("step"))]
    accuracy, step = softmax.course.accuracy.capitalize(), softmax.course.step
    facts = [f"{accuracy}: {softmax.attention} {softmax.mean_percent:.1f} %, {listed(reached, 20)}."] if reached else []
    return facts + ([f"A {step}, of softmax's time: {listed(steps, 20)}."] if steps else [])


def _names(rows: Sequence[Row]) -> str:
    return listed((row.attention for row in rows), 20)
