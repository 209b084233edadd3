"""A model as a bench sees it: who stands beside whom, what it needs, and what a record says of it."""

from dataclasses import replace

import pytest

from saccade.measurement.benching import whole
from saccade.measurement.benching.whole import rivals_beside, softmaxes, whole_subjects
from saccade.measurement.memory.predict import CannotPredict, predicted_step
from saccade.measurement.subject import Subject

NANO = Subject(model="vit_nano_patch1_8", batch_size=2, inference_batch=2)
MAE = replace(NANO, model="mae_nano_patch1_8")


def test_softmax_is_in_as_it_chooses_its_kernel_and_by_the_other_one():
    assert softmaxes(NANO) == ("softmax", 'softmax(kernel="explicit")')
    assert softmaxes(replace(NANO, dtype="bf16")) == ("softmax", 'softmax(kernel="sdpa")')
    names = [one.attention for one in whole_subjects(["linear", " softmax"], NANO)]
    assert names == ["softmax", 'softmax(kernel="explicit")', "linear"]


def test_options_are_chosen_only_where_none_is_written_and_the_defaults_are_refused():
    small = replace(NANO, options={"img_size": 2})
    *_, chosen, written = whole_subjects(["nystrom", "nystrom(landmarks=8)"], small)
    assert (chosen.attention, chosen.subject.attention) == ("nystrom", "nystrom(landmarks=1)")
    assert chosen.conditions("model")["options_chosen"]
    assert chosen.about("model")["attention"] == "nystrom"
    assert "landmarks=1" in chosen.about("model")["attention_resolved"]
    assert "landmarks must be 1..3" in written.refusal()
    assert written.declared() is None
    assert not whole_subjects(["nystrom"], NANO)[-1].conditions("model")["options_chosen"]


@pytest.mark.parametrize(
    ("subject", "sizes"),
    [
        (NANO, {"tokens": 65, "grid": [8, 8], "prefix": 1, "width": 32, "heads": 4, "head_width": 8}),
        (MAE, {"tokens": 65, "grid": [8, 8], "prefix": 1, "width": 32, "heads": 4, "visible_tokens": 17}),
    ],
)
def test_conditions_name_the_size_and_every_term(subject, sizes):
    told = whole_subjects(["linear"], subject)[0].conditions("model")
    assert told | {**sizes, "what": "model", "batch_size": 2, "inference_batch": 2, "device": "cpu"} == told
    assert ("visible_tokens" in told) == ("visible_tokens" in sizes)


def test_what_it_needs_is_predicted_and_what_it_rests_on_is_less():
    one = whole_subjects(["linear"], NANO)[-1]
    known = predicted_step(one.subject)
    assert one.needed_bytes("model") == known.peak_bytes
    held = one.resting_bytes("model") - whole.PROCESS_BYTES
    assert held == known.weights_bytes + known.optimiser_bytes + known.inputs_bytes
    assert replace(one, subject=replace(one.subject, compile=True)).needed_bytes("model") == known.peak_bytes


def test_what_cannot_be_predicted_is_measured_all_the_same(monkeypatch):
    def predicted(subject):
        raise CannotPredict("it reads values")

    monkeypatch.setattr(whole, "predicted_step", predicted)
    one = whole_subjects(["linear"], NANO)[-1]
    assert one.needed_bytes("model") is None
    assert one.resting_bytes("model") == whole.PROCESS_BYTES


def test_what_makes_no_sense_is_refused_and_not_predicted():
    *_, one = whole_subjects(["nystrom(landmarks=900)"], NANO)
    with pytest.raises(ValueError, match="landmarks must be"):
        one.needed_bytes("model")
    reversible = replace(NANO, options={"reversible": True}, checkpointing=True)
    assert "reversible" in whole_subjects(["linear"], reversible)[-1].refusal()


def test_operations_are_declared_under_the_name_and_size_of_the_rest():
    one = whole_subjects(["linear"], NANO)[-1].declared()
    assert (one.kind, one.attention, one.conditions["tokens"]) == ("operations", "linear", 65)
    assert one.values["flops_per_image"] > 0


def test_rivals_are_softmax_in_cheaper_models_beside_the_same_tokens():
    asked = whole_subjects(["linear", "nystrom(landmarks=900)"], NANO)
    rivals = rivals_beside(asked, NANO)
    assert rivals
    for one in rivals:
        told = one.conditions("model")
        assert told["rival"] == one.attention
        assert told["beside_tokens"] == 65
        assert one.about("model")["attention"] == "softmax"
        assert one.about("model")["model_options"]
        assert not told["options_chosen"]
    assert len({one.attention for one in rivals}) == len(rivals)


def test_who_saves_nothing_has_no_rivals():
    assert rivals_beside(whole_subjects(["nystrom(landmarks=60)"], NANO), NANO) == []
