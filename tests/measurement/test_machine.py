"""The facts of the machine are facts, and say nothing about who sits before it."""

import getpass
import json
import platform
import subprocess
from pathlib import Path

import torch

from saccade.measurement import machine

ROOT = Path(__file__).resolve().parents[2]


def test_facts_are_what_others_say():
    facts = machine.machine_facts()
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["python"] == platform.python_version()
    assert facts["cores"] >= 1
    assert facts["processor"]
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_no_user_host_or_path_is_told(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/home/somebody/lib/libjemalloc.so")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("HF_TOKEN", "secret")
    told = json.dumps([machine.machine_facts(), machine.settings()])
    assert "libjemalloc.so" in told
    assert "passive" in told
    words = [str(ROOT), str(Path.home()), platform.node(), "/home", "somebody", "secret"]
    if len(getpass.getuser()) > 4:
        words.append(getpass.getuser())
    assert not [word for word in words if word in told]


def test_the_number_of_threads_is_no_setting_from_outside(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert "OMP_NUM_THREADS" not in machine.settings()


def test_another_allocator_is_seen(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    assert not machine.allocator_changed()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert machine.allocator_changed()


def test_pressure_is_read_where_linux_tells_it(monkeypatch, tmp_path):
    told = tmp_path / "cpu"
    told.write_text("some avg10=12.50 avg60=1.00 avg300=0.50 total=1500000\nfull avg10=0.00 avg60=0 avg300=0 total=0\n")
    monkeypatch.setattr(machine, "_PRESSURE", told)
    assert machine.pressure_avg10() == 12.5
    assert machine.stalled_seconds() == 1.5


def test_pressure_is_unknown_elsewhere(monkeypatch, tmp_path):
    for text in (None, "", "nonsense"):
        told = tmp_path / "cpu"
        if text is not None:
            told.write_text(text)
        monkeypatch.setattr(machine, "_PRESSURE", told)
        assert machine.pressure_avg10() is None
        assert machine.stalled_seconds() is None


def test_the_commit_is_that_of_the_checkout():
    known = (ROOT / ".git").exists() and subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    told = machine.commit()
    assert told is None if not known else told.removesuffix("-dirty") == known


def test_changed_files_make_a_commit_dirty_but_records_do_not(monkeypatch, tmp_path):
    for name in ("src/saccade/measurement/machine.py", "results/records.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("before")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "src/saccade/measurement/machine.py"))
    (tmp_path / "results/records.jsonl").write_text("after")
    clean = machine.commit()
    assert len(clean) == 40
    (tmp_path / "src/saccade/measurement/machine.py").write_text("after")
    assert machine.commit() == f"{clean}-dirty"


def test_an_installed_package_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "lib" / "site-packages" / "saccade" / "m" / "machine.py"))
    assert machine.commit() is None


def test_a_command_that_is_missing_or_fails_says_nothing():
    assert machine._said("no-such-command-anywhere") is None
    assert machine._said("false") is None


def test_free_memory_is_what_linux_says_is_available(monkeypatch, tmp_path):
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       24000 kB\nMemFree:          100 kB\nMemAvailable:    2048 kB\n")
    monkeypatch.setattr(machine, "_MEMINFO", told)
    assert machine.free_bytes("cpu") == 2048 * 1024
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "nowhere")
    assert machine.free_bytes("cpu") == machine.memory_bytes()


def test_in_a_container_it_is_what_is_left_of_its_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_CONTAINER", tmp_path)
    for name, said in {"max": "5000\n", "current": "3000\n", "stat": "anon 1\ninactive_file 400\n"}.items():
        (tmp_path / f"memory.{name}").write_text(said)
    assert machine.free_bytes("cpu") == 2400
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_bytes("cpu") > 10**6
