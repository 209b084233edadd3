"""The main job, small: what is finished is kept, what is missing is added, and nothing unfair goes unsaid."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from tests.comparison.clock import Clock

import saccade
from saccade.attention import list_attentions, parse
from saccade.comparison import rivals
from saccade.comparison.cells import Cell
from saccade.comparison.costs import Terms, enough, measured_alike
from saccade.comparison.fit import all_that_fit
from saccade.comparison.question import Entry, Question, source_hash
from saccade.comparison.store import Store
from saccade.record import read_records
from saccade.reports.contenders import by_scale
from saccade.training.progress import Progress
from saccade.training.recipe import with_values
from saccade.training.recipes import named_recipe

SMALL = {
    "recipe": "digits",
    "settings": {"train.epochs": 1, "data.limit": 64},
    "anyway": True,
    "threads": 1,
    "repeats": 1,
    "jobs": 2,
}


class Said(Progress):
    """A progress that remembers what it was told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def advance(self, done, total):
        assert done <= total


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison") / "runs"


@pytest.fixture(scope="module")
def first(folder):
    return saccade.compare(["linear"], seeds=1, output=folder, **SMALL)


@pytest.fixture(scope="module")
def second(first, folder):
    said = Said()
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*/record.json")}
    return saccade.compare(["linear", "fourier"], seeds=1, output=folder, progress=said, **SMALL), said, before


def test_softmax_is_always_in_with_both_kernels(first):
    assert {row.attention for row in first.rows if row.baseline} == {"softmax", 'softmax(kernel="explicit")'}
    assert [row.attention for row in first.rows if not row.baseline] == ["linear"]


def test_every_kind_of_measurement_has_its_records(first):
    kinds = [(record.kind, record.attention) for record in first.records]
    for kind in ("operations", "accuracy", "memory", "seconds"):
        assert (kind, "softmax") in kinds
        assert (kind, "linear") in kinds
    assert all(record.error is None for record in first.records)


def test_records_are_written_as_lines_with_their_conditions(first, folder):
    written = list(read_records(folder / "records.jsonl"))
    assert len(written) == len(first.records)
    accuracy = next(record for record in written if record.kind == "accuracy")
    assert accuracy.data["fingerprint"]
    assert accuracy.recipe["train"]["seed"] == accuracy.seed == 0
    assert {"processor", "torch", "commit"} <= set(accuracy.machine)
    timed = next(record for record in written if record.kind == "seconds" and record.attention == "softmax")
    assert timed.conditions["kernel_run"] == "sdpa"
    assert len(timed.values["step_seconds"]) == 1


def test_one_seed_gives_no_verdict_and_no_recommendation(first):
    linear = next(row for row in first.rows if row.attention == "linear")
    assert linear.verdict == "too few seeds"
    assert first.sentence.startswith("No recommendation")
    assert first.exit_code == 0


def test_the_report_says_what_confounds_before_what_was_found(first, folder):
    text = (folder / "report.md").read_text()
    assert text.index("untuned") < text.index("What was found") < text.index(first.sentence.split(".")[0])
    assert (folder / "accuracy-cost.png").stat().st_size > 1000


def test_a_further_mechanism_adds_only_itself(second):
    comparison, said, before = second
    assert [row.attention for row in comparison.rows if not row.baseline] != ["linear"]
    assert any("training: 1 runs" in line and "2 are there already" in line for line in said.lines)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items() if "accuracy" in path.parent.name)


def test_a_later_mechanism_is_timed_with_softmax_again(second):
    comparison, *_ = second
    rounds = {}
    for record in comparison.records:
        if record.kind == "seconds":
            rounds.setdefault(record.round, set()).add(record.attention)
    assert len(rounds) == 2
    assert all("softmax" in timed for timed in rounds.values())
    assert sum("fourier" in timed for timed in rounds.values()) == 1


def test_the_result_is_a_data_frame_a_page_and_lines(second, tmp_path):
    comparison, *_ = second
    assert list(comparison.to_pandas()["attention"]) == [row.attention for row in comparison.rows]
    assert "<table>" in comparison._repr_html_()
    *lines, last = (json.loads(line) for line in comparison.json_lines())
    assert [line["attention"] for line in lines] == [row.attention for row in comparison.rows]
    assert last["sentence"] == comparison.sentence
    comparison.save(tmp_path / "copy")
    assert {"report.md", "records.jsonl", "accuracy-cost.png"} <= set(os.listdir(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"attentions": ["sofmax"]}, "did you mean 'softmax'"),
        ({"attentions": ["nystrom(landmark=4)"]}, "did you mean landmarks"),
        ({"attentions": ["nystrom(landmarks=64)"]}, "landmarks must be"),
        ({"attentions": ["linear*1,softmax*2"]}, "counts must sum to 2"),
        ({"seeds": 0}, "--seeds 0"),
        ({"threads": 0}, "--threads 0"),
        ({"epochs": 0}, "epochs"),
        ({"margin": 0.0}, "--margin 0"),
        ({"tune": 2, "rates": "somewhere"}, "one of the two"),
        ({"rates": "nowhere"}, "no records.jsonl"),
        ({"data": "no/such/folder"}, "no/such/folder"),
        ({"img_size": 9, "settings": {"model.options.patch_size": 2}}, "patch"),
        ({"device": "cuda:7"}, "--device"),
        ({"model": "vit_bse_patch16_224"}, "vit_base_patch16_224"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(wrong, word, tmp_path):
    asked = {"attentions": ["linear"], **SMALL, "output": tmp_path / "out", **wrong}
    with pytest.raises(ValueError, match=word.replace("(", r"\(")):
        saccade.compare(**asked)
    assert not (tmp_path / "out").exists()


def test_all_mechanisms_are_those_that_fit_with_options_that_fit():
    said = []
    names = all_that_fit(named_recipe("digits"), said.append)
    assert [parse(name).name for name in names] == list_attentions()
    assert [name for name in names if "(" in name] == ['block_sparse(layout="bslongformer")']
    (line,) = said
    assert line.startswith('block_sparse is taken as block_sparse(layout="bslongformer"): its defaults are refused')
    small = with_values(named_recipe("digits"), {"model.options.img_size": 2})
    names = all_that_fit(small, said.append)
    assert "softmax" in names
    assert "window" not in " ".join(names)
    assert any(line.startswith("left out: window(") for line in said)


def test_a_size_at_which_nothing_can_be_gained_stops_unless_told_otherwise(tmp_path):
    with pytest.raises(ValueError, match="--anyway"):
        saccade.compare(["lambda"], **{**SMALL, "anyway": False}, output=tmp_path / "out")


def test_a_folder_is_one_comparisons_at_a_time(tmp_path):
    store = Store(tmp_path)
    with store.locked("a"), pytest.raises(ValueError, match="another comparison"), Store(tmp_path).locked("a"):
        pass
    with store.locked("a"):
        pass


def test_a_folder_holds_one_question(tmp_path):
    with Store(tmp_path).locked("a"):
        pass
    with pytest.raises(ValueError, match="another model, recipe"), Store(tmp_path).locked("b"):
        pass


def test_another_question_is_kept_out_of_the_folder(second, folder):
    with pytest.raises(ValueError, match="give another folder"):
        saccade.compare(["linear"], seeds=1, output=folder, epochs=2, **SMALL | {"settings": {"data.limit": 64}})


@pytest.fixture(scope="module")
def extended(second, folder):
    """The same with a rival of fourier, which a clock names that is told what it shows, and at a second scale."""
    said = Said()
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("accuracy-*/record.json")}
    told = {"softmax": 1.0, "fourier": 0.5, "softmax at depth=1": 0.5}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rivals, "time_entries", Clock(told, lambda share: 2.0))
        asked = {"seeds": 1, "rivals": True, "scales": 2, "output": folder, "progress": said, **SMALL}
        return saccade.compare(["fourier"], **asked), said, before


def test_a_comparison_is_extended_by_rivals_and_a_scale_in_its_own_folder(extended, folder):
    comparison, said, before = extended
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert len(list((folder / "cells").glob("accuracy-*/record.json"))) == len(before) + 4
    assert any("training: 1 runs" in line and "2 are there already" in line for line in said.lines)
    assert any("training at twice the width: 3 runs" in line for line in said.lines)
    assert comparison.exit_code == 0


def test_a_rival_is_softmax_in_another_model_and_is_marked(extended):
    comparison, *_ = extended
    own = [record for record in comparison.records if record.conditions.get("rival")]
    assert {record.kind for record in own} == {"operations", "accuracy", "seconds", "memory"}
    for record in own:
        assert (record.attention, record.conditions["rival"]) == ("softmax", "softmax at depth=1")
        assert record.model_options["depth"] == 1
    for name, records in by_scale(comparison.records).items():
        assert {record.model_options.get("embed_dim", 32) for record in records} == ({64} if name else {32})


def test_rivals_have_rows_of_their_own_behind_the_mechanisms_at_each_scale(extended):
    comparison, *_ = extended
    assert [scale.name for scale in comparison.scales] == ["", "twice the width"]
    for scale in comparison.scales:
        assert [row.attention for row in scale.rows if not row.baseline] == ["fourier", "softmax at depth=1"]
        *_, last = scale.rows
        assert (last.rival, last.rival_of, last.costs.kernel) == (True, "fourier", "sdpa")
        assert last.parameters < scale.rows[0].parameters
        assert last.difference is not None
        assert last.costs.ratios["step"].value < 1
    assert list(comparison.to_pandas()["scale"].fillna("")) == [""] * 4 + ["twice the width"] * 4


def test_nothing_is_confounded_by_a_rival_or_a_scale(extended):
    comparison, *_ = extended
    wrong = {finding.rule for finding in comparison.findings if finding.severity == "error"}
    assert wrong <= {"seeds", "nothing learned"}
    assert "one scale" not in {finding.rule for finding in comparison.findings}
    told = [finding.sentence for finding in comparison.earlier if finding.rule == "rivals"]
    assert [sentence.startswith("at twice the width, a step of fourier takes 0.50 ×") for sentence in told] == [
        False,
        True,
    ]
    assert all("softmax at depth=1 (0.50 ×)" in sentence for sentence in told)


def test_the_sentence_and_the_report_speak_of_both_scales_and_of_the_rival(extended, folder):
    comparison, *_ = extended
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert comparison.sentence.startswith("No recommendation that holds at both scales.")
    assert "At twice the width: At the cost of fourier, " in comparison.sentence
    assert "and twice the width: N 65 tokens, width D 64, heads 8 wide" in comparison.sentence
    assert "1 seed, 2 scales" in comparison.sentence
    assert text.count("`softmax at depth=1`") == 2
    assert "### At twice the width" in text
    assert "hasty timing" in text


def test_what_was_measured_of_others_or_on_other_terms_stays_out_of_the_answer(second, extended, folder):
    fewer = saccade.compare(["linear"], seeds=1, output=folder, **SMALL)
    assert len(fewer.scales) == 1
    assert {row.attention for row in fewer.rows} == {"softmax", 'softmax(kernel="explicit")', "linear"}
    question = Question(recipe=named_recipe("digits"), data={}, device="cpu", depth=2)
    terms = Terms(batch_size=32, dtype="fp32", amp_dtype=None, device="cpu", threads=1, clock="wall", repeats=1)
    timed = [record for record in second[0].records if record.kind in ("seconds", "memory")]
    assert any(measured_alike(record, terms, [question.entry("linear")]) for record in timed)
    for other in (replace(terms, threads=2), replace(terms, clock="cpu"), replace(terms, batch_size=8)):
        assert not any(measured_alike(record, other, [question.entry("linear")]) for record in timed)


def test_more_repeats_are_timed_anew(second):
    timed = next(record for record in second[0].records if record.kind == "seconds")
    terms = Terms(batch_size=32, dtype="fp32", amp_dtype=None, device="cpu", threads=1, clock="wall", repeats=1)
    assert enough(timed, terms)
    assert not enough(timed, replace(terms, repeats=2))


def test_an_edited_class_of_ones_own_is_another_mechanism(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from saccade.attention.softmax import Softmax\n\n\nclass Mine(Softmax):\n    pass\n")
    before = source_hash(f"{path}:Mine", 2)
    path.write_text(path.read_text() + "# edited\n")
    assert before != source_hash(f"{path}:Mine", 2)
    assert source_hash("softmax*1,linear*1", 2) == ""
    entry = Entry("mine", "mine", before)
    assert Cell("accuracy", entry, 1e-3, 0).name != Cell("accuracy", replace(entry, source=""), 1e-3, 0).name


def test_a_cells_name_tells_apart_what_must_be_told_apart():
    cells = {
        Cell(kind, Entry("linear", resolved, "", scale, rival), rate, seed).name
        for kind in ("tuning", "accuracy")
        for resolved in ("linear(bias=True)", "linear(bias=False)")
        for scale in ("", "twice the width")
        for rival in ("", "softmax at depth=1", "softmax at depth=2")
        for rate in (1e-3, 1.001e-3)
        for seed in (0, 1)
    }
    assert len(cells) == 96


def test_a_cell_of_a_comparison_begun_before_there_were_rivals_keeps_its_name():
    resolved = 'fourier(norm="ortho", out_proj=False, per_head=False, two_d=False)'
    cell = Cell("accuracy", Entry("fourier", resolved), 0.00949, 0)
    assert cell.name == "accuracy-fourier-lr0.00949-seed0-1fe81226"


def test_interrupted_it_keeps_what_is_finished_and_goes_on(tmp_path):
    command = [sys.executable, "-m", "saccade", "compare", "linear", "--recipe", "digits", "--seeds", "1", "--anyway"]
    command += ["--set", "data.limit=64", "--set", "train.epochs=1", "--threads", "1", "--repeats", "1"]
    command += ["--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("out/cells/accuracy-*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    kept = list(tmp_path.glob("out/cells/accuracy-*/record.json"))
    assert kept
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} are there already" in done.stderr or len(kept) == 2
    assert "softmax" in done.stdout
