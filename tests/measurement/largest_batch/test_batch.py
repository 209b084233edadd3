"""The largest batch is the truth, measured by processes that end at the budget; and what is not known is said."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

import saccade
from saccade.attention import list_attentions
from saccade.attention.parts import faster_kernel
from saccade.measurement.largest_batch import batch, batch_worker
from saccade.measurement.largest_batch.batch_worker import Foreteller
from saccade.measurement.largest_batch.foretelling import Foretellers, Foretold
from saccade.measurement.largest_batch.largest import Largest
from saccade.measurement.largest_batch.trying import Tried
from saccade.measurement.memory.baseline import Baselines
from saccade.measurement.memory.predict import CannotPredict, Planned
from saccade.measurement.subject import Subject
from saccade.record import read_record

MODEL = "vit_nano_patch1_8"
OWN = """
import saccade.attention.linear
class Reads(saccade.attention.linear.Linear):
    def mix(self, q, k, v, patches):
        assert q.sum().item() == q.sum().item()
        return super().mix(q, k, v, patches)
"""


class Told(Foretellers):
    """In place of the processes that foretell: what they say of each attention, and what they were asked."""

    says = None
    asked = ()

    def __init__(self, count, patience_seconds):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def baselines(self, subjects):
        return {subject.attention: Baselines(3 * 10**8, 2 * 10**8) for subject in subjects}

    def tell(self, asked):
        type(self).asked = list(asked)
        return [self.says(one.subject, one.training) for one in self.asked]


@pytest.fixture
def told(monkeypatch):
    """Softmax takes 100 images, the others 135; ten times that in inference."""

    def says(subject, training):
        if subject.attention.startswith("nystrom"):
            return Foretold(refused="landmarks must be 1..63")
        size = (100 if subject.attention == "softmax" else 135) * (1 if training else 10)
        return Foretold(Largest(size, 10**6 * size, 10**6 * (size + 1), 10**6), 0.02)

    monkeypatch.setattr(Told, "says", staticmethod(says))
    monkeypatch.setattr(batch, "Foretellers", Told)
    return Told


def test_a_record_says_what_fits_what_it_needs_and_how_that_is_known(told):
    softmax, linear = saccade.max_batch(["linear"], model=MODEL, memory="1GB", margin=0.1, depth=3)
    assert (softmax.attention, linear.attention, linear.kind) == ("softmax", "linear", "batch")
    expected = {"budget_bytes": 10**9, "margin": 0.1, "baseline_bytes": 3 * 10**8, "verified": "here", "within": 0.02}
    expected |= {"largest_batch": 135, "predicted_bytes_at": 435 * 10**6, "next_bytes": 436 * 10**6, "confirmed": None}
    expected |= {"next_fits": None}
    expected |= {"inference_largest_batch": 1350, "inference_bytes_per_image": 10**6, "tried": []}
    assert linear.values | expected == linear.values
    assert linear.model_options == {"depth": 3}
    wanted = {"batch_size": None, "memory_asked": "1GB", "for": None, "checkpointing": False, "device": "cpu"}
    assert linear.conditions | wanted == linear.conditions
    assert read_record(linear.line()) == linear
    assert linear.values["inference_baseline_bytes"] == 2 * 10**8
    assert linear.values["inference_predicted_bytes_at"] == 1550 * 10**6
    assert {(one.training, one.allowed_bytes - one.taken_bytes) for one in told.asked} == {
        (True, 6 * 10**8),
        (False, 7 * 10**8),
    }


def test_all_mechanisms_are_meant_where_none_is_named_and_the_terms_are_passed_on(told):
    terms = {"dtype": "bf16", "checkpointing": True, "threads": 2}
    records = saccade.max_batch(model=MODEL, memory="1GB", inference=False, **terms)
    assert [one.attention for one in records] == list_attentions()
    subjects = [one.subject for one in told.asked if one.training]
    assert len(subjects) == len(told.asked) == len(records)
    assert all({key: asdict(one)[key] for key in terms} == terms for one in subjects)
    assert "inference_largest_batch" not in records[0].values


def test_what_is_refused_is_marked_and_the_rest_goes_on(told):
    kept = []
    records = saccade.max_batch(["nystrom", "linear"], model=MODEL, memory="1GB", finished=kept.append)
    assert [one.error for one in records] == [None, "refused: landmarks must be 1..63", None]
    assert records[1].values == {}
    assert [len(some) for some in kept] == [1, 2, 3]
    with pytest.raises(ValueError, match="landmarks must be"):
        saccade.max_batch(["nystrom"], model=MODEL, memory="1GB")


def test_for_a_gpu_that_is_not_there_the_answer_is_unverified(told):
    (record,) = saccade.max_batch(["softmax"], model=MODEL, for_gpu="t4")
    assert (record.values["verified"], record.conditions["for"]) == ("unverified", "t4")
    assert record.conditions["device"] == "cuda"
    assert {one.subject.device for one in told.asked} == {"cuda"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"memory": "200MB"}, r"0.20 GB of memory: 0.20 GB are taken before there is any model"),
        ({"memory": "24"}, "its unit"),
        ({"attentions": ["linaer"]}, "did you mean 'linear'"),
        ({"patch_size": 3}, "patch_size"),
        ({"training": False, "inference": False}, "nothing is left"),
        ({"threads": 0}, "threads=0: must be at least 1"),
        ({"patience_seconds": 0.0}, "patience_seconds=0: must be above 0"),
        ({"memory": None, "for_gpu": "t4", "confirm": True}, "only what is there can be tried"),
        ({"device": "cuda:9"}, "this machine has"),
    ],
)
def test_what_makes_no_sense_is_refused(told, asked, says):
    with pytest.raises(ValueError, match=says):
        saccade.max_batch(**{"model": MODEL, "memory": "1GB", **asked})


def trying(most, told):
    def attempts(subject, training, budget_bytes, *, patience_seconds, heard):
        def attempt(size):
            assert budget_bytes == 9 * 10**8
            fits = None if most is None else size <= most
            tried = Tried(batch_size=size, fits=fits, reason="ok" if fits else "failed", because="failed: a typo")
            heard(tried)
            return tried

        return attempt

    return attempts


def test_what_is_tried_replaces_what_was_predicted_and_both_are_kept(told, monkeypatch):
    heard = []
    monkeypatch.setattr(batch, "attempts", trying(130, told))
    record = saccade.max_batch(
        ["linear"],
        model=MODEL,
        memory="1GB",
        margin=0.1,
        confirm=True,
        inference=False,
        heard=lambda *words: heard.append(words[:2]),
    )[1]
    values = record.values
    assert (values["largest_batch"], values["predicted_largest_batch"], values["confirmed"]) == (130, 135, True)
    assert [one["batch_size"] for one in values["tried"]][-2:] == [130, 131]
    assert heard.count(("linear", "training")) == len(values["tried"])


def test_a_crash_is_an_error_and_leaves_the_prediction(told, monkeypatch):
    monkeypatch.setattr(batch, "attempts", trying(None, told))
    (record,) = saccade.max_batch(["softmax"], model=MODEL, memory="1GB", margin=0.1, confirm=True)
    assert record.error == "training: batch_size=100: failed: a typo; inference: batch_size=1000: failed: a typo"
    assert (record.values["largest_batch"], record.values["confirmed"]) == (100, False)
    assert record.values["tried"][0]["fits"] is None


def test_what_cannot_be_predicted_says_so_and_is_measured(told, monkeypatch):
    monkeypatch.setattr(told, "says", staticmethod(lambda subject, training: Foretold(cannot="it reads values")))
    (record,) = saccade.max_batch(["softmax"], model=MODEL, memory="1GB", margin=0.1)
    assert record.error == "cannot be predicted: it reads values"
    assert record.values["largest_batch"] is None
    monkeypatch.setattr(batch, "attempts", trying(42, told))
    (record,) = saccade.max_batch(["softmax"], model=MODEL, memory="1GB", margin=0.1, confirm=True)
    assert (record.error, record.values["largest_batch"]) == (None, 42)
    assert (record.values["predicted_largest_batch"], record.values["confirmed"]) == (None, True)


def test_a_foreteller_tells_a_refusal_from_a_model_that_reads_values(tmp_path, monkeypatch):
    foretell = Foreteller().foretell
    told = foretell(asdict(Subject(model=MODEL, attention="nystrom(landmarks=900)")), True, 10**8, 0)
    assert "landmarks must be" in told["refused"]
    (tmp_path / "own.py").write_text(OWN)
    told = foretell(asdict(Subject(model=MODEL, attention=f"{tmp_path / 'own.py'}:Reads")), True, 10**8, 0)
    assert "without values" in told["cannot"]


def test_a_gpu_that_is_not_there_is_predicted_with_its_own_kernels(monkeypatch):
    chosen = []

    def planned(subject, *, training):
        chosen.append((subject.device, faster_kernel(torch.bfloat16, torch.device("cpu"))))
        raise CannotPredict("enough")

    monkeypatch.setattr(batch_worker, "Planned", planned)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cpu"):
        Foreteller().foretell(asdict(Subject(model=MODEL, device=device)), True, 10**8, 0)
    assert chosen == [("cpu", "sdpa"), ("cpu", "explicit")]


CEILING = """
import json
import torch
from saccade.measurement.allocator import return_freed
from saccade.measurement.largest_batch.ceiling import ceiling, status_bytes
return_freed()
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
said = []
def ask(megabytes):
    try:
        torch.ones(megabytes * 250_000)
        said.append("fits")
    except RuntimeError as error:
        said.append("can't allocate memory" in str(error) and "out of memory")
with ceiling(torch.device("cpu"), status_bytes("VmRSS") + 100_000_000):
    ask(90), ask(101), ask(110), ask(90)
ask(110)
print(json.dumps(said))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_process_under_a_ceiling_runs_out_of_memory_above_it():
    done = subprocess.run([sys.executable, "-c", CEILING], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["fits", "fits", "out of memory", "fits", "fits"]


TRUTH = """
import gc, json, sys
from saccade.measurement.allocator import return_freed, trim
from saccade.measurement.memory.peak import train
from saccade.measurement.subject import Subject
return_freed()
needed = []
for size in map(int, ["1", *sys.argv[1:]]):
    gc.collect(); trim()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    def highest():
        return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    before = highest()
    train(Subject(model="vit_micro_patch4_32", attention="linear", batch_size=size))
    needed.append(highest() - before)
print(json.dumps(needed[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_what_is_predicted_is_within_a_hundredth_of_what_a_process_needs():
    subject = Subject(model="vit_micro_patch4_32", attention="linear")
    answer = Foreteller().foretell(asdict(subject), True, 300 * 10**6, 0)["batch_size"]
    assert answer > 100
    sizes = [str(answer * 99 // 100), str(answer * 101 // 100 + 1)]
    done = subprocess.run([sys.executable, "-c", TRUTH, *sizes], capture_output=True, text=True, check=True)
    less, more = json.loads(done.stdout)
    assert less <= 300 * 10**6 < more


@pytest.mark.slow
def test_a_confirmed_answer_is_that_of_processes_that_end_at_the_budget():
    (record,) = saccade.max_batch(
        ["softmax"], model="vit_micro_patch4_32", memory="600MB", threads=1, device="cpu", confirm=True
    )
    for start in ("", "inference_"):
        found, predicted = (record.values[f"{start}{name}largest_batch"] for name in ("", "predicted_"))
        assert record.values[f"{start}confirmed"]
        assert abs(found - predicted) <= 0.01 * found + 1
        verdicts = {(one["batch_size"], one["fits"]) for one in record.values[f"{start}tried"]}
        assert {(found, True), (found + 1, False)} <= verdicts
    assert all(one["optimiser_steps"] == 2 for one in record.values["tried"] if one["reason"] == "ok")


def test_the_doubt_is_that_of_the_answer_not_of_where_the_search_began():
    terms = asdict(Subject(model=MODEL))
    told = Foreteller().foretell(terms, True, 300 * 10**6, 0)
    planned = Planned(Subject(model=MODEL))
    assert told["within"] == pytest.approx(planned.predicted(told["batch_size"]).within, rel=1e-3)
    assert told["within"] < planned.predicted(64).within / 2


def test_a_class_that_fails_on_its_way_is_not_called_refused(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace("assert q.sum().item() == q.sum().item()", 'raise ValueError("mine")'))
    terms = asdict(Subject(model=MODEL, attention=f"{tmp_path / 'own.py'}:Reads"))
    with pytest.raises(ValueError, match="mine"):
        Foreteller().foretell(terms, True, 10**8, 0)
