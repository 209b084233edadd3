"""Records: one line each, whole or not at all, and nothing that is not one is taken for one."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from saccade.record import Record, read_record, read_records, write_new, write_records, write_whole


def a_record(**changes):
    return Record(
        **{"kind": "memory", "attention": "linear", "attention_resolved": "linear()", "model": "m", **changes}
    )


def test_a_record_is_one_line_that_reads_back():
    record = a_record(values={"peak_bytes": 3}, attention='softmax(kernel="sdpa")', error="a\nb")
    assert "\n" not in record.line()
    assert read_record(record.line()) == record


def test_the_mechanism_stands_under_attention():
    assert json.loads(a_record().line())["attention"] == "linear"


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"schema": 99, "kind": "memory", "attention": "x"}', "no"])
def test_what_is_no_record_is_refused(line):
    with pytest.raises(ValueError):
        read_record(line)


def test_an_unknown_kind_or_field_is_refused():
    with pytest.raises(ValueError, match="kinds are"):
        a_record(kind="weather")
    with pytest.raises(ValueError, match="unknown fields"):
        read_record(json.dumps({**json.loads(a_record().line()), "surprise": 1}))


def test_a_number_that_is_not_finite_is_no_value():
    with pytest.raises(ValueError):
        a_record(values={"peak_bytes": float("nan")}).line()


def test_a_bad_line_is_named_by_its_number(tmp_path):
    (tmp_path / "records.jsonl").write_text(a_record().line() + "\nbroken\n")
    with pytest.raises(ValueError, match=r"records\.jsonl:2"):
        list(read_records(tmp_path / "records.jsonl"))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [a_record()])
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert len(list(read_records(path))) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.fixture(params=["hard links", "no hard links"])
def links(request, monkeypatch):
    """Both kinds of file systems."""
    if request.param == "no hard links":

        def refused(*paths):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)


@pytest.mark.usefixtures("links")
def test_a_new_file_is_written_once(tmp_path):
    write_new(tmp_path / "new", "first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "new", "second")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("new", "first")]


@pytest.mark.usefixtures("links")
def test_a_new_file_that_cannot_be_written_is_not_there(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_new(tmp_path / "new", "begins well \ud800")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["os.fdopen", "os.fsync", "os.chmod", "os.link"])
def test_a_kill_at_any_moment_leaves_no_half_of_a_new_file(tmp_path, call):
    program = (
        "import os, pathlib, saccade.record as record\n"
        f"{call} = lambda *given, **named: os.kill(os.getpid(), 9)\n"
        f"record.write_new(pathlib.Path({str(tmp_path / 'new')!r}), 'text')"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "new").exists()
