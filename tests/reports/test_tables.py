import io
import re

import pytest
from rich.console import Console

from saccade.reports.rows import rows
from saccade.reports.tables import markdown, notebook, terminal

EVIL = '[red]x[/red]|`<script>alert("1")</script>'


@pytest.fixture
def found(made):
    accuracies = {"softmax": 0.92, "linear": 0.915, "nystrom(landmarks=16)": 0.918, "fourier": 0.7, "lambda": 0.93}
    return rows(made.whole(accuracies, costs={"linear": 0.8, "fourier": 0.6, "lambda": 1.9}), 3)


def printed(renderable, width, terminal_=False):
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal_, no_color=False).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140, 240])
def test_no_line_is_wider_than_the_terminal(found, width):
    assert max(map(len, printed(terminal(found, 3), width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 100, 140, 240])
def test_nothing_is_lost_in_a_narrower_terminal(found, width):
    wide, narrow = (set(printed(terminal(found, 3), each).replace("─", "").split()) for each in (400, width))
    assert wide <= narrow


def test_a_wide_terminal_gets_one_table(found):
    assert printed(terminal(found, 3), 240).count("attention") == 1
    assert printed(terminal(found, 3), 100).count("attention") == 2


def test_a_pipe_gets_no_colour(found, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in printed(terminal(found, 3), 100)
    assert "\x1b" in printed(terminal(found, 3), 100, terminal_=True)


def test_the_numbers_are_there(found):
    text = printed(terminal(found, 3), 240)
    row = next(row for row in found if row.attention == "linear")
    for part in (f"{row.mean_percent:.1f}", f"{row.costs.ratios['step'].value:.2f}", "margin 3", "12.5 s", "28.3 k"):
        assert part in text
    assert "the sdpa kernel" in text


@pytest.fixture
def evil(made):
    records = [made.seconds("softmax", kernel="sdpa"), made.accuracy("softmax"), made.accuracy(EVIL, percent=80.0)]
    return rows(records)


def test_what_a_user_wrote_is_text_in_a_terminal(evil):
    assert "[red]x[/red]" in printed(terminal(evil, 1), 240)


def test_what_a_user_wrote_is_text_in_a_notebook(evil):
    html = notebook(evil, 1)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert set(re.findall(r"</?(\w+)", html)) == {"table", "thead", "tbody", "tr", "th", "td", "br", "small", "p"}


def test_what_a_user_wrote_is_code_in_markdown(evil):
    (line,) = [line for line in markdown(evil, 1).splitlines() if "script" in line]
    assert line.startswith('| `` [red]x[/red]\\|`<script>alert("1")</script> `` |')


def test_what_went_wrong_is_text_in_markdown(made):
    records = [made.seconds("softmax", kernel="sdpa"), made.memory("linear", error="<b>|*x*", values={})]
    assert "`linear`<br>&lt;b&gt;\\|\\*x\\*" in markdown(rows(records), 1)


def test_markdown_is_a_table_of_equal_lines(found):
    lines = [line for line in markdown(found, 3).splitlines() if line.startswith("|")]
    assert len(lines) == len(found) + 2
    assert {line.count(" | ") for line in lines} == {10}


def test_records_without_costs_still_make_a_table(made):
    text = printed(terminal(rows([made.accuracy("softmax"), made.accuracy("linear")]), 1), 100)
    assert "–" in text
