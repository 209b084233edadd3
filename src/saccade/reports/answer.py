"""The answer: which attention to take, in a few sentences that claim no more than the verdicts allow."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.reports.basis import Basis
from saccade.reports.finding import Finding, listed
from saccade.reports.numbers import interval, many, signed, spread, times
from saccade.reports.ratios import EQUAL
from saccade.reports.rows import Row, best_softmax
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
    rivals = [row for row in rows if not row.baseline]
    softmax = _baseline(rows)
    if softmax is None:
        words = ["No recommendation: softmax, which all are compared with, has no finished training runs."]
    elif not rivals:
        reached = f"Softmax reached {softmax.mean_percent:.1f} % {softmax.course.accuracy}"
        words = [f"{reached}; nothing was compared with it."]
    elif errors := [one for one in findings if one.severity == "error" and one.rule not in _NO_CONFOUNDER]:
        confounders = listed(one.rule for one in errors)
        words = [f"No recommendation: the comparison is confounded ({confounders}).", *_facts(softmax, rivals)]
    elif len(basis.seeds) < LEAST_SEEDS:
        count = many(len(basis.seeds), "seed")
        words = [
            f"No recommendation by accuracy: {count} cannot tell a difference from chance.",
            *_facts(softmax, rivals),
        ]
    else:
        words = [_recommendation(softmax, rivals, basis), *_for_inference(softmax, rivals), *_open(rivals)]
    return " ".join([*words, basis.sentence])


def _baseline(rows: Sequence[Row]) -> Row | None:
    """The fastest softmax; None where it has no accuracy to compare with."""
    softmax = best_softmax(rows) or next((row for row in rows if row.baseline), None)
    return softmax if softmax and softmax.accuracy_percent and not softmax.diverged else None


def _cheapest(softmax: Row, rivals: Sequence[Row], act: str) -> Row:
    """Of those that are better or not worse the cheapest; where none saves anything, a better one at no higher cost."""
    good = [row for row in rivals if row.eligible and act in row.costs.ratios]
    if cheaper := [row for row in good if row.costs.ratios[act].cheaper]:
        return min(cheaper, key=lambda row: row.costs.ratios[act].value)
    better = [row for row in good if row.verdict == "better" and not _dearer(row, act)]
    return max(better, key=lambda row: row.difference.points if row.difference else 0.0, default=softmax)


def _dearer(row: Row, act: str) -> bool:
    """Whether it costs more than softmax, or may."""
    ratio = row.costs.ratios[act]
    return ratio.value > EQUAL or (ratio.high or ratio.value) > EQUAL


def _recommendation(softmax: Row, rivals: Sequence[Row], basis: Basis) -> str:
    taken = _cheapest(softmax, rivals, "step")
    if taken is not softmax:
        return f"Take {taken.attention}: {_accuracy(taken, basis)}; {_costs(taken)}.{_as_cheap(taken, rivals)}"
    good = [row for row in rivals if row.eligible]
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


def _as_cheap(taken: Row, rivals: Sequence[Row]) -> str:
    """The others that cost about as little and are good enough: the choice among them is open."""
    own = taken.costs.ratios["step"].value
    alike = [
        row
        for row in rivals
        if row is not taken
        and row.eligible
        and (ratio := row.costs.ratios.get("step"))
        and ratio.cheaper
        and ratio.value < EQUAL * own
    ]
    return f" About as cheap: {_names(alike)}." if alike else ""


def _for_inference(softmax: Row, rivals: Sequence[Row]) -> list[str]:
    """Training and inference are two questions: where the second has another answer, it is given."""
    for_training = _cheapest(softmax, rivals, "step")
    for_inference = _cheapest(softmax, rivals, "inference")
    if for_inference is for_training or for_inference is softmax:
        return []
    ratio = for_inference.costs.ratios["inference"]
    return [
        f"For inference in batches alone: {for_inference.attention} ({for_inference.verdict}; "
        f"{times(ratio.value)} × softmax's time)."
    ]


def _open(rivals: Sequence[Row]) -> list[str]:
    undecided = [row for row in rivals if row.verdict == "undecided"]
    return [f"Undecided, which is not equal: {_names(undecided)}."] if undecided else []


def _facts(softmax: Row, rivals: Sequence[Row]) -> list[str]:
    """What was measured, without a judgement."""
    reached = [f"{row.attention} {row.mean_percent:.1f} %" for row in rivals if row.mean_percent is not None]
    steps = [f"{row.attention} {times(ratio.value)} ×" for row in rivals if (ratio := row.costs.ratios.get("step"))]
    accuracy, step = softmax.course.accuracy.capitalize(), softmax.course.step
    facts = [f"{accuracy}: {softmax.attention} {softmax.mean_percent:.1f} %, {listed(reached, 20)}."] if reached else []
    return facts + ([f"A {step}, of softmax's time: {listed(steps, 20)}."] if steps else [])


def _names(rows: Sequence[Row]) -> str:
    return listed((row.attention for row in rows), 20)
