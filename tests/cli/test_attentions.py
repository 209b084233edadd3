"""`saccade attentions` lists every mechanism, for people and for programs."""

import json
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from saccade.attention import TABLE, Tokens, build
from saccade.attention.facts import facts
from saccade.cli import console, run
from saccade.cli.attentions import attentions


def printed(capsys, monkeypatch, width, *names):
    monkeypatch.setattr(console, "results", lambda: Console(width=width))
    attentions(*names)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100, 240])
def test_it_names_every_mechanism_and_fits(capsys, monkeypatch, width):
    lines = printed(capsys, monkeypatch, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    for name in TABLE:
        starts = [line for line in lines if line.startswith(f"{name} ")]
        assert len(starts) == 2
        assert facts(name).cost.split()[0] in starts[0]
        assert "…" not in starts[0]


def test_in_a_pipe_no_line_is_broken(capsys, monkeypatch):
    text = printed(capsys, monkeypatch, console.PIPE_COLUMNS)
    for name in TABLE:
        one = facts(name)
        assert one.title in text
        assert one.paper in text
        assert one.exact_when in text


def test_a_line_of_facts_says_yes_and_no(capsys, monkeypatch):
    lines = printed(capsys, monkeypatch, 240).splitlines()
    row = next(line for line in lines if line.startswith("lambda "))
    assert row.split(")")[-1].split() == ["yes", "no", "yes", "never"]


def test_as_json_it_is_a_line_each(capsys):
    assert run(["attentions", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == list(TABLE)
    assert lines[0]["options"]["kernel"] == "auto"
    assert lines[0]["free_of_order"] is True


@pytest.mark.parametrize("name", TABLE)
def test_what_it_shows_can_be_written(capsys, monkeypatch, name):
    text = printed(capsys, monkeypatch, 240)
    written = next(line.strip() for line in text.splitlines() if re.match(rf" +{name}(\(|\s*$)", line))
    build(written, 16, 2, Tokens((14, 14), prefix=1))


def test_what_most_take_is_said_once(capsys, monkeypatch):
    text = printed(capsys, monkeypatch, 240)
    assert text.count("rope=False") == 1
    last = text.splitlines()[-1]
    assert last.endswith(": bias=True, qk_norm=False, qkv_bias=True, rope=False.")
    assert set(last.partition(":")[0].removeprefix("Taken by all but ").split(", ")) == {
        name for name in TABLE if not facts(name).shared
    }


@pytest.mark.parametrize("width", [80, 240])
@pytest.mark.parametrize("name", TABLE)
def test_a_name_shows_what_each_of_its_options_means(capsys, monkeypatch, name, width):
    text = printed(capsys, monkeypatch, width, name)
    assert max(map(cell_len, text.splitlines())) <= width
    for option in facts(name).options:
        beside = [line.split(maxsplit=1)[1].strip() for line in text.splitlines() if line.split()[:1] == [option]]
        assert any(facts(name).meanings[option].startswith(part) for part in beside)
    assert not [other for other in TABLE if other != name and f"\n{other} " in text]


def test_names_are_also_a_line_of_json_each(capsys):
    assert run(["attentions", "nystrom", "linear", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == ["nystrom", "linear"]
    assert lines[0]["meanings"]["landmarks"] == facts("nystrom").meanings["landmarks"]


def test_an_unknown_name_is_wrong_input(capsys):
    assert run(["attentions", "nystorm"]) == 2
    assert "there is no attention 'nystorm'" in capsys.readouterr().err


def test_its_help_holds_an_example():
    assert "`saccade attentions`" in attentions.__doc__
