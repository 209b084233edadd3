"""`doctor` reads any folder of records, says what it found and what it could not ask, and ends as CI wants it."""

import json

import pytest

from saccade.cli import run
from saccade.record import Record, write_records
from saccade.reports.fairness import RULES
from saccade.reports.folders import read_folder


def memory(attention, steps=2, **changes):
    """The peak of a training step."""
    conditions = {"device": "cpu", "dtype": "fp32", "batch_size": 64, "process": attention}
    return Record(
        **{
            "kind": "memory",
            "attention": attention,
            "attention_resolved": attention,
            "model": "vit_nano_patch1_8",
            "values": {"peak_bytes": 40_000_000, "optimiser_steps": steps},
            "conditions": conditions,
            "machine": {"processor": "AMD EPYC", "torch": "2.13.0"},
            **changes,
        }
    )


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of records."""

    def make(*records, name="here"):
        write_records(tmp_path / name / "records.jsonl", records)
        return tmp_path / name

    return make


ONE_STEP = memory("softmax"), memory("linear", steps=1)
FINE = memory("softmax"), memory("linear")
FAILED = memory("softmax"), memory("linear"), memory("nystrom", values={}, error="failed: NameError: attn")


@pytest.mark.parametrize(
    ("records", "options", "code"),
    [
        (FINE, [], 0),
        (FINE, ["--fail-on", "warning"], 0),
        (FAILED, [], 0),
        (FAILED, ["--fail-on", "warning"], 1),
        (ONE_STEP, [], 1),
        (ONE_STEP, ["--fail-on", "never"], 0),
    ],
    ids=["fine", "fine, strict", "warning", "warning, strict", "error", "error, lax"],
)
def test_errors_end_in_1_and_warnings_where_that_is_asked_for(folder, records, options, code):
    assert run(["doctor", str(folder(*records)), *options]) == code


def test_each_finding_is_printed_with_its_remedy_and_what_could_not_be_asked(folder, capsys):
    run(["doctor", str(folder(*ONE_STEP))])
    said = " ".join(capsys.readouterr().out.split())
    assert "2 records (2 of memory)" in said
    assert "error one step the peak of one step lacks what the second one holds: linear." in said
    assert "Remedy: two optimiser steps at the least." in said
    assert f"of {len(RULES)} rules were asked; no record tells" in said
    assert "training runs: seeds, one scale, from scratch only" in said


def test_silence_is_told_from_a_clean_bill(folder, capsys):
    run(["doctor", str(folder(*FINE))])
    said = capsys.readouterr().out
    assert "nothing was found" in said
    assert "rules were asked; no record tells" in said


def test_json_has_a_line_for_each_finding_then_one_for_each_folder(folder, capsys):
    place = str(folder(*ONE_STEP))
    assert run(["doctor", place, "--json"]) == 1
    finding, asked = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (finding["folders"], finding["rule"], finding["severity"]) == ([place], "one step", "error")
    assert (asked["folders"], asked["records"]) == ([place], 2)
    assert "one step" in asked["asked"]
    assert asked["lacking"]["seeds"] == "training runs"


def test_several_folders_are_set_beside_each_other(folder, capsys):
    there = [memory(name, machine={"processor": "another", "torch": "2.13.0"}) for name in ("softmax", "linear")]
    places = [str(folder(*FINE)), str(folder(*there, name="there"))]
    assert run(["doctor", *places]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "beside each other rule what was seen, and what to do error unlike machines" in said
    assert 'processor ("AMD EPYC", "another")' in said
    assert run(["doctor", places[0], places[0]]) == 0


def test_no_folder_is_asked_for(capsys):
    assert run(["doctor"]) == 2
    assert "examine what?" in capsys.readouterr().err


def test_a_folder_without_records_names_those_that_have_some(folder, capsys):
    place = folder(*FINE).parent
    assert run(["doctor", str(place)]) == 2
    assert (
        f"{place}: there is no records.jsonl in it; give one of the folders in it that have: here"
        in capsys.readouterr().err
    )
    assert run(["doctor", str(place / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 3: Expecting"),
        ('{"schema": 99, "kind": "memory", "attention": "x"}', "a record of layout 99: this saccade reads layout 1"),
        ('{"kind": "input pipeline"}', "no record: "),
        (memory("x").line().replace('"memory"', '"feelings"'), "a record of kind 'feelings'"),
        (memory("x").line()[:-1] + ', "conditions": [1]}', "a record whose conditions are no table: '[1]'"),
    ],
    ids=["half a line", "a newer layout", "another kind of line", "an unknown kind", "a list for a table"],
)
def test_a_line_that_cannot_be_read_is_named_and_hides_no_other(folder, capsys, line, said):
    place = folder(*ONE_STEP)
    with open(place / "records.jsonl", "a") as file:
        file.write(f"{line}\nanother\n")
    assert run(["doctor", str(place)]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "and 1 more of its 4 lines cannot be read" in printed.err
    assert "one step" in printed.out


def test_what_is_no_text_is_said_to_be_none(tmp_path):
    (tmp_path / "records.jsonl").write_bytes(b"\xff\xfe\x00")
    (sentence,) = read_folder(tmp_path).unread
    assert "it is no text" in sentence
    (tmp_path / "records.jsonl").write_text("")
    (sentence,) = read_folder(tmp_path).unread
    assert "it is empty" in sentence


def test_markup_in_a_record_is_text(folder, capsys):
    run(["doctor", str(folder(memory("softmax"), memory("[red]x[/red]", steps=1)))])
    assert "[red]x[/red]" in capsys.readouterr().out
