"""A subject says all that a fresh process needs, and refuses terms that contradict each other."""

import json
from dataclasses import asdict

import pytest
import torch

from saccade.measurement.subject import Subject, subject_of
from saccade.models.sizes import create_model
from saccade.models.vit import VisionTransformer

TERMS = {"device": "cpu", "threads": 1}


def test_a_subject_survives_json():
    subject = Subject(model="vit_nano_patch1_8", attention="linear", options={"depth": 1, "img_size": [8, 16]})
    assert Subject(**json.loads(json.dumps(asdict(subject)))) == subject


def test_the_resolved_attention_has_every_option():
    assert 'kernel="auto"' in Subject(model="vit_nano_patch1_8").attention_resolved
    mixture = Subject(model="vit_nano_patch1_8", attention="linear*2,softmax*1", options={"depth": 3})
    assert mixture.attention_resolved.endswith("*1")


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"inference_batch": 0}, "inference_batch=0"),
        ({"threads": 0}, "threads=0"),
        ({"dtype": "fp16"}, "dtype='fp16': must be one of 'fp32', 'bf16'"),
        ({"amp_dtype": "fp16"}, "amp_dtype='fp16'"),
        ({"clock": "sun"}, "clock='sun': must be one of 'wall', 'cpu'"),
        ({"dtype": "bf16", "amp_dtype": "bf16"}, "give one of the two"),
        ({"device": "cuda:0", "clock": "cpu"}, 'use clock="wall"'),
    ],
)
def test_wrong_terms_are_refused(terms, words):
    with pytest.raises(ValueError, match=words):
        Subject(model="vit_nano_patch1_8", **terms)


def test_a_model_is_measured_as_it_was_made():
    model = create_model("vit_nano_patch1_8", "linear", depth=1, img_size=(8, 16))
    subject = subject_of(model, None, {}, **TERMS)
    assert subject.model == "vit_nano_patch1_8"
    assert subject.attention == "linear"
    assert subject.options == {"depth": 1, "img_size": [8, 16]}
    assert subject.built().config == model.config


def test_what_is_given_goes_before_what_the_model_has():
    subject = subject_of(create_model("vit_nano_patch1_8", depth=1), "linear", {"depth": 3}, **TERMS)
    assert (subject.attention, subject.options) == ("linear", {"depth": 3})


def test_the_attention_of_a_name_is_its_own():
    assert subject_of("vitl", None, {}, **TERMS).attention == "linear(bias=False)"


def test_a_model_without_a_name_is_refused():
    with torch.device("meta"), pytest.raises(ValueError, match="create_model"):
        subject_of(VisionTransformer(depth=1), None, {}, **TERMS)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="--device cuda:77"):
        subject_of("vit_nano_patch1_8", None, {}, device="cuda:77", threads=1)


def test_threads_are_torchs_unless_given():
    assert subject_of("vit_nano_patch1_8", None, {}, device="cpu", threads=None).threads == torch.get_num_threads()


def test_conditions_name_every_term(monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    terms = {"batch_size": 3, "dtype": "bf16", "amp_dtype": None, "device": "cpu", "threads": 2, "clock": "cpu"}
    told = Subject(model="vit_nano_patch1_8", **terms, allocator="keep").conditions()
    assert told | terms == told
    assert told["allocator"] == "keep"
    assert told["checkpointing"] is told["compile"] is False
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert Subject(model="vit_nano_patch1_8").conditions()["allocator"] == "changed"
