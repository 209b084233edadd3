"""`reproduce` rebuilds an original, measures it, shows it beside ours, and keeps what it has measured."""

import json
import re
from types import SimpleNamespace

import pytest

from saccade.attention import contract
from saccade.cli import run
from saccade.originals import ORIGINALS, cifar_linear, mae_blocks, mae_lambda, reproduction, xformers_vit
from saccade.originals.vit_einops import VitEinops
from saccade.record import Record, read_records


@pytest.fixture(autouse=True)
def few_clauses(monkeypatch):
    """All clauses are asked in tests/originals; torch.compile cannot look through the tests' shape checks."""

    def few(attention, clauses):
        return contract.check(attention, ["shape_and_dtype", "equals_reference", "softmax_at_its_limit"])

    monkeypatch.setattr(reproduction, "check", few)


@pytest.fixture
def reproduced(capsys, tmp_path):
    """What it prints as JSON by kind, and the folder it writes."""

    def reproduced(*arguments):
        assert run(["reproduce", *arguments, "--threads", "1", "--json", "-o", str(tmp_path / "out")]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {
            kind: [line for line in lines if line["kind"] == kind] for kind in ("row", "scaled", "fault", "finding")
        }

    return reproduced


def rows(told) -> dict[str, dict[str, str]]:
    return {row["what"]: row for row in told["row"]}


def kept(folder) -> list[str]:
    """Kinds of the records, and whether all else is there."""
    assert {path.name for path in folder.iterdir()} >= {"records.jsonl", "command", "report.md", "claims"}
    assert len(list(read_records(folder / "claims" / "records.jsonl"))) > 0
    return [record.kind for record in read_records(folder / "records.jsonl")]


def foretold(*given, **terms) -> SimpleNamespace:
    """Predictions of models in full size take a while, and have their own tests."""
    return SimpleNamespace(peak_bytes=7 * 10**9, within=0.02)


def searched(attentions, *, model, inference, confirm=False, **terms) -> list[Record]:
    """So has the search for the largest batch."""
    tried = [{"batch_size": 40, "fits": True, "reason": "ok", "optimiser_steps": 2}] if confirm else []
    values = {"largest_batch": 40, "verified": "unverified", "tried": tried}
    return [
        Record(kind="batch", attention=one, attention_resolved=one, model=model, values=values) for one in attentions
    ]


def test_the_first_small(reproduced, tmp_path, monkeypatch):
    monkeypatch.setattr(mae_blocks, "LOGGED", mae_blocks.LOGGED[:1])
    monkeypatch.setattr(mae_blocks, "predicted_step", foretold)
    told = reproduced("mae-blocks", "--scale", "24", "--batch-size", "1", "--repeats", "1")
    table = rows(told)
    assert table["seconds a step, plain blocks"]["original"] == "0.11"
    assert float(table["seconds a step, plain blocks"]["ours"]) > 0
    assert table["loss of the first step, plain blocks"]["original"] == "1.5708"
    assert table["peak, plain blocks, full size"]["original"] == "6,350 MB"
    assert any("1 of 24 encoder blocks and 1 of 8 decoder blocks" in line["sentence"] for line in told["scaled"])
    assert kept(tmp_path / "out") == ["memory", "seconds"]
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\nplain blocks +time: \d+\.\d{4}  data: \d+\.\d{4}  max mem: \d+  loss: \d\.\d{4}\n", report)


def test_the_second_small(reproduced, tmp_path, monkeypatch):
    monkeypatch.setattr(mae_lambda, "predicted_step", foretold)
    monkeypatch.setattr(mae_lambda, "max_batch", searched)
    monkeypatch.setattr(mae_lambda, "TIMED", (mae_lambda.EXPLICIT, "lambda"))
    told = reproduced("001", "--scale", "12", "--batch-size", "1", "--repeats", "1")
    table = rows(told)
    assert table["largest batch, lambda"]["original"] == "49"
    assert table["memory, patch 8, batch 10, lambda"]["ours"] == "7.0 GB, predicted"
    assert table['a step of softmax(kernel="explicit") over lambda\'s']["original"].startswith("1.60 x")
    assert kept(tmp_path / "out") == ["batch"] * 6 + ["seconds"] * 2
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "batch_size=32 => OK\nbatch_size=48 => out of memory\n" in report
    assert "\n=> batch_size = 40\n" in report


def test_the_third_small(reproduced, tmp_path, monkeypatch):
    monkeypatch.setattr(xformers_vit, "PROFILED", xformers_vit.PROFILED[:1])
    told = reproduced("xformers-vit", "--repeats", "1")
    assert rows(told)["forward, ViT"]["original"] == "3.87 ms"
    assert kept(tmp_path / "out") == ["seconds", "memory"]
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    form = (
        r"\nViT Forward only\nprofile\n  .+\n  1 measurement.+\nMemory used: [\d.]+ MB\nViT average inference time : "
    )
    assert re.search(form, report)


def test_the_fourth_in_full(reproduced, tmp_path):
    told = reproduced("vit-einops")
    table = rows(told)
    assert table["parameters, by module"]["comparable"] == "yes: equal"
    assert [fault["found_by"] for fault in told["fault"]] == [
        "contract: equals_reference, softmax_at_its_limit",
        "contract: shape_and_dtype",
    ]
    assert kept(tmp_path / "out") == []


def test_the_fifth_small(reproduced, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_linear, "PUBLISHED", cifar_linear.PUBLISHED[:1])
    told = reproduced("004", "--images", "4", "--batch-size", "4", "--data", "digits")
    assert rows(told)["top-1, VIT"]["original"] == "75.83 % after 40 epochs"
    assert kept(tmp_path / "out") == ["accuracy"]
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert report.count("+ Training Time: ") == 1


def test_what_is_not_named_is_a_list(capsys):
    assert run(["reproduce"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[one.id, one.name] for one in ORIGINALS.values()]


def test_what_was_measured_before_an_interruption_is_kept(capsys, tmp_path, monkeypatch):
    whole = VitEinops.measured

    def interrupted(self, asked, progress):
        yield from whole(self, asked, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(VitEinops, "measured", interrupted)
    assert run(["reproduce", "003", "--output", str(tmp_path / "out")]) == 130
    assert "86,415,592" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["005"], "there is no original '005'"),
        (["003", "--epochs", "2"], "--epochs means nothing for 003"),
        (["000", "--repeats", "0"], "--repeats 0: must be at least 1"),
        (["004", "--data", "nowhere"], "nowhere: there is no such data"),
        (["003", "--device", "tpu"], "tpu"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(capsys, arguments, says):
    assert run(["reproduce", *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err


def test_a_folder_that_cannot_be_written_is_refused_first(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run(["reproduce", "003", "--output", str(tmp_path / "file" / "out")]) == 2
    said = capsys.readouterr()
    assert "is a file; give a folder" in said.err
    assert said.out == ""
