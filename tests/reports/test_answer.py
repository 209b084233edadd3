"""The closing sentence claims what the verdicts allow, and names what it rests on."""

import dataclasses

import pytest

from saccade.reports.answer import answer
from saccade.reports.basis import Basis, basis
from saccade.reports.costs import Costs
from saccade.reports.fairness.finding import Finding
from saccade.reports.ratios import Ratio
from saccade.reports.rows import Row, rows
from saccade.reports.statistics import Difference

BASIS = Basis(model="vit", seeds=(0, 1, 2), margin_points=1.0)


def row(name, verdict=None, step=None, inference=None, points=-0.3, **changes):
    """A mechanism with a verdict and costs relative to softmax, each known within two percent."""
    costs = {act: value for act, value in (("step", step), ("inference", inference)) if value is not None}
    return Row(
        attention=name,
        attention_resolved=name,
        accuracy_percent={0: 90.0 + points},
        difference=Difference(points, points - 0.6, points + 0.6, verdict) if verdict else None,
        costs=Costs(
            seconds=costs,
            ratios={act: Ratio(value, 0.98 * value, 1.02 * value) for act, value in costs.items()},
            inference_batch=64,
        ),
        **changes,
    )


SOFTMAX = row("softmax", step=1.0, inference=1.0, points=0.0, baseline=True)


def told(*others, softmax=SOFTMAX, basis=BASIS, findings=()):
    return answer([softmax, *others], basis, findings)


def test_the_cheapest_that_is_not_worse_is_taken():
    text = told(row("a", "not worse", 0.8, 0.9), row("b", "not worse", 0.6, 0.7), row("c", "worse", 0.3, 0.3))
    assert text.startswith("Take b: its accuracy is not worse than softmax's (−0.3 points, 95 % interval −0.9 … +0.3,")
    assert "a training step takes 0.60 × softmax's time (0.59–0.61)" in text
    assert "0.70 × in batches of 64" in text


def test_a_loss_within_the_margin_is_called_a_loss():
    assert "lower but within the margin of 1" in told(row("a", "not worse", 0.8, points=-0.7))


def test_undecided_is_neither_taken_nor_equal():
    text = told(row("a", "undecided", 0.5, 0.5))
    assert text.startswith("Take softmax: nothing else was shown to be not worse (margin 1 points).")
    assert "Undecided, which is not equal: a." in text


def test_worse_is_never_taken():
    assert told(row("a", "worse", 0.1)).startswith("Take softmax: nothing else")


def test_softmax_is_taken_where_nothing_is_measurably_cheaper():
    for step in (0.95, 1.0, 1.5):
        text = told(row("a", "not worse", step))
        assert text.startswith("Take softmax: of those that are not worse (a) none was shown to cost less.")


def test_a_cost_within_chance_saves_nothing():
    wide = row("a", "not worse", 0.8)
    wide = dataclasses.replace(wide, costs=dataclasses.replace(wide.costs, ratios={"step": Ratio(0.8, 0.5, 1.1)}))
    assert told(wide).startswith("Take softmax: of those that are not worse (a) none")


def test_a_better_one_at_the_same_cost_is_taken():
    assert told(row("a", "better", 1.02, points=2.0)).startswith("Take a: its accuracy is better than softmax's (+2.0")


def test_a_better_one_that_costs_more_is_named_beside_softmax():
    text = told(row("a", "better", 1.9, points=2.0))
    assert text.startswith("Take softmax where cost counts: none that is not worse costs less. Better: a (")
    assert "1.90 × softmax's time" in text


def test_what_costs_about_the_same_is_named():
    text = told(row("a", "not worse", 0.6), row("b", "not worse", 0.63), row("c", "not worse", 0.75))
    assert "About as cheap: b." in text


def test_inference_may_have_another_answer():
    text = told(row("a", "not worse", 0.6, 0.9), row("b", "not worse", 0.8, 0.5))
    assert text.startswith("Take a:")
    assert "For inference in batches alone: b (not worse; 0.50 × softmax's time)." in text
    assert "For inference" not in told(row("a", "not worse", 0.6, 0.5), row("b", "not worse", 0.8, 0.9))


def test_costs_that_were_not_measured_recommend_nothing_else():
    assert told(row("a", "not worse")).startswith("Take softmax: of those that are not worse (a) none was shown")


def test_the_fastest_kernel_of_softmax_is_named():
    slow = row("softmax", step=1.5, points=0.0, baseline=True)
    fast = row('softmax(kernel="explicit")', step=1.0, points=0.0, baseline=True)
    assert answer([slow, fast, row("a", "worse", 0.5)], BASIS).startswith('Take softmax(kernel="explicit"):')


def test_one_seed_recommends_nothing_by_accuracy(made):
    records = made.whole({"softmax": 0.92, "linear": 0.80}, seeds=1, costs={"linear": 0.7})
    found = rows(records)
    text = answer(found, basis(records))
    assert text.startswith("No recommendation by accuracy: 1 seed cannot tell a difference from chance.")
    assert f"linear {found[2].mean_percent:.1f} %" in text
    assert "Take" not in text


def test_a_confounded_comparison_recommends_nothing():
    error = Finding("a second thing changed", "error", "x")
    text = told(row("a", "better", 0.5), findings=[error])
    assert text.startswith("No recommendation: the comparison is confounded (a second thing changed).")
    warned = told(row("a", "better", 0.5), findings=[dataclasses.replace(error, severity="warning")])
    assert warned.startswith("Take a")


@pytest.mark.parametrize("changes", [{"diverged": (1,)}, {"accuracy_percent": {}}], ids=str)
def test_without_softmax_nothing_is_recommended(changes):
    softmax = dataclasses.replace(SOFTMAX, **changes)
    assert told(row("a", "better", 0.5), softmax=softmax).startswith("No recommendation: softmax,")
    assert answer([], BASIS).startswith("No recommendation")


def test_softmax_alone_is_no_comparison():
    assert told().startswith("Softmax reached 90.0 % top-1; nothing was compared with it.")


def test_diverged_and_incomplete_ones_are_never_taken():
    assert told(row("a", "better", 0.5, diverged=(0,)), row("b", step=0.5)).startswith("Take softmax: nothing else")


def test_the_basis_names_all_that_the_answer_depends_on(made):
    records = made.whole({"softmax": 0.92, "linear": 0.91})
    text = basis(records, 1).sentence
    for part in (
        "digits (1,077 train images, 360 test images, 86,016 seen by each run)",
        "vit_nano_patch1_8 (N 65 tokens, width D 32, heads 8 wide)",
        "3 seeds, 1 scale, trained from scratch",
        "fp32 on cpu (AMD EPYC 9354, 1 thread)",
    ):
        assert part in text


def test_a_basis_on_an_accelerator_names_the_accelerator():
    conditions = {"device": "cuda:0", "dtype": "fp32", "amp_dtype": "bf16", "clock": "wall", "threads": None}
    machine = {"processor": "AMD", "accelerator": "H200"}
    larger = {"twice the width": {"tokens": 65, "width": 64, "head_width": 8}}
    text = Basis(conditions=conditions, machine=machine, seeds=(0,), larger=larger).sentence
    assert "fp32 under bf16 autocast on cuda:0 (H200)" in text
    assert "1 seed, 2 scales, trained from scratch" in text
    cpu = Basis(conditions={**conditions, "device": "cpu", "clock": "cpu", "threads": 2}, machine=machine).sentence
    assert "(AMD, 2 threads, processor time)" in cpu


def test_no_records_make_an_empty_basis():
    assert basis([]).seeds == ()
    assert basis([]).sentence.startswith("This rests on 0 seeds")


def test_the_basis_is_softmaxs(made):
    records = [made.operations("softmax"), made.operations("other", width=99), made.accuracy("other", seed=7)]
    assert basis(records).operations["width"] == 32
    assert basis(records).seeds == ()
