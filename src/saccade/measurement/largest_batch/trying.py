"""Trying: the largest batch as it is, each try in a fresh process, whose peak says whether it kept the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.largest_batch.largest import settle
from saccade.measurement.subject import Subject

# Memory had run out: for torch, or for the kernel, which kills. Whatever else goes wrong says nothing about the batch.
_DOES_NOT_FIT = ("out of memory", "killed")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A batch that was tried.

    Attributes:
        batch_size: of it.
        fits: None where that is not known.
        reason: "ok", "out of memory", "killed", "failed" or "timed out".
        optimiser_steps: taken; 0 for inference, and where it did not fit.
        peak_bytes: of the whole process; None where it did not get there.
        baseline_bytes: of the same process before the batch.
        because: what it said where it did not get there.
    """

    batch_size: int
    fits: bool | None
    reason: str
    optimiser_steps: int = 0
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    because: str | None = None


@dataclass(frozen=True)
class Trials:
    """What trying has found.

    Attributes:
        batch_size: that fits whenever it is tried, twice at least, while one image more does not, or only now and then;
            None where that could not be found out.
        next_fits: "never", "at times", or None where no batch was found; one image more was tried twice at least.
        tried: all tries, in their order.
        error: what ended the search: a crash that had nothing to do with memory, or a try that hung.
    """

    batch_size: int | None
    next_fits: str | None
    tried: tuple[Tried, ...]
    error: str | None = None


class _Unsettled(Exception):  # noqa: N818
    """A try that says nothing about memory."""


def find_by_trying(attempt: Callable[[int], Tried], near: int) -> Trials:
    """Tries batches from where the answer is expected, until it is found; then both sides of it once more.

    Args:
        attempt: tries a batch, each time in a new process.
        near: what is expected.
    """
    tried: list[Tried] = []
    verdicts: dict[int, bool] = {}

    def once(batch: int) -> bool:
        tried.append(attempt(batch))
        fits = tried[-1].fits
        if fits is None:
            raise _Unsettled
        return fits

    def fits(batch: int) -> bool:
        if batch not in verdicts:
            verdicts[batch] = once(batch)
        return verdicts[batch]

    try:
        while (batch := settle(fits, near)) and not once(batch):
            # What fits now and then does not fit.
            verdicts[batch], near = False, batch
        once(batch + 1)
        more = [one.fits for one in tried if one.batch_size == batch + 1]
        return Trials(batch, "at times" if any(more) else "never", tuple(tried))
    except _Unsettled:
        return Trials(None, None, tuple(tried), f"batch_size={tried[-1].batch_size}: {tried[-1].because}")


def attempts(
    subject: Subject,
    training: bool,
    budget_bytes: int,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    heard: Callable[[Tried], None] = lambda tried: None,
) -> Callable[[int], Tried]:
    """What tries a batch of a subject.

    Args:
        subject: its batch size does not matter.
        training: or inference.
        budget_bytes: for the whole process.
        patience_seconds: how long a try may take.
        heard: is told of each.
    """

    def attempt(batch: int) -> Tried:
        plain = asdict(replace(subject, batch_size=batch))
        with Worker(
            "saccade.measurement.largest_batch.batch_worker:Trial",
            {"subject": plain, "training": training, "budget_bytes": budget_bytes},
            threads=subject.threads,
            patience_seconds=patience_seconds,
        ) as worker:
            tried = _tried(worker, batch, budget_bytes)
        heard(tried)
        return tried

    return attempt


def _tried(worker: Worker, batch: int, budget_bytes: int) -> Tried:
    try:
        worker.ready()
        seen = worker.ask("run")
    except WorkerFailed as failed:
        fits = False if failed.reason in _DOES_NOT_FIT else None
        return Tried(batch_size=batch, fits=fits, reason=failed.reason, because=str(failed))
    # A limit holds back what is asked for, written or not; not the code that is read in, which is in memory as well.
    fits = seen["peak_bytes"] <= budget_bytes
    return Tried(batch_size=batch, fits=fits, reason="ok" if fits else "out of memory", **seen)
