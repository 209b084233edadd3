"""Isolation: a rival lives in a fresh process of its own, is asked over pipes, and cannot take the others with it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any
from uuid import uuid4

from saccade.errors import Failed
from saccade.measurement.allocator import Allocator
from saccade.measurement.machine import THREAD_SETTINGS

# How long an answer may take before a worker counts as hung.
PATIENCE_SECONDS = 900.0

_GRACE_SECONDS = 5.0


class WorkerFailed(Failed):
    """A worker gave no answer; `reason` is "out of memory", "killed", "timed out" or "failed"."""

    def __init__(self, reason: str, because: str) -> None:
        super().__init__(f"{reason}: {because}")
        self.reason = reason


class Worker:
    """An object that lives in a fresh process: `Worker("my.module:Thing", {"size": 3})`, then `ask("method", ...)`.

    The process starts at once and is not waited for, so that several start together; `ready` waits. It ends with
    `close`, with the `with` block, and with the process that started it, however that ends. `process` is its name,
    which no other process has.

    Args:
        serve: "module:Class" of what lives there; its options, arguments and answers are JSON.
        options: keyword arguments of the class.
        threads: processor threads of the process, set before anything runs in it.
        allocator: "default", or "keep" to keep freed memory (`allocator.keep_freed`).
        patience_seconds: how long an answer may take.
    """

    def __init__(
        self,
        serve: str,
        options: Mapping[str, Any],
        *,
        threads: int,
        allocator: Allocator = "default",
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.process = uuid4().hex[:12]
        self._patience_seconds = patience_seconds
        self._is_ready = False
        # A file, not a pipe: nobody reads it until something has gone wrong, and it never fills up.
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: a file of the user's that is called random.py or queue.py is not taken for Python's own.
            [sys.executable, "-P", "-m", "saccade.measurement.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **dict.fromkeys(THREAD_SETTINGS, str(threads))},
            # Ctrl-C reaches the parent alone, which then ends its workers.
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._tell({"serve": serve, "with": dict(options), "allocator": allocator})

    def ready(self) -> None:
        """Waits until the object has been made; whoever has waited does not wait again.

        Raises:
            WorkerFailed: it could not be.
        """
        if not self._is_ready:
            self._hear("getting ready")
            self._is_ready = True

    def ask(self, call: str, /, **arguments: Any) -> Any:
        """What the object's method returns.

        Raises:
            WorkerFailed: the method raised, or the process died or hung.
        """
        self._tell({"call": call, "with": arguments})
        return self._hear(call)

    def close(self) -> None:
        """Ends the process, by force where it does not end by itself."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        process.stdout.close()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _tell(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # Where it has died, whoever listens for the answer is told how.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def _hear(self, what: str) -> Any:
        try:
            line = self._answers.get(timeout=self._patience_seconds)
        except queue.Empty:
            self._process.kill()
            raise WorkerFailed("timed out", f"{what} took more than {self._patience_seconds:g} s") from None
        if not line.endswith(b"\n"):
            # Whoever asks again hears the same.
            self._answers.put(b"")
            raise self._death(what)
        answer = json.loads(line)
        if "failed" in answer:
            raise WorkerFailed(answer["failed"], answer["because"])
        return answer["answer"]

    def _death(self, what: str) -> WorkerFailed:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return WorkerFailed("killed", f"the process was killed while {what}; most often memory had run out")
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return WorkerFailed("failed", f"the process {how} while {what}: {self._last_words()}")

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
