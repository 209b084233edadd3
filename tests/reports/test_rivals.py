"""Rivals in a report: beside the mechanisms and not among them, chosen on validation, judged as everybody."""

from dataclasses import replace

import numpy as np
import pytest

from saccade.reports.answer import answer, answer_at_scales
from saccade.reports.basis import basis
from saccade.reports.columns import columns, legend
from saccade.reports.contenders import apart, by_scale
from saccade.reports.fairness.finding import Finding
from saccade.reports.rivals import against_rivals, best_rival, of_that_cost, with_rivals
from saccade.reports.rows import rows
from saccade.reports.scales import Scale
from saccade.reports.statistics import differences
from saccade.reports.tables import markdown
from saccade.reports.trained import right_answers

SHALLOW, COARSE = "softmax at depth=1", "softmax at patch_size=2"
COSTS = {"linear": 0.6, "fourier": 0.62, "lambda": 1.5, SHALLOW: 0.55, COARSE: 0.6}
ACCURACIES = {"softmax": 0.92, "linear": 0.85, "fourier": 0.70, "lambda": 0.95, SHALLOW: 0.80, COARSE: 0.75}


def compared(made, accuracies=ACCURACIES, validation=None, costs=COSTS, **options):
    """Records as `apart` gives them; linear's cost is met."""
    told = []
    for record in made.whole(accuracies, costs=costs, seeds=options.pop("seeds", 3), images=2000, **options):
        name = record.attention
        if name.startswith("softmax at"):
            of = {"rival_of": "linear(bias=True)"} if record.kind == "operations" else {}
            record = replace(record, conditions={**record.conditions, "rival": name, **of})
        if record.kind == "accuracy":
            percent = 100 * accuracies[name] if validation is None else validation.get(name, 50.0)
            record = replace(record, values={**record.values, "validation_top1_percent": percent})
        told.append(record)
    return told


def judged(records, margin=1.0):
    return with_rivals(rows(records, margin), records, margin)


def row_of(found, name):
    return next(row for row in found if row.attention == name)


def test_rivals_stand_behind_the_mechanisms(made):
    found = judged(compared(made))
    assert [row.attention for row in found if row.rival] == [SHALLOW, COARSE]
    assert [row.rival for row in found] == [False] * 5 + [True] * 2
    assert {row.rival_of for row in found if row.rival} == {"linear"}


def test_what_is_found_of_mechanisms_does_not_depend_on_rivals(made):
    with_them = compared(made)
    without = [record for record in with_them if "rival" not in record.conditions]
    for row in judged(without):
        assert row_of(judged(with_them), row.attention).difference == row.difference


def test_the_best_rival_is_chosen_on_the_validation_part(made):
    assert best_rival(judged(compared(made))).attention == SHALLOW
    assert best_rival(judged(compared(made, validation={COARSE: 99.0}))).attention == COARSE


def test_a_rival_that_turned_out_dearer_and_a_dearer_mechanism_are_not_held_against_each_other(made):
    dear = compared(made, costs={**COSTS, SHALLOW: 0.8})
    assert best_rival(judged(dear)).attention == COARSE
    assert [row.attention for row in judged(dear) if "dearer than linear" in row.marks] == [SHALLOW]
    assert [row.attention for row in of_that_cost(judged(dear))] == ["linear", "fourier"]
    assert row_of(judged(dear), "lambda").to_rival is None
    none = judged(compared(made, costs={**COSTS, SHALLOW: 0.8, COARSE: 0.8}))
    assert best_rival(none) is None
    assert "no other softmax model is left" in against_rivals(none)[0]


def test_the_difference_to_a_rival_is_that_of_the_paired_procedure(made):
    records = compared(made)
    runs = {}
    for record in records:
        if record.kind == "accuracy" and record.attention in (SHALLOW, "linear", "fourier"):
            runs.setdefault(record.attention, []).append(right_answers(record))
    expected = differences(np.stack([np.stack(runs[name]) for name in (SHALLOW, "linear", "fourier")]), 1.0)
    found = judged(records)
    assert [row_of(found, name).to_rival for name in ("linear", "fourier")] == expected
    assert [one.verdict for one in expected] == ["better", "worse"]
    assert row_of(found, "linear").plain()["to_rival_verdict"] == "better"
    assert row_of(found, SHALLOW).plain()["rival_of"] == "linear"


@pytest.mark.parametrize(
    ("linear", "seeds", "said"),
    [
        (0.85, 3, "It is beaten: linear better (+"),
        (0.70, 3, "No mechanism beats it: linear worse (−"),
        (0.805, 3, "No mechanism was shown to beat it: linear undecided ("),
        (0.85, 1, "Too few seeds say whether it is beaten: linear (+"),
    ],
)
def test_the_closing_sentence_says_whether_a_mechanism_beats_the_best_rival(made, linear, seeds, said):
    records = compared(made, {**ACCURACIES, "linear": linear}, seeds=seeds)
    text = answer(judged(records), basis(records))
    assert "At the cost of linear, the best of the other softmax models, chosen on the validation part, is" in text
    assert said in text
    assert text.index(said) < text.index("This rests on")


def test_a_rival_is_never_taken_for_a_mechanism(made):
    records = compared(made, {**ACCURACIES, SHALLOW: 0.95, "linear": 0.5, "fourier": 0.5, "lambda": 0.5})
    text = answer(judged(records), basis(records))
    assert text.startswith("Take softmax: nothing else")


def test_the_table_has_a_block_for_rivals_and_a_column_to_the_best(made):
    found = judged(compared(made))
    (column,) = [one for one in columns(found, 1.0) if one.heading[0] == "to rival"]
    place = [row.attention for row in found].index("linear")
    assert column.cells[place][0].endswith(" better")
    assert f"To rival = to {SHALLOW}" in legend(found)
    lines = markdown(found, 1.0).splitlines()
    empty = next(place for place, line in enumerate(lines) if not line.strip("| ") and "|" in line)
    assert SHALLOW in lines[empty + 1]
    plain = [row for row in found if not row.rival]
    assert "to rival" not in [one.heading[0] for one in columns([replace(row, to_rival=None) for row in plain], 1.0)]


def test_records_are_told_apart_by_rival_and_scale(made):
    record = made.memory("softmax", conditions={"rival": SHALLOW, "scale": "twice the width"})
    usual = made.memory("softmax")
    (one,) = apart([record])
    assert one.attention == one.attention_resolved == SHALLOW
    assert by_scale([record, usual]) == {"": [usual], "twice the width": [record]}
    assert apart([usual]) == [usual]


WIDE = {"softmax": 0.92, "linear": 0.92, "fourier": 0.92}


def at(made, name, accuracies, costs, findings=()):
    records = made.whole(accuracies, costs=costs, seeds=5, images=4000, spread=0.0005)
    return Scale(name=name, rows=rows(records, 3.0), basis=basis(records, 3.0), findings=findings)


def test_what_holds_at_both_scales_is_taken(made):
    cheap = {"linear": 0.8, "fourier": 0.6}
    scales = [
        at(made, "", WIDE, cheap),
        at(made, "twice the width", {**WIDE, "fourier": 0.8}, cheap),
    ]
    text = answer_at_scales(scales)
    assert text.startswith(
        "Take linear, which holds at both scales (only at the size asked for: fourier). At the size asked for: its "
    )
    assert "At twice the width: its accuracy is not worse than softmax's" in text


def test_where_nothing_holds_at_both_softmax_is_taken(made):
    text = answer_at_scales(
        [
            at(made, "", {**WIDE, "linear": 0.8}, {"linear": 0.6, "fourier": 0.6}),
            at(made, "four times the tokens", {**WIDE, "fourier": 0.8}, {"linear": 0.6, "fourier": 0.6}),
        ]
    )
    assert text.startswith(
        "Take softmax: nothing else was shown to be worth its cost at both scales (only at the size asked for: "
        "fourier; only at four times the tokens: linear)."
    )


def test_what_cost_nothing_less_at_one_scale_does_not_hold(made):
    scales = [at(made, "", WIDE, {"linear": 0.6, "fourier": 1.0}), at(made, "twice the width", WIDE, {"linear": 1.0})]
    assert answer_at_scales(scales).startswith("Take softmax: nothing else was shown to be worth")


def test_a_scale_that_is_confounded_forbids_a_recommendation(made):
    wrong = [Finding("a second thing changed", "error", "x")]
    scales = [at(made, "", WIDE, {"linear": 0.6}), at(made, "twice the width", WIDE, {"linear": 0.6}, wrong)]
    text = answer_at_scales(scales)
    assert text.startswith("No recommendation that holds at both scales. At twice the width: No recommendation: the")
