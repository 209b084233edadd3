"""`max-batch` prints what fits, in a table or as JSON, every try as it goes, and writes it where asked."""

import pytest

from saccade.cli import run
from saccade.measurement.largest_batch import batch
from saccade.measurement.largest_batch.trying import Tried
from saccade.record import Record, read_record, read_records

COMMON = ["max-batch", "linear", "--model", "vit_nano_patch1_8"]


def record(attention, largest, error=None):
    values = {"budget_bytes": 10**9, "margin": 0.0, "verified": "here"}
    found = {"largest_batch": largest, "predicted_largest_batch": largest, "predicted_bytes_at": 9 * 10**8}
    found["baseline_bytes"] = 3 * 10**8
    found |= {"next_bytes": 10**9 + 1, "bytes_per_image": 10**6, "within": 0.02, "confirmed": None, "tried": []}
    return Record(
        kind="batch",
        attention=attention,
        attention_resolved=f"{attention}()",
        model="vit_nano_patch1_8",
        values={} if error else {**values, **found, **{f"inference_{name}": value for name, value in found.items()}},
        conditions={"device": "cpu", "for": None, "memory_asked": "1GB"},
        error=error,
    )


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked, and what it answers."""
    asked = []

    def max_batch(names, *, heard, finished, **options):
        asked.append((names, options))
        heard("linear", "training", Tried(batch_size=84, fits=True, reason="ok"))
        finished(max_batch.records)
        return max_batch.records

    max_batch.records = [record("softmax", 100), record("linear", 135), record("nystrom", 0, "refused: too many")]
    monkeypatch.setattr(batch, "max_batch", max_batch)
    asked.append(max_batch)
    return asked


def test_the_table_goes_to_stdout_and_tries_and_reasons_to_stderr(asked, capsys):
    assert run([*COMMON, "--memory", "1GB"]) == 0
    said = capsys.readouterr()
    for words in ("training batch", "135", "1.35", "refused"):
        assert words in said.out
    assert "linear, training: batch_size=84 => OK" in said.err
    assert "nystrom: refused: too many" in said.err


def test_the_options_are_passed_on(asked, capsys):
    flags = ["--for", "t4", "--what", "training", "--margin", "0.1", "--confirm", "--patience_seconds", "5"]
    flags += ["--img-size", "16", "24", "--set", "depth=3", "--dtype", "bf16", "--checkpointing", "--device", "cpu"]
    assert run([*COMMON, *flags, "--threads", "2"]) == 0
    names, options = asked[1]
    assert names == ("linear",)
    wanted = {"model": "vit_nano_patch1_8", "memory": None, "for_gpu": "t4", "training": True, "inference": False}
    wanted |= {"margin": 0.1, "confirm": True, "patience_seconds": 5.0, "img_size": (16, 24), "depth": 3}
    wanted |= {"dtype": "bf16", "amp_dtype": None, "checkpointing": True, "device": "cpu", "threads": 2}
    assert {key: value for key, value in options.items() if key != "progress"} == wanted


def test_json_is_a_record_a_line(asked, capsys):
    assert run([*COMMON, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [read_record(line).attention for line in lines] == ["softmax", "linear", "nystrom"]


def test_what_was_found_is_written_where_asked(asked, capsys, tmp_path):
    assert run([*COMMON, "-o", str(tmp_path / "out")]) == 0
    assert list(read_records(tmp_path / "out" / "records.jsonl")) == asked[0].records
    assert (tmp_path / "out" / "report.md").is_file()


def test_an_attention_without_an_answer_is_code_1_and_loses_nothing(asked, capsys):
    asked[0].records.append(record("mine", 0, "training: batch_size=85: failed: ValueError: a typo"))
    assert run([*COMMON]) == 1
    said = capsys.readouterr()
    assert "135" in said.out
    assert "ValueError: a typo" in said.err
    assert "without an answer: mine" in said.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--memory", "24"], "units are MB"),
        (["--for", "a100"], "did you mean a100-40gb or a100-80gb"),
        (["--memory", "1GB", "--for", "t4"], "give one of the two"),
        (["--margin", "1.5"], "from 0 to below 1"),
        (["--set", "depht=3"], "depth"),
        (["--what", "both", "--device", "tpu"], "this machine has"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(capsys, flags, says):
    assert run([*COMMON, *flags]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""
