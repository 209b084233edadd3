"""The frame of the command line: exit codes, one sentence for a user's mistake, help for every verb."""

import signal
import subprocess
import sys
import time

import pytest

from saccade.cli import app, run
from saccade.errors import Diverged, Failed

VERBS = [name for name in app if not name.startswith("-")]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert run([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Example" in said
    assert f"saccade {verb}" in said


def test_the_first_help_says_what_each_verb_does(capsys):
    run(["--help"])
    said = capsys.readouterr().out
    for verb in VERBS:
        line = next(line for line in said.splitlines() if f"│ {verb} " in line)
        assert len(line.strip("│ ").removeprefix(verb).strip()) > 10, f"{verb} does not say what it does"


@pytest.mark.parametrize(
    "wrong", [["compaer"], ["compare", "--sedes", "3"], ["compare", "--seeds", "many"], ["summary"]]
)
def test_a_wrong_word_is_exit_2(wrong):
    assert run(wrong) == 2


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("x"), 2),
        (FileNotFoundError("x"), 2),
        (OSError(28, "disk full"), 1),
        (Failed("x"), 1),
        (Diverged("x"), 3),
    ],
)
def test_each_kind_of_end_has_its_exit_code(raised, code, monkeypatch, capsys):
    def verb(*arguments, **options):
        raise raised

    monkeypatch.setattr("saccade.cli.app", verb)
    assert run([]) == code
    assert capsys.readouterr().err.startswith("saccade: ")


def test_a_traceback_can_be_asked_for(monkeypatch):
    def verb(*arguments, **options):
        raise ValueError("x")

    monkeypatch.setattr("saccade.cli.app", verb)
    monkeypatch.setenv("SACCADE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="x"):
        run([])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_code(number, code):
    waiting = (
        "import time, saccade.cli as cli\n"
        "cli.app = lambda *a, **k: (print('ready', flush=True), time.sleep(60))\n"
        "cli.main([])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", waiting], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said


def test_a_reader_that_stops_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m saccade models | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
