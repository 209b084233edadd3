"""A lock between processes."""

import subprocess
import sys
import threading

import pytest

from saccade.data.lock import locked

fcntl = pytest.importorskip("fcntl")


def test_the_second_waits_for_the_first(tmp_path):
    order, inside = [], threading.Event()

    def second():
        inside.wait()
        with locked(tmp_path / "work"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(tmp_path / "work"):
        inside.set()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_process_that_was_killed_holds_nothing(tmp_path):
    code = f"""
import os, pathlib
from saccade.data.lock import locked
with locked(pathlib.Path({str(tmp_path / "work")!r})):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with locked(tmp_path / "work"), (tmp_path / "work.lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_nothing_can_be_written_nothing_is_held(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with locked(tmp_path / "file" / "work"):
        pass


def test_an_error_inside_comes_out_and_lets_go(tmp_path):
    with pytest.raises(OSError, match="inside"), locked(tmp_path / "work"):
        raise OSError("inside")
    with locked(tmp_path / "work"):
        pass
