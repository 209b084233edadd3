"""Foretelling: the largest batches of many models without running one, by several processes at once."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from saccade.measurement.isolate import Worker, WorkerFailed
from saccade.measurement.largest_batch.largest import Largest
from saccade.measurement.subject import Subject

Question = tuple[Subject, bool, int]
"""A model, whether it is to be trained, and the bytes that it may have."""


@dataclass(frozen=True)
class Foretold:
    """What is said of one model.

    Attributes:
        found: the largest batch; None where nothing can be said.
        within: the share by which its bytes may be off.
        refused: the sentence by which the model is refused at this size.
        cannot: why nothing can be said of a model that is not refused.
    """

    found: Largest | None = None
    within: float | None = None
    refused: str | None = None
    cannot: str | None = None


class Foretellers:
    """Processes that start at once, so that they get ready while something else is done.

    Example:
        with Foretellers(2) as foretellers:
            told = foretellers.tell([(subject, True, 10**9), (subject, False, 10**9)])

    Args:
        count: of processes.
        patience_seconds: how long an answer may take.
    """

    def __init__(self, count: int, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self._over = False
        self._closing = ExitStack()
        self._workers = [self._start() for _ in range(count)]

    def tell(self, asked: Iterable[Question]) -> list[Foretold]:
        """An answer to each question; a process that fails is replaced.

        Args:
            asked: the next one goes to the next free process.
        """
        free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            worker.ready()
            free.put(worker)

        def one(question: Question) -> Foretold:
            worker = free.get()
            try:
                return _told(worker, *question)
            except WorkerFailed as failed:
                if self._over:
                    raise
                worker = self._start()
                worker.ready()
                return Foretold(cannot=str(failed))
            finally:
                free.put(worker)

        pool = ThreadPoolExecutor(len(self._workers))
        try:
            return list(pool.map(one, asked))
        finally:
            # Whoever is interrupted does not wait for answers that nobody wants.
            pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> Worker:
        worker = Worker(
            "saccade.measurement.largest_batch.batch_worker:Foreteller",
            {},
            threads=1,
            patience_seconds=self.patience_seconds,
        )
        return self._closing.enter_context(worker)

    def __enter__(self) -> Foretellers:
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._closing.close()


def _told(worker: Worker, subject: Subject, training: bool, model_bytes: int) -> Foretold:
    told = worker.ask("foretell", subject=asdict(subject), training=training, model_bytes=model_bytes)
    if "batch_size" not in told:
        return Foretold(**told)
    within = told.pop("within")
    return Foretold(Largest(**told), within)
