"""`check` says which clauses of the contract an attention keeps."""

import json
from functools import partial
from pathlib import Path

import pytest

from saccade.attention import TABLE, contract
from saccade.cli import run

BROKEN = Path(__file__).parent.parent / "attention" / "broken.py"


@pytest.fixture(autouse=True)
def two_clauses(monkeypatch):
    """All clauses are tested where they live; torch.compile cannot look through the tests' shape checks."""
    monkeypatch.setattr(contract, "check", partial(contract.check, clauses=["equals_reference", "regrids"]))


def test_a_kept_contract_is_a_table_and_exit_code_0(capsys):
    assert run(["check", "softmax", f"{BROKEN}:Sound(qkv_bias=False)"]) == 0
    said = capsys.readouterr()
    assert "equals reference" in said.out
    assert said.out.count("kept") == 4
    assert "checking softmax" in said.err


def test_a_broken_clause_is_named_with_what_was_seen_and_is_exit_code_1(capsys):
    assert run(["check", f"{BROKEN}:ScaledAfterSoftmax"]) == 1
    said = capsys.readouterr()
    assert "BROKEN" in said.out
    assert "breaks equals_reference: grid 4 x 5, prefix 1, all patches: output of forward" in said.err
    assert "2 of 2 clauses are broken" in said.err


def test_json_is_a_line_for_each_attention_and_clause(capsys):
    assert run(["check", "linear", f"{BROKEN}:StaysOnOldGrid", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["attention"].split(":")[-1], row["clause"], row["ok"]) for row in rows] == [
        ("linear", "equals_reference", True),
        ("linear", "regrids", True),
        ("StaysOnOldGrid", "equals_reference", True),
        ("StaysOnOldGrid", "regrids", False),
    ]


def test_all_are_those_of_the_table(capsys):
    assert run(["check", "--all", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(row["attention"] for row in rows)) == list(TABLE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "check what?"),
        (["softmax", "nystom"], "did you mean 'nystrom'?"),
        (["nystrom(landmark=3)"], "did you mean landmarks?"),
        (["nystrom(landmarks=500)"], "refuses every grid"),
        (["nowhere.py:Mine"], "there is no file nowhere.py"),
        ([f"{BROKEN}:Missing"], "is no subclass of"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(capsys, arguments, says):
    assert run(["check", *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""
