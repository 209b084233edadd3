import dataclasses

import numpy as np
import pytest

from saccade.reports.costs import costs_by_attention
from saccade.reports.function import baseline_of, function_of
from saccade.reports.rows import best_softmax, rows
from saccade.reports.trained import chance_percent, right_answers

ACCURACIES = {"softmax": 0.92, "linear": 0.91, "fourier": 0.7}
COSTS = {"linear": 0.8, "fourier": 0.6}
EXPLICIT = 'softmax(kernel="explicit")'


def by_name(records, margin=1.0):
    return {row.attention: row for row in rows(records, margin)}


def test_softmax_stands_first_and_the_others_by_cost(made):
    found = rows(made.whole(ACCURACIES, costs=COSTS))
    assert [row.attention for row in found] == ["softmax", EXPLICIT, "fourier", "linear"]
    assert [row.baseline for row in found] == [True, True, False, False]


def test_the_kernels_of_softmax_share_its_accuracy_and_counts(made):
    found = by_name(made.whole(ACCURACIES))
    assert found[EXPLICIT].accuracy_percent == found["softmax"].accuracy_percent
    assert found[EXPLICIT].parameters == found["softmax"].parameters == 28_298
    assert found[EXPLICIT].verdict == "baseline"
    assert found["softmax"].difference is None


def test_softmax_with_other_options_is_a_rival(made):
    records = made.whole({"softmax": 0.92, "softmax(rope=True)": 0.5})
    assert by_name(records)["softmax(rope=True)"].verdict == "worse"
    assert function_of("softmax(kernel='sdpa', rope=True)") == "softmax(rope=True)"
    assert function_of("softmax(rope=True)*2,linear(bias=True)*2") == "softmax(rope=True)*2,linear(bias=True)*2"
    assert function_of('other(kernel="gaussian")') == 'other(kernel="gaussian")'
    assert baseline_of([]) is None


def test_numbers_are_those_of_the_records(made):
    records = made.whole(ACCURACIES, costs=COSTS)
    row = by_name(records)["linear"]
    own = [one.values["test_top1_percent"] for one in records if one.kind == "accuracy" and one.attention == "linear"]
    assert row.mean_percent == pytest.approx(sum(own) / 3)
    assert list(row.accuracy_percent) == [0, 1, 2]
    softmax = by_name(records)["softmax"]
    assert row.difference.points == pytest.approx(row.mean_percent - softmax.mean_percent)
    assert (row.lr, row.tuning_runs, row.train_seconds) == (1e-3, 3, 12.5)
    assert row.costs.peak_ratio == pytest.approx(0.8**0.7, rel=1e-6)
    assert row.costs.ratios["step"].value == pytest.approx(0.8, rel=0.05)
    assert row.costs.inference_batch == 256


def test_sensitivity_is_what_a_rate_loses_on_average_and_divergence_is_chance(made):
    records = made.whole(ACCURACIES, tuned=False)
    tuned = [made.tuning("linear", lr, percent) for lr, percent in ((1e-4, 84.0), (1e-3, 90.0))]
    assert by_name([*records, *tuned])["linear"].sensitivity_points == pytest.approx(3.0)
    broken = made.tuning("linear", 1e-2, 0.0, error="diverged: step 7")
    assert by_name([*records, *tuned, broken])["linear"].sensitivity_points == pytest.approx((0 + 6 + 80) / 3)
    assert by_name(records)["linear"].sensitivity_points is None
    assert chance_percent(records) == 10.0


def test_right_answers_are_unpacked_in_order(made):
    right = np.random.default_rng(0).random(361) < 0.5
    assert (right_answers(made.accuracy("softmax", right=right)) == right).all()


def test_the_margin_may_be_a_whole_number(made):
    assert by_name(made.whole(ACCURACIES), 3)["fourier"].verdict == "worse"


def test_a_diverged_seed_takes_the_verdict(made):
    records = [*made.whole(ACCURACIES), made.accuracy("linear", 1, error="diverged: step 3")]
    row = by_name(records)["linear"]
    assert (row.verdict, row.diverged, row.difference) == ("diverged", (1,), None)
    assert "diverged at seed 1" in row.marks
    assert not row.eligible
    assert by_name(records)["fourier"].difference is not None


def test_a_missing_seed_is_incomplete(made):
    records = [one for one in made.whole(ACCURACIES) if (one.attention, one.seed) != ("linear", 1)]
    assert by_name(records)["linear"].verdict == "incomplete"
    assert by_name(records)["fourier"].verdict == "worse"


def test_other_images_are_not_paired(made):
    other = made.accuracy("linear", 1, percent=90.0, images=100)
    assert by_name([*made.whole(ACCURACIES), other])["linear"].verdict == "incomplete"
    record = made.accuracy("linear", 1, percent=90.0)
    other = dataclasses.replace(record, data={**record.data, "fingerprint": "other"})
    assert by_name([*made.whole(ACCURACIES), other])["linear"].verdict == "incomplete"


def test_without_softmax_there_is_no_difference(made):
    records = made.whole(ACCURACIES)
    broken = [*records, made.accuracy("softmax", 0, error="diverged: step 3")]
    assert all(row.difference is None for row in rows(broken))
    assert by_name(broken)["softmax"].verdict == "diverged"
    only = [one for one in records if one.attention == "linear"]
    (row,) = rows(only)
    assert (row.difference, dict(row.costs.ratios), row.costs.peak_ratio) == (None, {}, None)


def test_one_seed_gives_a_difference_without_a_verdict(made):
    row = by_name(made.whole(ACCURACIES, seeds=1))["linear"]
    assert row.verdict == "too few seeds"
    assert row.difference.low_points is None


def test_ratios_are_to_the_fastest_softmax_of_each_column(made):
    records = [
        made.seconds("softmax", 1.0, 2.0, 1.0, kernel="sdpa"),
        made.seconds(EXPLICIT, 2.0, 1.0, 2.0, kernel="explicit"),
        made.seconds("linear", 1.0, 1.0, 1.0),
    ]
    found = by_name(records)
    assert found["linear"].costs.ratios["step"].value == pytest.approx(1.0, rel=0.05)
    assert found["linear"].costs.ratios["latency"].value == pytest.approx(1.0, rel=0.05)
    assert found["softmax"].costs.ratios["latency"].value == pytest.approx(2.0, rel=0.05)
    assert best_softmax(list(found.values())).attention == "softmax"
    assert best_softmax(list(found.values()), "latency").attention == EXPLICIT


def test_ratios_are_formed_within_the_latest_round_that_holds_both(made):
    def timed(name, step, day, kernel="eager"):
        return made.seconds(name, step, round=day, created=f"{day}T00:00:00+00:00", kernel=kernel)

    records = [
        timed("softmax", 1.0, "2026-01-01", "sdpa"),
        timed("linear", 0.5, "2026-01-01"),
        timed("softmax", 2.0, "2026-01-02", "sdpa"),
        timed("linear", 0.5, "2026-01-02"),
        timed("linear", 9.0, "2026-01-03"),
    ]
    ratio = by_name(records)["linear"].costs.ratios["step"].value
    assert ratio == pytest.approx(0.25, rel=0.05)


def test_unlike_records_are_not_divided(made):
    softmax, linear = made.seconds("softmax", kernel="sdpa"), made.seconds("linear")
    memory = [made.memory("softmax"), made.memory("linear")]
    for changes in ({"conditions": {**linear.conditions, "threads": 2}}, {"machine": {"processor": "another"}}):
        other = dataclasses.replace(linear, **changes)
        assert by_name([softmax, other])["linear"].costs.ratios == {}
        other = dataclasses.replace(memory[1], **changes)
        assert by_name([memory[0], other])["linear"].costs.peak_ratio is None
    assert by_name(memory)["linear"].costs.peak_ratio == 1.0


def test_a_failed_measurement_is_a_mark_and_no_number(made):
    records = [
        made.seconds("softmax", kernel="sdpa"),
        made.seconds("linear", error="out of memory: it took 9 GB", values={}),
        made.memory("softmax"),
        made.memory("linear", error="out of memory: it took 9 GB", values={}),
    ]
    row = by_name(records)["linear"]
    assert row.marks == ("unfused", "out of memory")
    assert (row.costs.seconds, row.costs.ratios, row.costs.peak_bytes) == ({}, {}, None)


def test_eager_code_against_a_fused_softmax_is_marked(made):
    fused = [made.seconds("softmax", kernel="sdpa"), made.seconds("linear")]
    assert by_name(fused)["linear"].marks == ("unfused",)
    assert by_name(fused)["softmax"].marks == ("sdpa kernel",)
    explicit = [made.seconds("softmax", kernel="explicit"), made.seconds("linear")]
    assert by_name(explicit)["linear"].marks == ()


def test_the_later_record_of_a_cell_counts(made):
    records = [made.memory("softmax"), made.memory("linear", 10), made.memory("linear", 20)]
    assert costs_by_attention(records, baseline_of(records))[records[1].attention_resolved].peak_bytes == 20


def test_a_row_is_plain_values(made):
    import json

    for row in rows(made.whole(ACCURACIES, seeds=1)):
        plain = json.loads(json.dumps(row.plain(), allow_nan=False))
        assert plain["attention"] == row.attention
        assert plain["verdict"] == row.verdict
