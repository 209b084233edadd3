"""What a bench measured: ratios to the best softmax of the size, gaps with their reasons, a report and a picture."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from saccade.attention import resolved_text
from saccade.record import Record, read_records
from saccade.reports.layer_report import layer_report, write_layer_report
from saccade.reports.layers import LEGEND, TITLES, busy, by_kind, columns, gaps, lines
from saccade.reports.scaling import time_tokens
from saccade.reports.tables import TerminalTable, markdown_table

SDPA, EXPLICIT = 'softmax(kernel="sdpa")', 'softmax(kernel="explicit")'


def record(attention, tokens, seconds=None, what="core", kind="seconds", error=None, resolved=None, **conditions):
    """Three repeats around a time."""
    repeats = [] if seconds is None else [seconds * 0.9, seconds, seconds * 1.1]
    values = {"forward_seconds": repeats, "forward_backward_seconds": [3 * one for one in repeats]}
    if kind == "memory":
        values = {"peak_bytes": seconds}
    return Record(
        kind=kind,
        attention=attention,
        attention_resolved=resolved or resolved_text(attention, 1),
        model=what,
        values={} if seconds is None else values,
        conditions={"what": what, "tokens": tokens, "options_chosen": False, "batch_size": 4, **conditions},
        machine={"processor": "P", "torch": "2"},
        round=f"{tokens} {what}" if kind == "seconds" and not error else None,
        error=error,
    )


@pytest.fixture
def records():
    """linear crosses softmax at 200 tokens; the explicit kernel is the faster one at 50."""
    return [
        record(SDPA, 50, 2.0),
        record(SDPA, 800, 16.0),
        record(EXPLICIT, 50, 1.0),
        record(EXPLICIT, 800, 64.0),
        record("linear", 50, 2.0),
        record("linear", 800, 8.0),
        record("lambda", 50, error="no core: it does not mix"),
        record("lambda", 800, error="no core: it does not mix"),
        record("lambda", 50, 4.0, what="layer"),
        record("nystrom", 50, 1.0, options_chosen=True, resolved="nystrom(landmarks=2)"),
        record("nystrom", 800, error="failed: Broken: it is not its reference"),
    ]


def found(records, attention, act="forward", what="core"):
    return next(one for one in lines(records) if (one.attention, one.what, one.act) == (attention, what, act))


def test_ratios_are_to_the_best_softmax_of_each_size(records):
    linear = found(records, "linear")
    assert [point.ratio.value for point in linear.points.values()] == pytest.approx([2.0, 0.5])
    assert [point.cost for point in linear.points.values()] == [2.0, 8.0]
    assert linear.points[50].quartiles == pytest.approx((1.9, 2.1))
    assert found(records, SDPA).points[50].ratio.value == pytest.approx(2.0)
    assert found(records, SDPA).points[800].ratio.value == 1.0


def test_the_crossing_is_between_the_sizes(records):
    linear = found(records, "linear")
    assert linear.crossing.tokens == pytest.approx((200,))
    assert linear.crossing.words == "from 200"
    assert linear.exponent == pytest.approx(0.5)


def test_softmax_is_the_baseline_and_meets_nobody(records):
    for name in (SDPA, EXPLICIT):
        assert found(records, name).baseline
        assert found(records, name).crossing is None
    assert not found(records, "linear").baseline


def test_softmax_with_other_options_is_another_function(records):
    other = found([*records, record("softmax(qk_norm=True)", 50, 3.0)], "softmax(qk_norm=True)")
    assert not other.baseline
    assert other.points[50].ratio.value == pytest.approx(3.0)


def test_ratios_stay_within_a_round(records):
    stranger = record("linear", 50, 5.0)
    alone = found([stranger, record(SDPA, 800, 1.0)], "linear")
    assert alone.points[50].ratio is None
    assert alone.crossing is None


def test_a_softmax_of_another_round_is_nobodys_baseline(records):
    other = replace(record(SDPA, 50, 0.1), round="another day")
    assert found([other, *records], "linear").points[50].ratio.value == pytest.approx(2.0)


def test_softmax_comes_first_and_the_others_as_measured(records):
    core = [line.attention for line in by_kind(lines(records))["core, forward"]]
    assert core == [SDPA, EXPLICIT, "linear", "lambda", "nystrom"]
    assert list(by_kind(lines(records))) == [title for title in TITLES.values() if "peak" not in title]


def test_memory_is_divided_by_the_leanest_softmax():
    records = [record(SDPA, 50, 400, kind="memory"), record(EXPLICIT, 50, 800, kind="memory")]
    records += [record("linear", 50, 200, kind="memory"), record("fourier", 50, 0, kind="memory")]
    assert found(records, "linear", "peak").points[50].ratio.value == 0.5
    assert found(records, EXPLICIT, "peak").points[50].ratio.value == 2.0
    assert found(records, "fourier", "peak").points[50].ratio is None


def test_gaps_are_said_once_with_all_their_sizes(records):
    assert gaps(lines(records)) == [
        "lambda at 50, 800 tokens: no core: it does not mix",
        "nystrom at 800 tokens: failed: Broken: it is not its reference",
    ]


def test_a_busy_round_is_seen(records):
    assert not busy(records)
    assert busy([*records, record("linear", 50, 1.0, busy=True)])


def test_a_table_has_ratio_interval_median_spread_growth_and_crossing(records):
    own = by_kind(lines(records))["core, forward"]
    file = io.StringIO()
    Console(file=file, width=200).print(TerminalTable(columns(own), ""))
    text = file.getvalue()
    for part in (
        "50 tokens",
        "800 tokens",
        "2.00",
        "8.00 s ± 10%",
        "0.50",
        "from 200",
        "baseline",
        "no core",
        "failed",
    ):
        assert part in text
    assert "options chosen by size" in text
    rows = markdown_table(columns(own), "").splitlines()
    assert len(rows) == 2 + len(own)
    assert "| `linear` |" in rows[4]


def test_a_line_is_plain_values(records):
    plain = found(records, "linear").plain()
    assert plain["cheaper"] == "from 200"
    assert plain["crossing_tokens"] == pytest.approx([200])
    assert [size["tokens"] for size in plain["sizes"]] == [50, 800]
    assert plain["sizes"][1]["ratio"] == pytest.approx(0.5)
    assert found(records, "lambda").plain()["errors"][0]["tokens"] == 50
    assert found(records, "lambda").plain()["cheaper"] is None


def test_the_report_holds_tables_reasons_terms_and_chosen_options(records):
    text = layer_report(records, lines(records), "saccade bench linear", "p.png")
    for title in by_kind(lines(records)):
        assert f"## {title}" in text
    for part in ("saccade bench linear", "(p.png)", LEGEND, "processor: P", "batch_size: 4"):
        assert part in text
    assert "`nystrom` at 50 tokens: `nystrom(landmarks=2)`" in text
    assert "lambda at 50, 800 tokens: no core" in text
    assert "not to be trusted" not in text
    crowded = [*records, record("linear", 50, 1.0, busy=True)]
    assert "not to be trusted" in layer_report(crowded, lines(crowded))


def test_everything_is_written(records, tmp_path):
    report = write_layer_report(tmp_path / "new", records, "saccade bench")
    assert {path.name for path in report.parent.iterdir()} == {
        "records.jsonl",
        "report.md",
        "time-tokens.png",
        "time-tokens.svg",
    }
    assert list(read_records(report.parent / "records.jsonl")) == records
    assert "(time-tokens.png)" in report.read_text()


def test_the_picture_has_both_axes_labelled_and_every_name(records, tmp_path):
    _, picture = time_tokens(lines(records), tmp_path)
    text = picture.read_text()
    for words in ("tokens", "time of a batch", "core, forward + backward", "linear", "lambda"):
        assert f"<!-- {words}" in text


def test_where_nothing_was_timed_there_is_no_picture(tmp_path):
    assert time_tokens(lines([record("lambda", 50, error="no core: it does not mix")]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
