"""Tuning: one grid for all, widened for all, chosen on validation, and only where it was tuned."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.comparison.fit import ask
from saccade.comparison.tuning import best_rate, rate_grid, read_rates, widened
from saccade.record import Record, write_records
from saccade.training.recipe import recipe_from_dict, recipe_to_dict, with_values
from saccade.training.recipes import named_recipe

ROOT = Path(__file__).resolve().parents[2]


def tuned(rate, top1, *, error=None, model="vit_nano_patch1_8", epochs=8, fingerprint="abc", seed=1_000_000):
    return Record(
        kind="tuning",
        attention="linear",
        attention_resolved="linear()",
        model=model,
        values={} if error else {"validation_top1_percent": top1},
        recipe={"train": {"lr": rate, "seed": seed, "epochs": epochs}, "augment": {"flip": 0.0}},
        data={"fingerprint": fingerprint},
        error=error,
    )


def test_the_grid_is_half_decades_around_the_recipes_rate():
    assert rate_grid(1e-3, 5) == (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2)


def test_an_even_grid_has_its_extra_rate_below():
    assert rate_grid(1e-3, 2) == (3.16e-4, 1e-3)


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ValueError, match="1 rate at the least"):
        rate_grid(1e-3, 0)


@given(st.floats(1e-6, 1.0), st.integers(1, 9))
def test_the_recipes_rate_is_in_every_grid(rate, count):
    rate = float(f"{rate:.3g}")
    grid = rate_grid(rate, count)
    assert rate in grid
    assert len(grid) == count
    assert list(grid) == sorted(grid)


def test_an_optimum_at_an_edge_widens_the_grid_on_that_side():
    assert widened((1e-3, 3.16e-3, 1e-2), {1e-2, 3.16e-3}) == (1e-3, 3.16e-3, 1e-2, 3.16e-2)
    assert widened((1e-3, 3.16e-3, 1e-2), {1e-3}) == (3.16e-4, 1e-3, 3.16e-3, 1e-2)


def test_an_optimum_inside_leaves_the_grid():
    assert widened((1e-3, 3.16e-3, 1e-2), {3.16e-3}) == (1e-3, 3.16e-3, 1e-2)


def test_the_best_rate_is_the_lower_of_equals_and_never_one_that_diverged():
    records = [tuned(1e-3, 80.0), tuned(1e-2, 80.0), tuned(1e-1, 0, error="diverged: step 3"), tuned(1e-4, 70.0)]
    assert best_rate(records) == 1e-3


def test_nothing_finished_chooses_nothing():
    assert best_rate([tuned(1e-3, 0, error="diverged: step 3")]) is None


def test_rates_are_read_back_from_another_comparison(tmp_path):
    write_records(tmp_path / "records.jsonl", [tuned(1e-3, 80.0), tuned(1e-2, 90.0)])
    assert best_rate(read_rates(tmp_path, like=tuned(5e-4, 0.0, seed=3), wanted=["linear()"])) == 1e-2


@pytest.mark.parametrize(
    ("other", "word"),
    [({"model": "vit_micro_patch4_32"}, "model"), ({"epochs": 9}, "training"), ({"fingerprint": "def"}, "images")],
)
def test_rates_of_another_question_are_refused(tmp_path, other, word):
    write_records(tmp_path / "records.jsonl", [tuned(1e-3, 80.0, **other)])
    with pytest.raises(ValueError, match=word):
        read_rates(tmp_path, like=tuned(1e-3, 0.0), wanted=["linear()"])


def test_a_folder_without_tuning_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no records\.jsonl"):
        read_rates(tmp_path, like=tuned(1e-3, 0.0), wanted=["linear()"])
    write_records(tmp_path / "records.jsonl", [])
    with pytest.raises(ValueError, match="no tuning records"):
        read_rates(tmp_path, like=tuned(1e-3, 0.0), wanted=["linear()"])


def test_a_mechanism_without_tuned_rates_is_refused_by_name(tmp_path):
    write_records(tmp_path / "records.jsonl", [tuned(1e-3, 80.0)])
    with pytest.raises(ValueError, match=r"no run of fourier\(\) was tuned"):
        read_rates(tmp_path, like=tuned(1e-3, 0.0), wanted=["linear()", "fourier()"])


def test_rates_of_mechanisms_that_are_not_asked_for_are_left_out(tmp_path):
    write_records(tmp_path / "records.jsonl", [tuned(1e-3, 80.0)])
    with pytest.raises(ValueError, match="no run of"):
        read_rates(tmp_path, like=tuned(1e-3, 0.0), wanted=["softmax()"])


def test_the_rates_of_make_compare_hold_for_the_mechanisms_of_today():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = shlex.split(re.search(r"^MECHANISMS := (.*)$", makefile, re.MULTILINE)[1])
    folder = ROOT / re.search(r"--rates (\S+)", makefile)[1]
    question = ask(named_recipe("digits"), names, "cpu", print)
    wanted = [question.entry(name).attention_resolved for name in names]
    records = read_rates(folder, like=question.example(), wanted=wanted)
    assert {record.attention_resolved for record in records} == set(wanted)


def test_rates_hold_where_the_recipe_has_learned_a_setting_since_and_it_is_left_as_it_was(tmp_path):
    old = tuned(1e-3, 80.0)
    write_records(tmp_path / "records.jsonl", [old])
    today = replace(old, recipe=recipe_to_dict(recipe_from_dict(old.recipe)))
    assert len(read_rates(tmp_path, like=today, wanted=[old.attention_resolved])) == 1
    changed = replace(
        today, recipe=recipe_to_dict(with_values(recipe_from_dict(old.recipe), {"train.layer_decay": 0.7}))
    )
    with pytest.raises(ValueError, match="training was"):
        read_rates(tmp_path, like=changed, wanted=[old.attention_resolved])


def test_rates_of_another_scale_do_not_hold_and_a_rival_s_model_is_its_own(tmp_path):
    wide = replace(tuned(1e-2, 99.0), conditions={"scale": "twice the width"}, model_options={"embed_dim": 64})
    rival = replace(tuned(1e-1, 99.0), conditions={"rival": "softmax at depth=1"}, model_options={"depth": 1})
    write_records(tmp_path / "records.jsonl", [tuned(1e-3, 80.0), wide, rival])
    like = tuned(1e-3, 0.0)
    assert best_rate(read_rates(tmp_path, like=like, wanted=["linear()"])) == 1e-3
    assert best_rate(read_rates(tmp_path, like=like, wanted=["softmax at depth=1"])) == 1e-1
    assert best_rate(read_rates(tmp_path, like=wide, wanted=["linear()"])) == 1e-2
    write_records(tmp_path / "records.jsonl", [tuned(1e-3, 80.0)])
    with pytest.raises(ValueError, match="no tuning records at twice the width"):
        read_rates(tmp_path, like=wide, wanted=["linear()"])
