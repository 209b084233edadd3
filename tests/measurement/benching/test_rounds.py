"""Attentions beside softmax, group by group: who cannot be measured is marked, and nothing measured is lost."""

import subprocess
from dataclasses import replace

import pytest

import saccade
from saccade.measurement.benching import rounds
from saccade.measurement.benching.entrant import Weighed
from saccade.measurement.benching.layer import LayerSubject
from saccade.measurement.benching.layers import SOFTMAX, layer_subjects
from saccade.measurement.benching.rounds import Group, Rounds, judge
from saccade.measurement.machine import machine_facts
from saccade.measurement.terms import Terms
from saccade.record import read_record
from saccade.training.progress import Progress

WRONG = '''
import time

from saccade.attention.softmax import Softmax


class Wrong(Softmax):
    """Not what its reference says."""

    def mix(self, q, k, v, patches):
        return super().mix(q, k, v, patches) * 1.01


class Greedy(Softmax):
    """Has no memory for the gradients of three images."""

    def mix(self, q, k, v, patches):
        if self.training and len(q) == 3:
            raise MemoryError
        return super().mix(q, k, v, patches)
'''

TERMS = Terms(batch_size=3, threads=1, clock="cpu", device="cpu")
BASE = LayerSubject(attention="softmax", dim=16, num_heads=2, grid=(2, 2), terms=TERMS)


class Heard(Progress):
    def __init__(self):
        self.lines, self.steps = [], []

    def say(self, line):
        self.lines.append(line)

    def advance(self, done, total):
        self.steps.append((done, total))


@pytest.fixture(scope="module")
def heard():
    return Heard()


@pytest.fixture(scope="module")
def grown():
    """How many records there were, whenever there were more."""
    return []


@pytest.fixture(scope="module")
def records(tmp_path_factory, heard, grown):
    wrong = tmp_path_factory.mktemp("wrong") / "wrong.py"
    wrong.write_text(WRONG)
    attentions = ["linformer", "lambda", "nystrom(landmarks=8)", f"{wrong}:Wrong", f"{wrong}:Greedy"]
    group = Group(layer_subjects(attentions, BASE), ("core", "layer"))
    finished = lambda records: grown.append(len(records))  # noqa: E731
    return Rounds([group], repeats=3, progress=heard, finished=finished).records()


def of(records, name, what, kind="seconds"):
    found = [one for one in records if name in one.attention and one.conditions["what"] == what and one.kind == kind]
    return found[0] if found else None


def test_every_repeat_of_everything_is_there(records):
    for name in (*SOFTMAX, "linformer"):
        for what in ("core", "layer"):
            values = of(records, name, what).values
            for act in ("forward", "forward_backward"):
                assert len(values[f"{act}_seconds"]) == 3
                assert all(value > 0 for value in values[f"{act}_seconds"])
                assert len(values[f"warmup_{act}_seconds"]) >= 3
                assert values[f"{act}_calls"] >= 1
            assert not any("core" in key or "layer" in key for key in values)


def test_core_and_layer_are_rounds_of_their_own(records):
    names = {
        what: {one.round for one in records if one.conditions["what"] == what and one.kind == "seconds" and one.round}
        for what in ("core", "layer")
    }
    assert len(names["core"]) == len(names["layer"]) == 1
    assert names["core"] != names["layer"]


def test_conditions_say_what_ran(records):
    told = of(records, "explicit", "core").conditions
    assert told | {"kernel_run": "explicit", "what": "core", "tokens": 4, "gated_tokens": 4, "clock": "cpu"} == told
    assert "busy" in told
    assert of(records, "linformer", "core").conditions["options_chosen"]
    assert "k=1" in of(records, "linformer", "core").attention_resolved
    assert of(records, "linformer", "core").machine["load_1min"] is not None


def test_everybody_has_a_process_and_core_and_layer_share_it(records):
    names = (*SOFTMAX, "linformer")
    processes = [[of(records, name, what).conditions["process"] for name in names] for what in ("core", "layer")]
    assert processes[0] == processes[1]
    assert len(set(processes[0])) == len(names)


def test_what_makes_no_sense_is_marked_and_the_rest_goes_on(records):
    assert of(records, "lambda", "core").error.startswith("no core: ")
    assert of(records, "lambda", "layer").error is None
    for what in ("core", "layer"):
        assert of(records, "nystrom", what).error.startswith("refused: nystrom(landmarks=8) on 4 tokens")
        assert of(records, "Wrong", what).error.startswith("failed: Broken: ")
        assert of(records, "Wrong", what).values == {}


def test_who_has_memory_for_forward_but_not_for_backward_keeps_its_forward(records):
    for what in ("core", "layer"):
        one = of(records, "Greedy", what)
        assert one.error.startswith("out of memory: MemoryError")
        assert list(one.conditions["failed"]) == ["forward_backward"]
        assert len(one.values["forward_seconds"]) == 3
        assert "forward_backward_seconds" not in one.values


def test_records_are_in_the_order_asked_survive_a_file_and_are_told_as_they_come(records, grown):
    names = list(dict.fromkeys(one.attention for one in records))
    assert names[:4] == [*SOFTMAX, "linformer", "lambda"]
    assert [read_record(one.line()) for one in records] == records
    # Three that cannot be, then two rounds.
    assert grown == [1, 2, 3, 8, 14]


def test_progress_is_shown(records, heard):
    assert "4 tokens, batch 3, fp32: 7 attentions" in heard.lines[0]
    assert any("refused" in line for line in heard.lines)
    done, total = zip(*heard.steps, strict=True)
    # Of the core five take part, one of them failed at the gate; of the layer six.
    assert set(total) == {5 * 2 * 4, 6 * 2 * 4}
    assert max(done) == max(total)


def test_a_long_silence_is_broken(monkeypatch):
    progress = Heard()
    monkeypatch.setattr(rounds, "SILENT_SECONDS", -1.0)
    Rounds([], repeats=2, progress=progress)._shown(2)(5)
    assert progress.lines == ["  5 of 6 turns"]
    monkeypatch.setattr(rounds, "SILENT_SECONDS", 1e9)
    Rounds([], repeats=2, progress=progress)._shown(2)(5)
    assert len(progress.lines) == 1


class Silent(rounds.Worker):
    """Stands for a process that answers at once."""

    def __init__(self, serve, options, **terms):
        self.process = options["subject"]["attention"]

    def ready(self):
        pass

    def ask(self, call, what=""):
        lap = {"seconds": 1.0, "cpu_seconds": 1.0}
        return {"facts": {}, "repeat": lap}.get(call, {"laps": [lap], "steady": True, "calls": 1})

    def close(self):
        pass

    def __exit__(self, *error):
        pass


@pytest.fixture
def answered(monkeypatch):
    machine_facts()
    monkeypatch.setattr(rounds, "Worker", Silent)
    return [Group(layer_subjects(["linear", "fourier"], BASE), ("layer",))]


def test_who_would_not_fit_together_is_timed_in_heats_with_softmax_in_each(answered, monkeypatch):
    alone = 2 * BASE.resting_bytes("layer") + BASE.needed_bytes("layer")
    monkeypatch.setattr(rounds, "free_bytes", lambda device: alone + 2 * BASE.resting_bytes("layer") - 1)
    records = Rounds(answered, repeats=1).records()
    heats = {}
    for one in records:
        heats.setdefault(one.round, []).append(one.attention)
    assert sorted(heats.values()) == sorted([[*SOFTMAX, "linear"], [*SOFTMAX, "fourier"]])


def test_each_that_can_be_is_weighed_and_told_at_once(answered, monkeypatch):
    def weigh(self, what, patience_seconds):
        assert patience_seconds == 7.0
        return Weighed(
            {"peak_bytes": 5}, {"process": "p"}, "killed: by the test" if self.attention == "linear" else None
        )

    monkeypatch.setattr(LayerSubject, "weigh", weigh)
    grown = []
    finished = lambda records: grown.append(len(records))  # noqa: E731
    records = Rounds(answered, repeats=1, memory=True, patience_seconds=7.0, finished=finished).records()
    weighed = [one for one in records if one.kind == "memory"]
    assert [(one.attention, one.values["peak_bytes"]) for one in weighed if not one.error] == [
        (name, 5) for name in (*SOFTMAX, "fourier")
    ]
    assert grown == [4, 5, 6, 7, 8]


def test_a_disturbed_round_counts_only_where_noise_is_accepted(answered, monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr("saccade.measurement.turns.stalled_seconds", lambda: float(next(times)))
    marked, refused = Rounds(answered, repeats=1).records(), Rounds(answered, repeats=1, quiet_only=True).records()
    assert {(one.conditions["busy"], one.error) for one in marked} == {(True, None)}
    assert all(one.error.startswith("busy: ") and one.values["forward_seconds"] for one in refused)


def test_a_busy_accelerator_marks_its_round(answered, monkeypatch):
    monkeypatch.setattr(rounds, "others_on", lambda device: {"accelerator_percent": 40, "accelerator_busy": True})
    (one, *_) = Rounds(answered, repeats=1).records()
    assert one.conditions | {"accelerator_percent": 40, "busy": True} == one.conditions


def test_whoever_stops_a_round_keeps_what_there_is(answered, monkeypatch):
    asked = []

    def ask(self, call, what=""):
        asked.append((call, what))
        if len(asked) > 3 * 4 + 6:
            raise KeyboardInterrupt
        return Silent.answer(self, call, what)

    monkeypatch.setattr(Silent, "answer", Silent.ask, raising=False)
    monkeypatch.setattr(Silent, "ask", ask)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        Rounds(answered, repeats=3, finished=lambda records: kept.append(records)).records()
    assert {one.error for one in kept[-1]} == {"interrupted: not all turns were taken"}
    assert sum(len(one.values["forward_seconds"]) for one in kept[-1]) >= 4


def test_what_would_not_fit_is_not_begun(monkeypatch):
    machine_facts()
    monkeypatch.setattr(subprocess, "Popen", None)
    one = replace(BASE, grid=(4, 4))
    needed = one.needed_bytes("core")
    monkeypatch.setattr(rounds, "free_bytes", lambda device: needed)
    assert judge(one, "core").why_not is None
    monkeypatch.setattr(rounds, "free_bytes", lambda device: needed - 1)
    assert judge(one, "core").why_not.startswith("too large: needs about 0.0 GB")
    records = Rounds([Group([one], ("core",))]).records()
    assert [record.error.partition(":")[0] for record in records] == ["too large"]
    monkeypatch.setattr(rounds, "free_bytes", lambda device: None)
    assert judge(one, "core").why_not is None


SMALL = {"tokens": [4], "dim": 16, "heads": 2, "batch_size": 2, "threads": 1, "clock": "cpu", "device": "cpu"}
NANO = {"model": "vit_nano_patch1_8", "tokens": [], "dim": None, "heads": None}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attentions": ["linaer"]}, "did you mean 'linear'"),
        ({"tokens": [5]}, "square grid"),
        ({"what": ["blok"]}, "any of core, layer, block, model"),
        ({"what": []}, "any of core, layer"),
        ({"what": ["model"]}, "without a model: name one"),
        ({"repeats": 0}, "repeats=0"),
        ({"patience_seconds": 0.0}, "patience_seconds=0: must be above 0"),
        ({"heads": 3}, "must divide the width"),
        ({"device": "cuda:77"}, "--device cuda:77"),
        ({"dtype": ["fp32", "fp16"]}, "must be one of"),
        ({"batch_size": []}, "at least one batch size"),
        ({"threads": 0}, "threads=0"),
        ({"prefix": -1}, "prefix"),
        ({"img_size": [8]}, "img_size without a model"),
        ({**NANO, "dim": 32}, "dim with model='vit_nano_patch1_8', which has its own"),
        ({**NANO, "tokens": [4], "img_size": [8]}, "give one of the two"),
        ({**NANO, "patch_size": [1, 2], "img_size": [8, 16]}, "one of either"),
        ({**NANO, "what": ["core"], "rivals": True}, "rivals are whole models"),
        ({**NANO, "attentions": ["nystrom(landmarks=900)"]}, "refused at every size asked for"),
        ({**NANO, "depht": 3}, "did you mean depth"),
    ],
)
def test_wrong_input_is_refused_before_a_process_starts(monkeypatch, options, says):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ValueError, match=says):
        saccade.bench(**{**SMALL, **options})


def test_a_busy_machine_is_refused_where_only_a_quiet_one_counts(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr("saccade.measurement.quiet.pressure_avg10", lambda: 34.0)
    with pytest.raises(ValueError, match="waited for a processor in 34 % of the last ten seconds"):
        saccade.bench(["linear"], **SMALL, quiet_only=True)
