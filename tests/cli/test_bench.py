"""`bench` prints what was measured, in words and as JSON, and writes it where asked."""

import json

import pytest

from saccade import measurement
from saccade.cli import run
from saccade.record import read_records

SMALL = ["--tokens", "4,9", "--dim", "16", "--heads", "2", "--batch-size", "2", "--threads", "1", "--repeats", "1"]


@pytest.fixture(scope="module")
def records():
    """Real ones, measured once."""
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
    wanted = {"tokens": [4, 9], "what": ("core",), "batch_size": 2, "dim": 16, "heads": 2, "prefix": 1}
    wanted |= {"dtype": "fp32", "amp_dtype": "bf16", "device": "cpu", "threads": 1, "repeats": 1, "clock": "cpu"}
    wanted |= {"memory": True}
    assert options | wanted == options
    run(["bench"])
    assert asked[1][1]["what"] == ("core", "layer")


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
        (["--what", "block"], "what"),
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
    assert "refused at every number of tokens asked for" in said
    assert "timing" not in said
