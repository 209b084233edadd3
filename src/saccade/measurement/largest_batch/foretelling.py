"""Foretelling: the largest batches of many models without running one, by several processes at once."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from saccade.measurement.isolate import PATIENCE_SECONDS, Worker, WorkerFailed
from saccade.measurement.largest_batch.largest import Largest
from saccade.measurement.memory.baseline import Baselines
from saccade.measurement.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        subject: a model on its terms; its batch size does not matter.
        training: or inference.
        allowed_bytes: for the whole process; on a GPU for the whole card.
        taken_bytes: of these what no model can have; on a CPU with softmax.
    """

    subject: Subject
    training: bool
    allowed_bytes: int
    taken_bytes: int


@dataclass(frozen=True)
class Foretold:
    """What is said of one model.

    Attributes:
        found: the largest batch; None where nothing can be said.
        within: the share by which its bytes may be off.
        taken_bytes: what no model can have, of what is allowed.
        refused: the sentence by which the model is refused at this size.
        cannot: why nothing can be said of a model that is not refused.
    """

    found: Largest | None = None
    within: float | None = None
    taken_bytes: int | None = None
    refused: str | None = None
    cannot: str | None = None


class Foretellers:
    """Processes that start at once, so that they get ready while something else is done.

    Example:
        with Foretellers(2) as foretellers:
            told = foretellers.tell([question, another])

    Args:
        count: of processes.
        patience_seconds: how long an answer may take.
    """

    def __init__(self, count: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self._over = False
        self._closing = ExitStack()
        self._workers = [self._start() for _ in range(count)]

    def baselines(self, subject: Subject) -> Baselines:
        """What stays in a process on the CPU that has let go of a model on these terms.

        Raises:
            WorkerFailed: there is no process.
        """
        first = self._workers[0]
        first.ready()
        return Baselines(*first.ask("baselines", subject=asdict(subject)))

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
                return _told(worker, question)
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


def _told(worker: Worker, question: Question) -> Foretold:
    told = worker.ask("foretell", **asdict(question))
    if "batch_size" not in told:
        return Foretold(**told)
    within, taken_bytes = told.pop("within"), told.pop("taken_bytes")
    return Foretold(Largest(**told), within, taken_bytes)
