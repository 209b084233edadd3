"""What the tests of isolation put into a worker."""

import os
import signal
import sys
import time
from pathlib import Path


class Served:
    def __init__(self, *, fails: bool = False):
        if fails:
            raise ImportError("No module named 'unheard_of'")

    def sum(self, a, b):
        print("anything that prints must not end up among the answers")
        return a + b

    def threads(self):
        import torch

        return [torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]]

    def process(self):
        return os.getpid()

    def out_of_memory(self):
        import torch

        torch.empty(2**60, dtype=torch.uint8)

    def python_out_of_memory(self):
        raise MemoryError

    def library_out_of_memory(self):
        raise RuntimeError("std::bad_alloc")

    def wrong(self):
        raise ValueError("a sentence\nand more")

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def ended(self):
        print("the last words", file=sys.stderr)
        sys.stderr.flush()
        os._exit(7)

    def left_behind(self):
        """Bytes that stay in the process when 200 MB have been written and freed."""
        before = resident_bytes()
        block = bytearray(b"1") * 200_000_000
        del block
        return resident_bytes() - before

    def hang(self):
        time.sleep(600)


def resident_bytes():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])
