"""The line that the first original logged for a step: seconds, seconds of them waiting for data, memory."""

from __future__ import annotations


def log_line(step_seconds: float, data_seconds: float, peak_bytes: int | None) -> str:
    """`time: 0.1458  data: 0.0001  max mem: 3893`: MB of 2^20 bytes as in facebookresearch/mae, "–" where unknown."""
    memory = "–" if peak_bytes is None else str(peak_bytes // 2**20)
    return f"time: {step_seconds:.4f}  data: {data_seconds:.4f}  max mem: {memory}"
