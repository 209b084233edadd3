"""Rivals and scales: found by the clock, trained and measured like everybody, and no part of what softmax is."""

import math
from dataclasses import replace

import pytest
from tests.comparison.test_compare import SMALL, Said

import saccade
from saccade.comparison import rivals
from saccade.comparison.costs import Terms
from saccade.comparison.fit import ask
from saccade.comparison.rivals import aims, find_rivals
from saccade.comparison.scales import scales_of
from saccade.comparison.store import Store
from saccade.measurement.machine import machine_facts
from saccade.measurement.rivals import families
from saccade.models.sizes import create_model
from saccade.record import Record
from saccade.reports.contenders import by_scale
from saccade.training.progress import Silent
from saccade.training.recipe import with_values
from saccade.training.recipes import named_recipe

TERMS = Terms(batch_size=32, dtype="fp32", amp_dtype=None, device="cpu", threads=1, clock="wall", repeats=1)


class Clock:
    """Steps that are told and not measured: of a model by its declared operations, of a mechanism by its name."""

    def __init__(self, steps, of_share=lambda share: share):
        self.steps = steps
        self.of_share = of_share
        self.rounds = []

    def __call__(self, question, terms, entries, what):
        self.rounds.append([entry.rival or entry.attention for entry in entries])
        return [self._record(question, terms, entry) for entry in entries]

    def _record(self, question, terms, entry):
        subject = terms.subject(question, entry)
        share = flops(subject.model, subject.options) / flops(subject.model, question.recipe.model.options)
        step = self.steps.get(entry.rival or entry.attention, self.of_share(share))
        return Record(
            kind="seconds",
            **subject.about(),
            values={} if step is None else {"step_seconds": [step] * terms.repeats},
            conditions={**terms.conditions(), "source": entry.source, **entry.marks},
            machine=machine_facts(),
            error="failed" if step is None else None,
        )


def flops(name, options):
    return sum(create_model(name, "softmax", **options).flops().values())


@pytest.fixture(scope="module")
def question():
    return ask(named_recipe("digits"), [], "cpu", print)


def found(question, store, clock, monkeypatch, attentions=("linear", "fourier"), aim=None):
    monkeypatch.setattr(rivals, "time_entries", clock)
    entries = question.entries(attentions, lambda line: None)
    return find_rivals(question, aims(question, entries, aim), TERMS, store, Silent())


@pytest.mark.parametrize("of_share", [lambda share: share, lambda share: 0.2 + 0.8 * share, math.sqrt], ids=range(3))
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
    assert found(question, Store(tmp_path / "a"), clock, monkeypatch).aim.attention == "fourier"
    named = found(question, Store(tmp_path / "b"), clock, monkeypatch, aim="linear(bias=True)")
    assert named.aim.attention == "linear"
    assert named.told.startswith("a step of linear takes 0.80 × softmax's")


def test_what_was_timed_is_not_timed_again_and_what_failed_is(question, tmp_path, monkeypatch):
    store, clock = Store(tmp_path), Clock({"linear": 0.8, "fourier": None})
    first = found(question, store, clock, monkeypatch)
    assert first.aim.attention == "linear"
    clock.rounds.clear()
    assert found(question, store, clock, monkeypatch) == first
    assert clock.rounds == [["softmax", "fourier"]]


def test_a_mechanism_that_saves_nothing_has_softmax_for_its_rival(question, tmp_path, monkeypatch):
    none = found(question, Store(tmp_path), Clock({"linear": 0.95, "fourier": 1.4}), monkeypatch)
    assert (none.aim, none.entries) == (None, ())
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
    assert fine.recipe.model.options["patch_size"] == [1, 1]
    assert fine.data["fingerprint"] == question.data["fingerprint"]
    _, large = scales_of(question, 2, "tokens", print)
    assert large.recipe.model.options["img_size"] == [16, 16]
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
        ({"scales": 2, "attentions": ["linformer(k=64)"], "settings": {"model.options.img_size": 16}}, "k must be"),
    ],
    ids=str,
)
def test_what_has_no_sense_is_refused_before_anything_runs(wrong, word, tmp_path):
    asked = {"attentions": ["linear"], **SMALL, "output": tmp_path / "out", **wrong}
    with pytest.raises(ValueError, match=word):
        saccade.compare(**asked)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Fourier, and by a clock that is told one rival of it, at two scales; as begun without either, then extended."""
    folder = tmp_path_factory.mktemp("rivals") / "runs"
    asked = {"seeds": 1, "output": folder, **SMALL}
    saccade.compare(["fourier"], **asked)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("cells/accuracy-*/record.json")}
    told = {"softmax": 1.0, "fourier": 0.5, "softmax at depth=1": 0.5}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rivals, "time_entries", Clock(told, lambda share: 2.0))
        said = Said()
        extended = saccade.compare(["fourier"], rivals=True, scales=2, progress=said, **asked)
    return extended, before, folder, said


def test_a_comparison_is_extended_by_rivals_and_a_scale_in_its_own_folder(compared):
    comparison, before, folder, said = compared
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert len(list(folder.glob("cells/accuracy-*/record.json"))) == len(before) + 4
    assert comparison.exit_code == 0
    assert any("training at twice the width: 3 runs" in line for line in said.lines)


def test_a_rival_is_softmax_in_another_model_and_is_marked(compared):
    comparison, *_ = compared
    own = [record for record in comparison.records if record.conditions.get("rival")]
    assert {record.kind for record in own} == {"operations", "accuracy", "seconds", "memory"}
    for record in own:
        assert (record.attention, record.conditions["rival"]) == ("softmax", "softmax at depth=1")
        assert record.model_options["depth"] == 1
    for name, records in by_scale(comparison.records).items():
        widths = {record.model_options.get("embed_dim", 32) for record in records}
        assert widths == ({64} if name else {32}), name


def test_rivals_have_rows_of_their_own_behind_the_mechanisms_at_each_scale(compared):
    comparison, *_ = compared
    assert [scale.name for scale in comparison.scales] == ["", "twice the width"]
    for scale in comparison.scales:
        *others, last = scale.rows
        assert (last.attention, last.rival, last.rival_of) == ("softmax at depth=1", True, "fourier")
        assert not any(row.rival for row in others)
        assert last.parameters < scale.rows[0].parameters
        assert last.costs.kernel == "sdpa"
        assert scale.rows[0].parameters != last.parameters
    frame = comparison.to_pandas()
    assert list(frame["scale"].fillna("")) == [""] * 4 + ["twice the width"] * 4


def test_nothing_is_confounded_by_a_rival_or_a_scale(compared):
    comparison, *_ = compared
    assert {finding.rule for finding in comparison.findings if finding.severity == "error"} <= {
        "seeds",
        "nothing learned",
    }
    assert "one scale" not in {finding.rule for finding in comparison.findings}
    (rival,) = {finding.sentence for finding in comparison.earlier if finding.sentence.startswith("a step of")}
    assert "softmax at depth=1 (0.50 ×)" in rival


def test_the_sentence_and_the_report_speak_of_both_scales_and_of_the_rival(compared):
    comparison, _, folder, _ = compared
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert comparison.sentence.startswith("No recommendation that holds at both scales.")
    assert "At twice the width: At the cost of fourier" in comparison.sentence
    assert "and twice the width: N 65 tokens, width D 64, heads 8 wide" in comparison.sentence
    assert "1 seed, 2 scales" in comparison.sentence
    assert text.count("`softmax at depth=1`") == 2
    assert "### At twice the width" in text
    assert "hasty timing" in text


def test_asked_without_them_again_they_stay_out_of_the_answer(compared):
    *_, folder, _ = compared
    plain = saccade.compare(["fourier"], seeds=1, output=folder, **SMALL)
    assert len(plain.scales) == 1
    assert not any(row.rival for row in plain.rows)
    assert "1 seed, 1 scale" in plain.sentence


def test_more_terms_are_other_hasty_timings(question, tmp_path, monkeypatch):
    store, clock = Store(tmp_path), Clock({"linear": 0.8, "fourier": 0.5})
    found(question, store, clock, monkeypatch)
    entries = question.entries(["linear"], lambda line: None)
    clock.rounds.clear()
    find_rivals(question, entries[1:], replace(TERMS, threads=2), store, Silent())
    assert clock.rounds[0] == ["softmax", "linear"]
