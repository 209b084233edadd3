"""Rivals are found by the clock, and a larger model is the one that was asked for in all but its size."""

import math
from dataclasses import replace

import pytest
from tests.comparison.clock import Clock
from tests.comparison.test_compare import SMALL

import saccade
from saccade.comparison import rivals
from saccade.comparison.costs import Terms
from saccade.comparison.fit import ask
from saccade.comparison.part import Asked, plan_part
from saccade.comparison.rivals import aims, find_rivals
from saccade.comparison.scales import scales_of
from saccade.comparison.store import Store
from saccade.measurement.rivals import families
from saccade.training.progress import Silent
from saccade.training.recipe import with_values
from saccade.training.recipes import named_recipe

TERMS = Terms(batch_size=32, dtype="fp32", amp_dtype=None, device="cpu", threads=1, clock="wall", repeats=1)


@pytest.fixture(scope="module")
def question():
    return ask(named_recipe("digits"), [], "cpu", print)


def found(question, store, clock, monkeypatch, attentions=("linear", "fourier"), aim=None):
    monkeypatch.setattr(rivals, "time_entries", clock)
    entries = question.entries(attentions, lambda line: None)
    return find_rivals(question, aims(question, entries, aim), TERMS, store, Silent())


@pytest.mark.parametrize("of_share", [lambda share: share**2, lambda share: 0.2 + 0.8 * share, math.sqrt], ids=range(3))
@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_each_rival_is_the_dearest_of_its_kind_that_takes_no_longer(question, tmp_path, monkeypatch, target, of_share):
    clock = Clock({"linear": 0.8, "fourier": target}, of_share)
    chosen = {entry.rival for entry in found(question, Store(tmp_path), clock, monkeypatch).entries}
    for way, family in families("vit_nano_patch1_8", question.recipe.model.options).items():
        steps = {one.label: of_share(one.share) for one in family}
        fit = {label: step for label, step in steps.items() if step <= 1.1 * target}
        met = chosen & set(steps)
        assert len(met) == bool(fit), way
        # Within the tolerance any will do.
        assert all(steps[label] >= min(target / 1.1, max(fit.values())) for label in met)


def test_the_cost_is_the_cheapest_mechanism_s_or_that_of_the_one_named(question, tmp_path, monkeypatch):
    clock = Clock({"linear": 0.8, "fourier": 0.5})
    cheapest = found(question, Store(tmp_path / "a"), clock, monkeypatch)
    assert {entry.rival_of for entry in cheapest.entries} == {question.entry("fourier").attention_resolved}
    named = found(question, Store(tmp_path / "b"), clock, monkeypatch, aim="linear(bias=True)")
    assert {entry.rival_of for entry in named.entries} == {question.entry("linear").attention_resolved}
    assert named.told.startswith("a step of linear takes 0.80 × softmax's")


def test_what_was_timed_is_not_timed_again_and_what_failed_is(question, tmp_path, monkeypatch):
    store, clock = Store(tmp_path), Clock({"linear": 0.8, "fourier": None})
    first = found(question, store, clock, monkeypatch)
    assert first.told.startswith("a step of linear")
    clock.rounds.clear()
    assert found(question, store, clock, monkeypatch) == first
    assert clock.rounds == [["softmax", "fourier"]]


def test_a_mechanism_that_saves_nothing_has_softmax_for_its_rival(question, tmp_path, monkeypatch):
    none = found(question, Store(tmp_path), Clock({"linear": 0.95, "fourier": 1.4}), monkeypatch)
    assert none.entries == ()
    assert none.told.endswith("softmax as it is is its rival")
    nothing = found(question, Store(tmp_path / "b"), Clock({"linear": None, "fourier": None}), monkeypatch)
    assert "could be timed" in nothing.told


def test_a_rival_that_could_not_be_timed_is_none(question, tmp_path, monkeypatch):
    clock = Clock({"linear": 0.6, "fourier": 0.6, "softmax at depth=1": None})
    one = found(question, Store(tmp_path), clock, monkeypatch)
    assert "softmax at depth=1" not in [entry.rival for entry in one.entries]
    assert "none was found by fewer layers" in one.told


def test_twice_the_width_keeps_the_width_of_heads_and_four_times_the_tokens_the_images(question):
    _, wide = scales_of(question, 2, "width", print)
    options = wide.recipe.model.options
    assert (options["embed_dim"], options["num_heads"]) == (64, 8)
    assert (wide.scale, wide.data, wide.key == question.key) == ("twice the width", question.data, False)
    patches = ask(with_values(named_recipe("digits"), {"model.options.patch_size": 2}), [], "cpu", print)
    _, fine = scales_of(patches, 2, "tokens", print)
    assert fine.recipe.model.options["patch_size"] == (1, 1)
    assert fine.data["fingerprint"] == question.data["fingerprint"]
    _, large = scales_of(question, 2, "tokens", print)
    assert large.recipe.model.options["img_size"] == (16, 16)
    assert large.scale == fine.scale == "four times the tokens"
    with pytest.raises(ValueError, match="--scales 3"):
        scales_of(question, 3, "width", print)


def test_a_masked_autoencoder_s_decoder_grows_with_it():
    pretraining = ask(named_recipe("mae-digits"), [], "cpu", print)
    _, wide = scales_of(pretraining, 2, "width", print)
    assert (wide.recipe.model.options["decoder_embed_dim"], wide.recipe.model.options["decoder_num_heads"]) == (32, 4)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"rivals": True, "task": "mae", "recipe": "mae-digits"}, "another task"),
        ({"rivals": True, "attentions": ["softmax"]}, "compared are none"),
        ({"rivals_of": "fourier"}, "compared are linear"),
        ({"scales": 0}, "--scales 0"),
    ],
    ids=str,
)
def test_what_has_no_sense_is_refused_before_anything_runs(wrong, word, tmp_path):
    asked = {"attentions": ["linear"], **SMALL, "output": tmp_path / "out", **wrong}
    with pytest.raises(ValueError, match=word):
        saccade.compare(**asked)
    assert not (tmp_path / "out").exists()


def test_a_mechanism_that_makes_no_sense_at_the_other_scale_is_refused_by_its_name(question):
    small = with_values(question.recipe, {"model.options.img_size": 2})
    asked = Asked(terms=TERMS, seeds=1, tune=0, rates=None, scales=2, rivals=False, rivals_of=None, jobs=1)
    with pytest.raises(ValueError, match=r"^at another size, nystrom\(landmarks=8\)"):
        plan_part(replace(question, recipe=small, scale="another size"), ["nystrom(landmarks=8)"], asked, print)


def test_more_terms_are_other_hasty_timings(question, tmp_path, monkeypatch):
    store, clock = Store(tmp_path), Clock({"linear": 0.8, "fourier": 0.5})
    found(question, store, clock, monkeypatch)
    entries = question.entries(["linear"], lambda line: None)
    clock.rounds.clear()
    find_rivals(question, entries[1:], replace(TERMS, threads=2), store, Silent())
    assert clock.rounds[0] == ["softmax", "linear"]
