"""`check` says which clauses of the contract an attention keeps."""

import json
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from saccade.attention import TABLE, contract
from saccade.attention.contract import CLAUSES
from saccade.cli import console, run

BROKEN = Path(__file__).parent.parent / "attention" / "broken.py"


CHECKED = ["equals_reference", "softmax_at_its_limit", "regrids"]


@pytest.fixture(autouse=True)
def three_clauses(monkeypatch):
    """All clauses are tested where they live; torch.compile cannot look through the tests' shape checks."""
    monkeypatch.setattr(contract, "check", partial(contract.check, clauses=CHECKED))


def cells(text):
    """The words of each line of a table, without its borders."""
    return [line.replace("│", " ").split() for line in text.splitlines()]


def test_a_kept_contract_is_a_table_and_exit_code_0(capsys):
    assert run(["check", "softmax", f"{BROKEN}:Sound(qkv_bias=False)"]) == 0
    said = capsys.readouterr()
    assert ["equals_reference", "kept", "kept"] in cells(said.out)
    assert said.err.splitlines()[0] == "checking softmax (1 of 2)"
    assert said.err.splitlines()[1].endswith(":Sound(qkv_bias=False) (2 of 2)")


def test_a_clause_that_asks_nothing_of_an_attention_was_not_checked(capsys):
    assert run(["check", "softmax", "linear"]) == 0
    assert ["softmax_at_its_limit", "kept", "not", "checked"] in cells(capsys.readouterr().out)
    assert run(["check", "softmax", "linear", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["checked"] for row in rows] == [True, True, True, True, False, True]
    assert rows[4]["ok"]
    assert rows[4]["sentence"].startswith("not checked: softmax_limit names no options")


MANY = ["softmax", "linear", "nystrom", f"{BROKEN}:StaysOnOldGrid", "fourier"]


def test_many_attentions_stand_one_below_the_other(capsys):
    assert run(["check", *MANY]) == 1
    lines = cells(capsys.readouterr().out)
    assert lines[0] == ["1", "2", "3"]
    assert ["softmax", "✓", "✓", "✓"] in lines
    assert ["linear", "✓", "–", "✓"] in lines
    assert [f"{BROKEN}:StaysOnOldGrid", "✓", "–", "✗"] in lines
    legend = [line[:2] for line in lines if line[:1] in (["1"], ["2"], ["3"])][1:]
    assert legend == [[str(number), clause] for number, clause in enumerate(CHECKED, 1)]


@pytest.mark.parametrize("width", [80, 100])
def test_all_clauses_of_many_attentions_fit_a_terminal(capsys, monkeypatch, width):
    kept = [contract.Verdict(clause, True, "kept", checked=number % 2 == 0) for number, clause in enumerate(CLAUSES)]
    monkeypatch.setattr(contract, "check", lambda name: kept)
    monkeypatch.setattr(console, "results", lambda: Console(width=width))
    assert run(["check", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= width
    for name in TABLE:
        [line] = [line for line in lines if line.startswith(f"{name} ")]
        assert line.split()[1:] == ["✓" if verdict.checked else "–" for verdict in kept]


def test_a_broken_clause_is_named_with_what_was_seen_and_is_exit_code_1(capsys):
    assert run(["check", f"{BROKEN}:ScaledAfterSoftmax"]) == 1
    said = capsys.readouterr()
    assert "BROKEN" in said.out
    assert "breaks equals_reference: grid 4 x 5, prefix 1, all patches: output of forward" in said.err
    assert "2 of 3 clauses are broken" in said.err


def test_json_is_a_line_for_each_attention_and_clause(capsys):
    assert run(["check", "linear", f"{BROKEN}:StaysOnOldGrid", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["attention"].split(":")[-1], row["clause"], row["ok"]) for row in rows] == [
        ("linear", "equals_reference", True),
        ("linear", "softmax_at_its_limit", True),
        ("linear", "regrids", True),
        ("StaysOnOldGrid", "equals_reference", True),
        ("StaysOnOldGrid", "softmax_at_its_limit", True),
        ("StaysOnOldGrid", "regrids", False),
    ]


def test_all_are_those_of_the_table(capsys, monkeypatch):
    monkeypatch.setattr(contract, "check", lambda name: [contract.Verdict("regrids", True, "kept")])
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
