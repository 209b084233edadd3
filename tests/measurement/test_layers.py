"""Attentions beside softmax, size by size: who cannot be measured is marked, and the rest goes on."""

import subprocess

import pytest

import saccade
from saccade.measurement import layers
from saccade.measurement.layer import LayerSubject
from saccade.measurement.layers import SOFTMAX, Layers, square, subjects_of, why_not, with_softmax
from saccade.measurement.machine import machine_facts
from saccade.measurement.terms import Terms
from saccade.record import read_record
from saccade.training.progress import Progress

WRONG = '''
from saccade.attention.softmax import Softmax


class Wrong(Softmax):
    """Not what its reference says."""

    def mix(self, q, k, v, patches):
        return super().mix(q, k, v, patches) * 1.01
'''

SMALL = {"dim": 16, "heads": 2, "batch_size": 2, "threads": 1, "clock": "cpu", "device": "cpu"}


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
def records(tmp_path_factory, heard):
    wrong = tmp_path_factory.mktemp("wrong") / "wrong.py"
    wrong.write_text(WRONG)
    attentions = ["linformer", "lambda", "nystrom(landmarks=8)", f"{wrong}:Wrong"]
    terms = Terms(batch_size=2, threads=1, clock="cpu", device="cpu")
    base = LayerSubject(attention="softmax", dim=16, num_heads=2, grid=(1, 1), terms=terms)
    return Layers(subjects_of(attentions, [4], base), repeats=3, memory=True, progress=heard).records()


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
    rounds = {
        what: {one.round for one in records if one.conditions["what"] == what and one.kind == "seconds" and one.round}
        for what in ("core", "layer")
    }
    assert len(rounds["core"]) == len(rounds["layer"]) == 1
    assert rounds["core"] != rounds["layer"]


def test_conditions_say_what_ran(records):
    told = of(records, "explicit", "core").conditions
    assert told | {"kernel_run": "explicit", "what": "core", "tokens": 4, "gated_tokens": 4, "clock": "cpu"} == told
    assert "busy" in told
    assert of(records, "linformer", "core").conditions["options_chosen"]
    assert "k=1" in of(records, "linformer", "core").attention_resolved


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


def test_memory_is_that_of_each_in_a_fresh_process(records):
    weighed = [one for one in records if one.kind == "memory" and one.error is None]
    assert len({one.conditions["process"] for one in weighed}) == len(weighed)
    assert of(records, "linformer", "layer", "memory").values["peak_bytes"] >= 0
    assert of(records, "nystrom", "layer", "memory") is None


def test_records_are_in_the_order_asked_and_survive_a_file(records):
    names = list(dict.fromkeys(one.attention for one in records))
    assert names[:4] == [*SOFTMAX, "linformer", "lambda"]
    assert [read_record(one.line()) for one in records] == records


def test_progress_is_shown(records, heard):
    assert "4 tokens: 6 attentions" in heard.lines[0]
    assert any("refused" in line for line in heard.lines)
    done, total = zip(*heard.steps, strict=True)
    # Of the core four take part, one of them failed at the gate; of the layer five.
    assert set(total) == {4 * 2 * 4, 5 * 2 * 4}
    assert max(done) == max(total)


def test_a_long_silence_is_broken(monkeypatch):
    one = LayerSubject(attention="softmax", dim=16, num_heads=2, grid=(2, 2), terms=Terms())
    progress = Heard()
    monkeypatch.setattr(layers, "SILENT_SECONDS", -1.0)
    Layers([[one]], what=["core"], repeats=2, progress=progress)._shown(2)(5)
    assert progress.lines == ["  5 of 6 turns"]
    monkeypatch.setattr(layers, "SILENT_SECONDS", 1e9)
    Layers([[one]], what=["core"], repeats=2, progress=progress)._shown(2)(5)
    assert len(progress.lines) == 1


@pytest.mark.parametrize("patches", [1, 4, 196, 12544])
def test_a_square_is_a_grid(patches):
    rows, columns = square(patches)
    assert rows == columns
    assert rows * columns == patches


@pytest.mark.parametrize(
    ("patches", "says"),
    [
        (200, r"tokens=200: .* as 196 \(14 x 14\) or 225 \(15 x 15\)"),
        (2, r"1 \(1 x 1\) or 4 \(2 x 2\)"),
        (0, r"as 1 \(1 x 1\)$"),
        (-4, r"as 1 \(1 x 1\)$"),
    ],
)
def test_a_number_that_is_no_square_is_refused_with_the_nearest(patches, says):
    with pytest.raises(ValueError, match=says):
        square(patches)


def test_softmax_is_always_in_by_both_kernels():
    assert with_softmax(["softmax", "linear", " linear", SOFTMAX[1]]) == [*SOFTMAX, "linear"]


def test_sizes_are_ascending_each_once_with_all_attentions():
    base = LayerSubject(attention="softmax", dim=16, num_heads=2, grid=(1, 1), terms=Terms())
    sizes = subjects_of(["linear"], [16, 4, 16], base)
    assert [[one.grid for one in each] for each in sizes] == [[(2, 2)] * 3, [(4, 4)] * 3]
    assert [one.attention for one in sizes[0]] == [*SOFTMAX, "linear"]
    with pytest.raises(ValueError, match="at least one number"):
        subjects_of(["linear"], [], base)


def test_what_would_not_fit_is_not_begun(monkeypatch):
    # The facts of the machine are asked for once, of a process.
    machine_facts()
    monkeypatch.setattr(subprocess, "Popen", None)
    one = LayerSubject(attention="softmax", dim=16, num_heads=2, grid=(4, 4), terms=Terms())
    needed = one.needed_bytes("core")
    monkeypatch.setattr(layers, "free_bytes", lambda device: needed)
    assert why_not(one, "core") is None
    monkeypatch.setattr(layers, "free_bytes", lambda device: needed - 1)
    assert why_not(one, "core").startswith("too large: needs about 0.0 GB")
    records = Layers([[one]], what=["core"]).records()
    assert [record.error.partition(":")[0] for record in records] == ["too large"]
    monkeypatch.setattr(layers, "free_bytes", lambda device: None)
    assert why_not(one, "core") is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attentions": ["linaer"]}, "did you mean 'linear'"),
        ({"tokens": [5]}, "nearest|square grid"),
        ({"what": ["block"]}, "any of core, layer"),
        ({"what": []}, "any of core, layer"),
        ({"repeats": 0}, "repeats=0"),
        ({"heads": 3}, "must divide the width"),
        ({"device": "cuda:77"}, "--device cuda:77"),
        ({"dtype": "fp16"}, "must be one of"),
        ({"threads": 0}, "threads=0"),
        ({"prefix": -1}, "prefix"),
    ],
)
def test_wrong_input_is_refused_before_a_process_starts(monkeypatch, options, says):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ValueError, match=says):
        saccade.bench(**{"tokens": [4], **SMALL, **options})
