"""A worker answers, and whatever happens to it reaches nobody else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saccade.measurement.isolate import Worker, WorkerFailed

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def served_is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def worker(**settings) -> Worker:
    options = settings.pop("options", {})
    return Worker("served:Served", options, **{"threads": 1, **settings})


def gone(process: int) -> bool:
    """Whether a process has ended, waiting for it a while."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{process}/status").read_text().split("State:")[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_worker_answers_and_lives_on_after_a_failure():
    with worker() as one:
        one.ready()
        assert one.ask("sum", a=2, b=3) == 5
        with pytest.raises(WorkerFailed, match=r"failed: ValueError: a sentence$"):
            one.ask("wrong")
        assert one.ask("sum", a="a", b="b") == "ab"


@pytest.mark.parametrize("call", ["out_of_memory", "python_out_of_memory", "library_out_of_memory"])
def test_a_worker_without_memory_says_so(call):
    with worker() as one:
        one.ready()
        with pytest.raises(WorkerFailed) as failed:
            one.ask(call)
        assert failed.value.reason == "out of memory"


def test_whoever_has_waited_for_a_worker_does_not_wait_again():
    with worker() as one:
        one.ready()
        one.ready()
        assert one.ask("sum", a=2, b=3) == 5


def test_threads_are_the_workers_own():
    with worker(threads=2) as one:
        one.ready()
        assert one.ask("threads") == [2, "2"]


def test_what_cannot_be_made_is_told_when_it_should_be_ready():
    with worker(options={"fails": True}) as one, pytest.raises(WorkerFailed, match=r"ImportError.*unheard_of"):
        one.ready()


def test_a_class_that_is_not_there_is_told():
    with Worker("served:Missing", {}, threads=1) as one, pytest.raises(WorkerFailed, match=r"Missing"):
        one.ready()


def test_a_killed_worker_is_no_mystery_and_the_others_go_on():
    with worker() as first, worker() as second:
        first.ready()
        second.ready()
        with pytest.raises(WorkerFailed, match=r"memory") as failed:
            first.ask("killed")
        assert failed.value.reason == "killed"
        with pytest.raises(WorkerFailed, match=r"killed"):
            first.ask("sum", a=1, b=1)
        assert second.ask("sum", a=1, b=1) == 2


def test_a_worker_that_ends_leaves_its_last_words():
    with worker() as one:
        one.ready()
        with pytest.raises(WorkerFailed, match=r"failed: .*code 7 while ended: the last words"):
            one.ask("ended")


def test_a_worker_that_hangs_is_ended():
    with worker(patience_seconds=60.0) as one:
        one.ready()
        process = one.ask("process")
        one._patience_seconds = 0.2
        with pytest.raises(WorkerFailed) as failed:
            one.ask("hang")
        assert failed.value.reason == "timed out"
        assert gone(process)


def test_an_interruption_ends_the_workers():
    def interrupted():
        with worker() as one:
            one.ready()
            processes.append(one.ask("process"))
            raise KeyboardInterrupt

    processes = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gone(processes[0])


def test_control_c_does_not_reach_the_workers_by_itself():
    with worker() as one:
        one.ready()
        assert os.getpgid(one.ask("process")) != os.getpgid(0)


def test_a_file_of_the_users_is_not_taken_for_pythons_own(monkeypatch, tmp_path):
    (tmp_path / "queue.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    with worker() as one:
        one.ready()


def test_a_worker_does_not_survive_its_parent_in_the_middle_of_something():
    parent = """
import os, signal
from saccade.measurement.isolate import Worker
one = Worker("served:Served", {}, threads=1)
one.ready()
print(one.ask("process"), flush=True)
one._tell({"call": "hang", "with": {}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=False)
    assert gone(int(done.stdout))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize(("allocator", "kept"), [("default", False), ("keep", True)])
def test_memory_can_be_kept_by_the_process(allocator, kept):
    with worker(allocator=allocator) as one:
        one.ready()
        assert (one.ask("left_behind") > 100e6) is kept
