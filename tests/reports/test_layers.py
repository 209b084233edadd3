"""What a bench measured: ratios to the best softmax of the size, gaps with their reasons, a report and a picture."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from saccade.attention import resolved_text
from saccade.record import Record, read_records
from saccade.reports.fairness.finding import Finding
from saccade.reports.layer_report import layer_report, write_layer_report
from saccade.reports.layer_table import LEGEND, by_kind, columns
from saccade.reports.layers import busy, gaps, lines, unwatched, why_missing
from saccade.reports.scaling import apart, scaling_pictures
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


def test_growth_is_told_from_three_sizes_on(records):
    assert found(records, "linear").growth is None
    longer = [*records, record("linear", 200, 4.0)]
    assert found(longer, "linear").growth.exponent == pytest.approx(0.5)
    assert found(longer, "linear").growth.low == pytest.approx(0.5, abs=0.1)


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
    assert list(by_kind(lines(records))) == [
        "core, forward",
        "core, forward + backward",
        "whole layer, forward",
        "whole layer, forward + backward",
    ]


def test_memory_is_divided_by_the_leanest_softmax():
    records = [record(SDPA, 50, 400, kind="memory"), record(EXPLICIT, 50, 800, kind="memory")]
    records += [record("linear", 50, 200, kind="memory"), record("fourier", 50, 0, kind="memory")]
    assert found(records, "linear", "peak").points[50].ratio.value == 0.5
    assert found(records, EXPLICIT, "peak").points[50].ratio.value == 2.0
    assert found(records, "fourier", "peak").points[50].ratio is None


def test_every_set_of_terms_has_its_own_softmax_and_table(records):
    """On other terms everything is a hundred times faster, and linear slower than softmax."""
    other = [record(SDPA, 50, 0.01, batch_size=1, round="x"), record("linear", 50, 0.03, batch_size=1, round="x")]
    kinds = by_kind(lines([*records, *other]))
    assert {line.setting.batch_size for line in kinds["core, forward, batch 1"]} == {1}
    one = next(line for line in kinds["core, forward, batch 1"] if line.attention == "linear")
    assert one.points[50].ratio.value == pytest.approx(3.0)
    four = next(line for line in kinds["core, forward, batch 4"] if line.attention == "linear")
    assert four.points[50].ratio.value == pytest.approx(2.0)


def test_memory_is_compared_on_equal_terms_only():
    records = [record(SDPA, 50, 400, kind="memory"), record(SDPA, 50, 100, kind="memory", dtype="bf16")]
    records += [record("linear", 50, 200, kind="memory"), record("linear", 50, 200, kind="memory", dtype="bf16")]
    ratios = [one.points[50].ratio.value for one in lines(records) if one.attention == "linear"]
    assert ratios == [0.5, 2.0]


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"dtype": "bf16"}, "core, forward"),
        ({"amp_dtype": "bf16"}, "core, forward, bf16 autocast"),
        ({"compile": True, "checkpointing": True}, "core, forward, compiled, checkpointing"),
    ],
)
def test_a_title_says_what_a_reader_would_not_expect(terms, words):
    assert next(iter(by_kind(lines([record(SDPA, 50, 1.0, **terms)])))) == words


def test_models_have_their_own_acts_and_are_called_by_name():
    model = Record(
        kind="seconds",
        attention="softmax",
        attention_resolved=resolved_text("softmax", 12),
        model="vit_tiny_patch16_224",
        values={"step_seconds": [3.0] * 3, "inference_seconds": [1.0] * 3, "warmup_step_compile_seconds": 12.0},
        conditions={"what": "model", "tokens": 197, "options_chosen": False, "batch_size": 4, "dtype": "fp32"},
        round="1",
    )
    rival = replace(
        model,
        values={"step_seconds": [1.5] * 3, "inference_seconds": [0.25] * 3},
        conditions={**model.conditions, "rival": "softmax at patch_size=32", "tokens": 50, "beside_tokens": 197},
    )
    kinds = by_kind(lines([model, rival]))
    assert list(kinds) == ["vit_tiny_patch16_224, inference", "vit_tiny_patch16_224, training step"]
    softmax, other = kinds["vit_tiny_patch16_224, training step"]
    assert (softmax.baseline, other.baseline, other.attention) == (True, False, "softmax at patch_size=32")
    # It stands beside what it would replace, and is divided by that.
    assert other.points[197].ratio.value == pytest.approx(0.5)
    assert softmax.points[197].compile_seconds == 12.0
    headings = [column.heading[0] for column in columns([softmax, other])]
    assert headings == ["attention", "197 tokens", "compiled"]


def test_one_act_may_have_failed_and_another_be_there(records):
    half = replace(
        record("xca", 50, 3.0),
        # Of the act that failed in its second turn, the first one is there, and counts for nothing.
        values={"forward_seconds": [3.0] * 3, "forward_backward_seconds": [9.0]},
        conditions={**records[0].conditions, "failed": {"forward_backward": "out of memory: it needs more"}},
        error="out of memory: it needs more",
    )
    assert found([*records, half], "xca").points[50].ratio.value == pytest.approx(3.0)
    assert found([*records, half], "xca", "forward_backward").errors == {50: "out of memory: it needs more"}
    # A round that does not count as a whole has values, too.
    assert why_missing(replace(record("xca", 50, 3.0), error="busy: others"), "forward") == "busy: others"


def test_softmax_of_every_heat_is_one_line_and_each_is_divided_by_its_own():
    first = [record(SDPA, 50, 1.0), record("linear", 50, 2.0)]
    second = [replace(record(SDPA, 50, 4.0), round="later"), replace(record("xca", 50, 2.0), round="later")]
    made = [*first, *second]
    assert found(made, SDPA).points[50].cost == 1.0
    assert found(made, "linear").points[50].ratio.value == pytest.approx(2.0)
    assert found(made, "xca").points[50].ratio.value == pytest.approx(0.5)


def test_records_of_other_kinds_are_no_lines(records):
    other = replace(records[0], kind="operations", values={"flops_per_image": 1})
    compared = replace(records[0], conditions={"batch_size": 4})
    assert lines([other, compared]) == []
    assert lines([*records, other, compared]) == lines(records)


def test_gaps_are_said_once_with_all_their_sizes(records):
    assert gaps(lines(records)) == [
        "lambda at 50, 800 tokens: no core: it does not mix",
        "nystrom at 800 tokens: failed: Broken: it is not its reference",
    ]


def test_a_busy_round_is_seen(records):
    assert not busy(records)
    assert busy([*records, record("linear", 50, 1.0, busy=True)])


def test_a_table_has_ratio_interval_median_spread_growth_and_crossing(records):
    records = [*records, record(SDPA, 200, 4.0), record("linear", 200, 4.0)]
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
        "0.50 (0.",
        "r² 1.000",
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
    found = [Finding("few repeats", "warning", "three is few", "five")]
    text = layer_report(records, lines(records), found, "saccade bench linear", ["p.png"])
    for title in by_kind(lines(records)):
        assert f"## {title}" in text
    for part in ("saccade bench linear", "(p.png)", LEGEND, "processor: P", "batch_size: 4", "three is few"):
        assert part in text
    assert "`nystrom` at 50 tokens: `nystrom(landmarks=2)`" in text
    assert "lambda at 50, 800 tokens: no core" in text
    assert "not to be trusted" not in text
    crowded = [*records, record("linear", 50, 1.0, busy=True)]
    assert "not to be trusted" in layer_report(crowded, lines(crowded))


def test_every_value_of_a_term_is_told(records):
    both = [*records, record(SDPA, 50, 1.0, batch_size=1)]
    assert "batch_size: 4, 1" in layer_report(both, lines(both))


def test_everything_is_written(records, tmp_path):
    records = [*records, record(SDPA, 50, 400, kind="memory"), record(SDPA, 800, 800, kind="memory")]
    report = write_layer_report(tmp_path / "new", records, [], "saccade bench")
    pictures = {f"{what}-tokens.{kind}" for what in ("time", "memory") for kind in ("png", "svg")}
    assert {path.name for path in report.parent.iterdir()} == {"records.jsonl", "report.md", *pictures}
    assert list(read_records(report.parent / "records.jsonl")) == records
    assert "(time-tokens.png)" in report.read_text()
    assert "(memory-tokens.png)" in report.read_text()


def test_the_picture_has_both_axes_labelled_every_name_and_every_fitted_power(records, tmp_path):
    _, picture = scaling_pictures(
        lines([*records, record("linear", 200, 4.0), record("lambda", 800, 9.0, what="layer")]), tmp_path
    )
    text = picture.read_text()
    for words in ("tokens", "time of a call", "core, forward + backward", "linear", "lambda", "N^0.50"):
        assert f"<!-- {words}" in text


def test_names_at_the_end_of_lines_keep_apart():
    assert apart([0.1, 0.11, 0.5], 0.1) == pytest.approx([0.1, 0.2, 0.5])
    assert apart([0.1, 0.11, 0.12], 0.1) == pytest.approx([0.1, 0.2, 0.3])


def test_where_nothing_was_timed_at_two_sizes_there_is_no_picture(tmp_path):
    assert scaling_pictures(lines([record("lambda", 50, error="no core: it does not mix")]), tmp_path) == []
    assert scaling_pictures(lines([record(SDPA, 50, 1.0), record("linear", 50, 1.0)]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_where_the_system_does_not_say_who_else_worked_that_is_said(records):
    blind = [replace(one, conditions={**one.conditions, "busy": None}) for one in records]
    assert unwatched(blind)
    assert "This system does not say whether others used the processors" in layer_report(blind, lines(blind))
    assert not unwatched(records)
    assert not unwatched([*blind, record("linear", 50, 1.0, busy=False)])
