"""Foretelling: the largest batches of many models without running one, by several processes at once."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
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
        taken_bytes: of these what no model can have.
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

    def baselines(self, subjects: Sequence[Subject]) -> dict[str, Baselines]:
        """What stays in a process on the CPU that has let go of each of these, by attention; before anything is told.

        Args:
            subjects: on the same terms, softmax first.

        Raises:
            WorkerFailed: a process fails on softmax.
        """
        softmax, *others = subjects
        count = len(self._workers)
        shares = [[softmax, *others[place::count]] for place in range(count)]
        with ThreadPoolExecutor(count) as pool:
            told = list(pool.map(self._stays, range(count), shares))
        return {name: stays for share in reversed(told) for name, stays in share.items()}

    def _stays(self, place: int, share: Sequence[Subject]) -> dict[str, Baselines]:
        """A share of them, by one of the processes; if it fails on one, all of them as softmax, by another."""
        worker = self._workers[place]
        try:
            worker.ready()
            told = worker.ask("baselines", subjects=[asdict(subject) for subject in share])
        except WorkerFailed:
            if self._over or len(share) == 1:
                raise
            self._workers[place] = self._start()
            (told,) = self._stays(place, share[:1]).values()
            return {subject.attention: told for subject in share}
        return {subject.attention: Baselines(*one) for subject, one in zip(share, told, strict=True)}

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
    within = told.pop("within")
    return Foretold(Largest(**told), within, question.taken_bytes)
