"""Each rule of the doctor fires on a bad example and is silent on a good one."""

import dataclasses

import pytest

from saccade.reports.fairness import after, before, stop
from saccade.reports.fairness.finding import Finding, by_severity, listed
from saccade.reports.fairness.plan import Contender, PlanFacts

COUNTS = {
    "parameters": 5_000_000,
    "flops_per_image": 2e9,
    "attention_flops_per_image": 8e8,
    "quadratic_share": 785 / (785 + 6 * 192),
    "tokens": 785,
    "width": 192,
    "head_width": 64,
    "depth": 12,
}
MODEL = {"name": "vit", "patch_size": 16}
SOFTMAX = Contender(attention="softmax", operations=COUNTS, model=MODEL, kernel="sdpa")
LINEAR = Contender(
    attention="linear",
    operations={**COUNTS, "flops_per_image": 1.5e9, "attention_flops_per_image": 3e8},
    model=MODEL,
)
GOOD = PlanFacts(
    softmax=SOFTMAX,
    rivals=(LINEAR,),
    seeds=5,
    tuning="here",
    data={"name": "photos", "copied": False},
    device="cpu",
    batch_size=64,
    scales=2,
    init="mae",
)


def changed(contender, **values):
    return dataclasses.replace(contender, operations={**contender.operations, **values})


def planned(**changes):
    return dataclasses.replace(GOOD, **changes)


def found(findings, rule):
    return [finding for finding in findings if finding.rule == rule]


def test_a_good_plan_is_told_only_what_it_can_gain():
    (one,) = before(GOOD)
    assert (one.rule, one.severity) == ("what a swap can gain", "note")
    # 785 / (785 + 6 * 192) = 40.5 %, and 1 / (1 - 0.405) = 1.68.
    assert "40.5 %" in one.sentence
    assert "1.68 x at most" in one.sentence
    assert "linear 1.33 x" in one.sentence


BAD_PLANS = {
    "degenerate": ("error", planned(rivals=(dataclasses.replace(LINEAR, refusal="linear is softmax here"),))),
    "seeds": ("error", planned(seeds=2)),
    "untuned": ("warning", planned(tuning="none")),
    "tuned beforehand": ("note", planned(tuning="beforehand", tuned_where="results/rates")),
    "more work than softmax": ("warning", planned(rivals=(changed(LINEAR, attention_flops_per_image=8.1e8),))),
    "parameters": ("warning", planned(rivals=(changed(LINEAR, parameters=5_600_000),))),
    "head width": ("warning", planned(softmax=changed(SOFTMAX, head_width=16))),
    "unfused": ("warning", planned(device="cuda:0")),
    "copied data": ("warning", planned(data={"name": "photos", "copied": True})),
    "one scale": ("warning", planned(scales=1)),
    "from scratch only": ("warning", planned(init="scratch")),
    "launch-bound": ("warning", planned(device="cuda", batch_size=1)),
    "what a swap can gain": (
        "warning",
        planned(softmax=changed(SOFTMAX, tokens=50, quadratic_share=50 / (50 + 6 * 192))),
    ),
}


@pytest.mark.parametrize("rule", BAD_PLANS)
def test_a_bad_plan_is_seen(rule):
    severity, plan = BAD_PLANS[rule]
    (one,) = found(before(plan), rule)
    assert one.severity == severity
    assert one.sentence


@pytest.mark.parametrize("rule", BAD_PLANS)
def test_a_bad_plan_is_bad_in_nothing_else(rule):
    others = {"unfused", "launch-bound"} if rule in ("unfused", "launch-bound") else set()
    assert {one.rule for one in before(BAD_PLANS[rule][1])} <= {rule, "what a swap can gain", *others}


def test_three_seeds_are_a_warning_and_five_are_fine():
    assert found(before(planned(seeds=3)), "seeds")[0].severity == "warning"
    assert found(before(planned(seeds=4)), "seeds")[0].severity == "warning"
    assert not found(before(planned(seeds=5)), "seeds")


def test_a_tenth_more_or_less_parameters_passes():
    assert not found(before(planned(rivals=(changed(LINEAR, parameters=5_490_000),))), "parameters")
    assert found(before(planned(rivals=(changed(LINEAR, parameters=4_400_000),))), "parameters")


def test_latency_of_a_small_model_is_said_to_count_kernels():
    small = planned(softmax=changed(SOFTMAX, flops_per_image=4e6))
    (one,) = found(before(small), "launch-bound")
    assert one.severity == "note"
    assert "batch 1" in one.sentence


def test_kernels_on_a_processor_and_fused_rivals_are_no_matter():
    assert not found(before(GOOD), "unfused")
    fused = planned(device="cuda", rivals=(dataclasses.replace(LINEAR, kernel="sdpa"),))
    assert not found(before(fused), "unfused")
    assert not found(before(planned(device="cuda", softmax=dataclasses.replace(SOFTMAX, kernel="explicit"))), "unfused")


def test_a_comparison_that_can_gain_nothing_stops():
    little = changed(LINEAR, flops_per_image=2e9 / 1.09)
    dear = changed(dataclasses.replace(LINEAR, attention="lambda"), flops_per_image=3e9)
    assert stop(planned(rivals=(little, dear))).sentence.endswith("1.09 x, with linear")
    assert "--anyway" in stop(planned(rivals=(little,))).remedy


def test_one_mechanism_that_can_gain_a_tenth_lets_it_run():
    much = changed(dataclasses.replace(LINEAR, attention="fourier"), flops_per_image=2e9 / 1.11)
    little = changed(LINEAR, flops_per_image=2e9)
    assert stop(planned(rivals=(little, much))) is None
    assert stop(planned(rivals=())) is None


def test_errors_come_first():
    order = [Finding("b", "note", "x"), Finding("a", "error", "x"), Finding("c", "warning", "x")]
    assert [one.rule for one in by_severity(order)] == ["a", "c", "b"]
    assert str(Finding("a", "error", "it burns", "water")) == "error: a: it burns. Remedy: water."


def test_a_long_list_is_counted():
    assert listed(["a", "b", "a", "c", "d"], most=3) == "a, b, c and 1 more"


def doctor(records):
    return after(records)


def good(made, **options):
    return made.whole({"softmax": 0.92, "linear": 0.91}, costs={"linear": 0.8}, **options)


def test_good_records_give_no_finding(made):
    assert doctor(good(made)) == []


def replaced(records, kind, attention, **changes):
    """The records with those of a kind and mechanism changed; a mapping is merged."""

    def new(record):
        if record.kind != kind or record.attention != attention:
            return record
        merged = {
            name: {**getattr(record, name), **value} if isinstance(value, dict) else value
            for name, value in changes.items()
        }
        return dataclasses.replace(record, **merged)

    return [new(record) for record in records]


def test_a_diverged_run_is_named(made):
    bad = [*good(made), made.accuracy("linear", seed=2, error="diverged: step 3")]
    (one,) = doctor(bad)
    assert one.rule == "diverged"
    assert "linear (seed 2)" in one.sentence


def test_softmax_under_another_name_is_seen(made):
    bad = [made.accuracy(name, seed, percent=91.0 + seed) for name in ("softmax", "nystrom") for seed in range(3)]
    (one,) = doctor(bad)
    assert (one.rule, one.severity) == ("same answers", "error")
    assert "nystrom" in one.sentence


def test_two_models_that_make_no_mistake_are_not_taken_for_one(made):
    assert doctor([made.accuracy(name, 0, percent=100.0) for name in ("softmax", "linear")]) == []


def test_guessing_is_seen(made):
    bad = [made.accuracy(name, seed, percent=18.0 + seed) for name in ("linear", "softmax") for seed in (0, 1)]
    bad[2:] = [made.accuracy("softmax", seed, percent=90.0 + seed) for seed in (0, 1)]
    (one,) = doctor(bad)
    assert (one.rule, one.severity) == ("nothing learned", "warning")
    assert "guessing reaches 10.0 %" in one.sentence
    assert "linear (18.6 %)" in one.sentence
    bad = [made.accuracy("softmax", percent=18.0), made.accuracy("linear", percent=80.0)]
    assert [(one.rule, one.severity) for one in doctor(bad)] == [("nothing learned", "error")]


def test_another_recipe_model_or_budget_is_seen(made):
    other = made.recipe("linear", 0, 1e-3)
    other["train"]["epochs"] = 10
    for changes, name in (
        ({"recipe": other}, "train.epochs"),
        ({"model_options": {"patch_size": 1}}, "model.patch_size"),
        ({"values": {"images_seen": 1}}, "images_seen"),
        ({"data": {"fingerprint": "other"}}, "data.fingerprint"),
    ):
        (one,) = found(doctor(replaced(good(made), "accuracy", "linear", **changes)), "a second thing changed")
        assert one.severity == "error"
        assert name in one.sentence


def test_seeds_at_different_rates_are_seen(made):
    bad = [*good(made), made.accuracy("linear", seed=1, lr=3e-3, percent=90.5)]
    assert [one.rule for one in doctor(bad)] == ["mixed rates"]


def test_a_best_rate_at_the_end_of_the_grid_is_seen(made):
    tuned = [made.tuning("linear", lr, percent) for lr, percent in ((1e-4, 80.0), (1e-3, 85.0), (1e-2, 90.0))]
    (one,) = doctor([*good(made, tuned=False), *tuned])
    assert one.rule == "optimum at the edge"
    assert "linear (0.01)" in one.sentence
    beyond = made.tuning("linear", 3e-2, 0.0, error="diverged: step 1")
    assert doctor([*good(made, tuned=False), *tuned, beyond]) == []


def test_a_choice_made_on_the_test_set_is_seen(made):
    (one,) = doctor(replaced(good(made), "tuning", "linear", values={"test_top1_percent": 90.0}))
    assert (one.rule, one.severity) == ("selection on test", "error")
    data = {"images": {"train": 1000, "validation": 0, "test": 360}}
    bad = replaced(replaced(good(made), "accuracy", "linear", data=data), "accuracy", "softmax", data=data)
    assert [one.rule for one in doctor(bad)] == ["selection on test"]


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "bf16"}, {"batch_size": 1}, {"threads": 2}, {"checkpointing": True}, {"compile": True}],
    ids=str,
)
def test_unequal_terms_are_seen(made, changes):
    for kind in ("seconds", "memory"):
        (one,) = found(doctor(replaced(good(made), kind, "linear", conditions=changes)), "unequal terms")
        assert one.severity == "error"
        assert next(iter(changes)) in one.sentence


def test_the_rounds_of_two_days_may_have_terms_of_their_own(made):
    later = [
        made.seconds(name, kernel=kernel, round="2026-02-01", created="2026-02-01T00:00:00+00:00")
        for name, kernel in (("softmax", "sdpa"), ('softmax(kernel="explicit")', "explicit"), ("linear", "eager"))
    ]
    later = [dataclasses.replace(one, conditions={**one.conditions, "threads": 2}) for one in later]
    assert doctor([*good(made), *later]) == []


def test_two_machines_and_two_versions_are_seen(made):
    one, *_ = doctor(replaced(good(made), "seconds", "linear", machine={"processor": "another"}))
    assert (one.rule, one.severity) == ("unlike machines", "error")
    (one,) = doctor(replaced(good(made), "accuracy", "linear", machine={"commit": "later"}))
    assert (one.rule, one.severity) == ("unlike versions", "warning")


def test_rates_may_be_tuned_by_an_earlier_version_but_all_by_that_one(made):
    records = good(made)
    earlier = [
        dataclasses.replace(one, machine={**one.machine, "commit": "earlier"}) if one.kind == "tuning" else one
        for one in records
    ]
    assert doctor(earlier) == []
    last = max(place for place, one in enumerate(records) if one.kind == "tuning")
    (one,) = doctor([*earlier[:last], records[last], *earlier[last + 1 :]])
    assert (one.rule, one.severity) == ("unlike versions", "warning")


def test_a_clock_started_cold_is_seen(made):
    (one,) = doctor(replaced(good(made), "seconds", "linear", values={"warmup_step_seconds": []}))
    assert (one.rule, one.severity) == ("no warm-up", "error")
    (one,) = doctor(replaced(good(made), "seconds", "linear", values={"step_steady": False}))
    assert (one.rule, one.severity) == ("not steady", "warning")
    assert doctor(replaced(good(made), "seconds", "linear", values={"step_steady": True})) == []


def test_a_shared_process_is_seen(made):
    shared = replaced(good(made), "memory", "linear", conditions={"process": 7})
    assert doctor(shared) == []
    (one,) = doctor(replaced(shared, "memory", "softmax", conditions={"process": 7}))
    assert (one.rule, one.severity) == ("shared process", "error")


def test_one_step_and_few_repeats_are_seen(made):
    assert doctor(replaced(good(made), "memory", "linear", values={"optimiser_steps": 2})) == []
    (one,) = doctor(replaced(good(made), "memory", "linear", values={"optimiser_steps": 1}))
    assert (one.rule, one.severity) == ("one step", "error")
    few = good(made)
    few = [
        dataclasses.replace(one, values={**one.values, "step_seconds": one.values["step_seconds"][:4]})
        if one.kind == "seconds"
        else one
        for one in few
    ]
    assert [one.rule for one in doctor(few)] == ["few repeats"]


def test_a_busy_machine_is_seen(made):
    (one,) = doctor(replaced(good(made), "seconds", "linear", conditions={"busy": True}))
    assert one.rule == "busy machine"
    unsaid = replaced(good(made), "seconds", "linear", conditions={"busy": None}, machine={"pressure_avg10": 12.0})
    assert [one.rule for one in doctor(unsaid)] == ["busy machine"]


def test_processor_time_is_marked(made):
    records = good(made)
    for name in ("softmax", "linear", 'softmax(kernel="explicit")'):
        records = replaced(records, "seconds", name, conditions={"clock": "cpu"})
    assert [(one.rule, one.severity) for one in doctor(records)] == [("processor time", "note")]


def test_a_round_without_softmax_is_seen(made):
    lonely = made.seconds("nystrom", round="2026-02-01T00:00:00")
    (one,) = doctor([*good(made), lonely])
    assert one.rule == "round without softmax"
    assert "nystrom" in one.sentence


def test_what_could_not_be_measured_is_named(made):
    failed = made.memory("linear", error="out of memory: 12 GB", values={})
    (one,) = doctor([*good(made), failed])
    assert one.rule == "not measured"
    assert "linear (memory: out of memory: 12 GB)" in one.sentence
