import io
import sys

from saccade.training.progress import Lines, shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_lines_are_plain(capsys):
    with shown() as progress:
        progress.say("loss [red]1.5")
        progress.advance(1, 2)
    assert isinstance(progress, Lines)
    assert capsys.readouterr().err == "loss [red]1.5\n"


def test_on_a_terminal_a_bar_stands_below_the_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with shown() as progress:
        progress.say("loss [red]1.5")
        progress.advance(3, 12)
    seen = sys.stderr.getvalue()
    assert "loss [red]1.5" in seen
    assert "3/12" in seen
