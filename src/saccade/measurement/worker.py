"""The other side of isolation: `python -m saccade.measurement.worker` makes one object and calls it as stdin says."""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from saccade.measurement.allocator import keep_freed

# How torch's own allocator on a CPU says it, and the last one how its libraries do (oneDNN, in a convolution); only the
# text tells such a RuntimeError from others.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


def main() -> NoReturn:
    """Answers each line of JSON on stdin with one on stdout, until stdin ends."""
    answers = _private_stdout()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    served: Any = None
    while True:
        request = json.loads(requests.get())
        try:
            if "serve" in request:
                served, answer = _made(request), None
            else:
                answer = getattr(served, request["call"])(**request["with"])
            line = json.dumps({"answer": answer})
        # Whatever a user's class or torch raises is an answer; the process lives on.
        except Exception as error:
            traceback.print_exc()
            line = json.dumps(failure(error))
        answers.write(line + "\n")
        answers.flush()


def failure(error: Exception) -> dict[str, str]:
    """The error in words: whether memory had run out, and the first line of what it says."""
    first = str(error).strip().splitlines()[:1]
    because = ": ".join([type(error).__name__, *first])
    out = isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )
    return {"failed": "out of memory" if out else "failed", "because": because}


def _made(request: Mapping[str, Any]) -> Any:
    # Before anything large is imported: it should find the allocator as it will be.
    if request["allocator"] == "keep":
        keep_freed()
    module, _, name = request["serve"].partition(":")
    return getattr(importlib.import_module(module), name)(**request["with"])


def _private_stdout() -> IO[str]:
    """The pipe to the parent; what anybody prints goes to stderr from now on."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def _read(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    # Nobody is left to answer, be it in the middle of something.
    os._exit(0)


if __name__ == "__main__":
    main()
