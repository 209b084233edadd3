"""`bench` prints what was measured, in words and as JSON, and writes it where asked."""

import json

import pytest

from saccade import measurement
from saccade.cli import run
from saccade.measurement.benching import rounds
from saccade.record import read_records

SMALL = ["--tokens", "4,9", "--dim", "16", "--heads", "2", "--batch-size", "2", "--threads", "1", "--repeats", "1"]


class Prompt(rounds.Worker):
    """Stands for a process that measures: every call takes a second."""

    def __init__(self, serve, options, **terms):
        self.process = str(id(self))

    def ready(self):
        pass

    def ask(self, call, what=""):
        lap = {"seconds": 1.0, "cpu_seconds": 1.0}
        return {"facts": {}, "repeat": lap}.get(call, {"laps": [lap], "steady": True, "calls": 1})

    def close(self):
        pass

    def __exit__(self, *error):
        pass


@pytest.fixture(scope="module")
def records():
    """Real ones, but for the times."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "Worker", Prompt)
        return measurement.bench(
            ["linear", "fourier"], tokens=[4, 9], dim=16, heads=2, batch_size=2, threads=1, repeats=1, device="cpu"
        )


@pytest.fixture
def asked(monkeypatch, records):
    asked = []
    monkeypatch.setattr(measurement, "bench", lambda names, **options: asked.append((names, options)) or records)
    return asked


def test_tables_go_to_stdout_and_notes_to_stderr(asked, capsys):
    assert run(["bench", "linear", "fourier", *SMALL]) == 0
    said = capsys.readouterr()
    for words in ("core, forward", "whole layer, forward + backward", "9 tokens", "cheaper than", "baseline"):
        assert words in said.out
    assert "fourier at 4, 9 tokens: no core" in said.err
    assert "fourier at 4, 9 tokens: no core" not in said.out


def test_the_options_are_passed_on(asked, capsys):
    flags = ["--what", "core", "--prefix", "1", "--amp_dtype", "bf16", "--clock", "cpu", "--memory", "--device", "cpu"]
    assert run(["bench", "linear", *SMALL, *flags]) == 0
    ((names, options),) = asked
    assert names == ("linear",)
    wanted = {"tokens": [4, 9], "what": ["core"], "batch_size": [2], "dim": 16, "heads": 2, "prefix": 1}
    wanted |= {"dtype": ["fp32"], "amp_dtype": "bf16", "device": "cpu", "threads": 1, "repeats": 1, "clock": "cpu"}
    wanted |= {"memory": True, "compile": False, "quiet_only": False, "patience_seconds": None, "rivals": False}
    assert options | wanted == options
    run(["bench"])
    assert (asked[1][1]["what"], asked[1][1]["tokens"]) == (None, [])


def test_the_options_of_models_are_passed_on(asked, capsys):
    flags = ["--model", "vit_nano_patch1_8", "--what", "block, model", "--batch-size", "1,8", "--dtype", "fp32,bf16"]
    flags += ["--img-size", "8,16", "--patch-size", "2", "--set", "depth=1", "--compile", "--checkpointing"]
    assert run(["bench", "linear", *flags, "--quiet-only", "--timeout", "7", "--rivals"]) == 0
    ((_, options),) = asked
    wanted = {"model": "vit_nano_patch1_8", "what": ["block", "model"], "batch_size": [1, 8], "img_size": [8, 16]}
    wanted |= {"dtype": ["fp32", "bf16"], "patch_size": [2], "depth": 1, "compile": True, "checkpointing": True}
    wanted |= {"quiet_only": True, "patience_seconds": 7.0, "rivals": True}
    assert options | wanted == options


def test_both_still_means_cores_and_layers(asked, capsys):
    assert run(["bench", "linear", *SMALL, "--what", "both"]) == 0
    assert asked[0][1]["what"] == ["core", "layer"]


def test_times_stand_as_torch_prints_them_where_asked(asked, capsys):
    assert run(["bench", "linear", "fourier", *SMALL, "--style", "torch"]) == 0
    said = capsys.readouterr().out
    assert said.count("1 measurement, ") == 2 * 2 * (2 * 3 + 1)
    assert "linear: core, forward + backward, 4 tokens, batch 2, fp32" in said
    assert "fourier: core, forward, 4 tokens, batch 2, fp32\n  no core" in said


def test_the_doctor_speaks_beside_the_numbers_and_in_the_report(asked, capsys, tmp_path):
    assert run(["bench", "linear", "fourier", *SMALL, "-o", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "warning: few repeats: " in said.err
    assert "few repeats" not in said.out
    assert "**few repeats**" in (tmp_path / "report.md").read_text()


def test_json_is_a_line_for_each_attention_and_kind_of_call(asked, capsys):
    assert run(["bench", "linear", "fourier", *SMALL, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = {(row["attention"], row["what"], row["act"]) for row in rows}
    assert len(kinds) == len(rows) == 4 * 4
    assert ("linear", "core", "forward_backward") in kinds
    assert all(size["seconds"] > 0 for row in rows for size in row["sizes"])


def test_what_was_measured_is_written_where_asked(asked, capsys, tmp_path):
    folder = tmp_path / "bench"
    assert run(["bench", "linear", *SMALL, "-o", str(folder)]) == 0
    assert (folder / "report.md").is_file()
    assert len((folder / "records.jsonl").read_text().splitlines()) == 2 * 4 * 2
    assert f"written: {folder / 'report.md'}" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tokens", "4,5"], "tokens=5: must be the patches of a square grid, as 4 (2 x 2) or 9 (3 x 3)"),
        (["--tokens", "many"], "write whole numbers with commas"),
        (["--tokens", ","], "at least one number"),
        (["linaer"], "did you mean 'linear'"),
        (["--heads", "7"], "must divide the width"),
        (["--repeats", "0"], "repeats=0"),
        (["--what", "blok"], "any of core, layer, block, model"),
        (["--what", "model"], "without a model: name one"),
        (["--batch-size", "four"], "--batch-size four: write whole numbers"),
        (["--model", "vit_nano_patch1_8", "--set", "dtype=bf16"], "--set dtype: bench itself says that"),
        (["--model", "vit_nano_patch1_8", "--set", "depht=1"], "did you mean depth"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(capsys, flags, says):
    assert run(["bench", *flags]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""


def test_a_size_that_is_measured_is_kept_before_the_next_one(tmp_path, monkeypatch, records):
    def interrupted(names, *, finished, **options):
        finished(records[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "bench", interrupted)
    assert run(["bench", "linear", *SMALL, "--output", str(tmp_path / "out")]) == 130
    assert list(read_records(tmp_path / "out" / "records.jsonl")) == records[:2]


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, asked, capsys):
    (tmp_path / "file").touch()
    assert run(["bench", "linear", *SMALL, "--output", str(tmp_path / "file" / "out")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    assert asked == []


def test_what_is_refused_at_every_size_is_refused_before_anything_is_measured(capsys):
    assert run(["bench", "nystrom(landmarks=500)", *SMALL]) == 2
    said = capsys.readouterr().err
    assert said.count("landmarks must be 1..3") == 1
    assert "refused at every size asked for" in said
    assert "timing" not in said
