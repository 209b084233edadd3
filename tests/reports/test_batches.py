"""The table of largest batches: softmax's is the measure, and what is not known for sure is said not to be."""

from dataclasses import replace

import pytest

from saccade.record import Record
from saccade.reports.batch_report import batch_report, write_batch_report
from saccade.reports.batches import columns, gaps, legend, ok_line, tries

VALUES = {"budget_bytes": 4 * 10**9, "margin": 0.0, "verified": "here"}
TRIED = [
    {"batch_size": 84, "fits": True, "reason": "ok"},
    {"batch_size": 85, "fits": False, "reason": "out of memory"},
]


def values(batch, *, start="", **changed):
    found = {
        "largest_batch": batch,
        "predicted_largest_batch": batch,
        "predicted_bytes_at": batch * 10**7 or None,
        "next_bytes": (batch + 1) * 10**7,
        "bytes_per_image": 10**7 if batch else None,
        "baseline_bytes": 3 * 10**8,
        "within": 0.02,
        "confirmed": None,
        "tried": [],
        **changed,
    }
    return {f"{start}{name}": value for name, value in found.items()}


def record(attention, batch=0, resolved=None, **changed):
    return Record(
        kind="batch",
        attention=attention,
        attention_resolved=resolved or f"{attention}()",
        model="vit_nano_patch1_8",
        values={**VALUES, **values(batch, **changed), **values(10 * batch, start="inference_")},
        conditions={"device": "cpu", "for": None, "memory_asked": "4GB"},
    )


SOFTMAX = record("softmax", 100, 'softmax(kernel="auto", qk_norm=False)')
LINEAR = record("linear", 135)
REFUSED = replace(record("nystrom"), values={}, error="refused: landmarks must be 1..63")


def cells(records, heading):
    return next(column.cells for column in columns(records) if column.heading[0] == heading)


@pytest.mark.parametrize(
    ("fits", "reason", "line"),
    [
        (True, "ok", "batch_size=84 => OK"),
        (False, "out of memory", "batch_size=84 => out of memory"),
        (None, "timed out", "batch_size=84 => timed out"),
    ],
)
def test_a_try_is_printed_as_original_001_did(fits, reason, line):
    assert ok_line(84, fits, reason) == line


def test_batches_are_divided_by_softmaxs():
    assert cells([SOFTMAX, LINEAR], "training batch") == (("100", "1.00"), ("135", "1.35"))
    assert cells([SOFTMAX, LINEAR], "inference batch") == (("1,000", "1.00"), ("1,350", "1.35"))
    assert cells([SOFTMAX, LINEAR], "memory")[1] == ("1.35 GB", "10.0 MB")
    # Without softmax there is nothing to divide by.
    assert cells([LINEAR], "training batch") == (("135", "–"),)


def test_what_is_refused_is_listed_with_its_sentence():
    assert cells([SOFTMAX, REFUSED], "training batch")[1] == ("refused", "")
    assert cells([SOFTMAX, REFUSED], "known")[1] == ("–", "")
    assert gaps([SOFTMAX, REFUSED]) == ["nystrom: refused: landmarks must be 1..63"]


def test_where_not_one_image_fits_the_bytes_that_it_needs_are_said():
    small = record("softmax", 0, next_bytes=5 * 10**9)
    assert "softmax: no image fits in training: one needs 5.00 GB and there are 4.00 GB" in gaps([small])


def test_the_table_says_how_a_batch_is_known():
    confirmed = record("linear", 84, confirmed=True, predicted_largest_batch=86)
    confirmed = replace(confirmed, values={**confirmed.values, "inference_confirmed": True})
    now_and_then = replace(confirmed, values={**confirmed.values, "next_fits": "at times"})
    failed = record("linear", 84, confirmed=False)
    absent = replace(SOFTMAX, values={**SOFTMAX.values, "verified": "unverified"})
    known = [cells([one], "known")[0] for one in (SOFTMAX, confirmed, now_and_then, failed, absent)]
    assert known == [
        ("prediction", "within 2 %"),
        ("tries", "86 predicted"),
        ("tries; one more at times", "86 predicted"),
        ("not confirmed", ""),
        ("prediction", "unverified"),
    ]


def test_the_legend_says_what_was_taken_and_for_whom():
    assert "in 4.00 GB; × softmax" in legend([REFUSED, SOFTMAX])
    assert "300 MB that are taken before there is any model" in legend([SOFTMAX])
    less = replace(SOFTMAX, values={**SOFTMAX.values, "inference_baseline_bytes": 2 * 10**8})
    assert "the 300 MB (training) and 200 MB (inference) that are taken before" in legend([less])
    assert "MALLOC_MMAP_THRESHOLD_" in legend([SOFTMAX])
    assert "of which 0.1 is kept free" in legend([replace(SOFTMAX, values={**SOFTMAX.values, "margin": 0.1})])
    away = replace(SOFTMAX, conditions={**SOFTMAX.conditions, "device": "cuda", "for": "t4"})
    away = replace(away, values={**away.values, "verified": "unverified"})
    assert "Predicted for t4, unverified: keep a margin." in legend([away])
    assert legend([REFUSED]) == ""


def test_tries_are_told_in_their_order():
    tried = record("linear", 84, confirmed=True, tried=TRIED)
    assert tries([SOFTMAX, tried]) == [
        "====== linear, training ======",
        "batch_size=84 => OK",
        "batch_size=85 => out of memory",
        "=> batch_size = 84",
    ]
    assert tries([SOFTMAX]) == []


def test_the_report_holds_command_table_and_tries(tmp_path):
    tried = record("linear|", 84, confirmed=True, tried=TRIED)
    path = write_batch_report(tmp_path / "out", [SOFTMAX, tried, REFUSED], "saccade max-batch")
    text = path.read_text()
    assert text == batch_report([SOFTMAX, tried, REFUSED], "saccade max-batch")
    for words in ("`linear\\|`", "saccade max-batch", "batch_size=85 => out of memory", "landmarks must be", "0.84"):
        assert words in text
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 3
