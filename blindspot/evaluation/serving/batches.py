"""One model, asked by many threads: what waits is answered together."""

import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from blindspot.evaluation.base import Answerer, Asked, Reply

GATHERING = 0.01
"""Seconds that an idle answerer waits for the questions that come with the first one."""


class _Waiting(NamedTuple):
    asked: Asked
    reply: Future[Reply]


class Batcher:
    """Hands questions to an answerer, all that are waiting at a time.

    While it works, the next batch gathers. A batch that fails is repeated question by question, so that a request
    harms no other.

    Args:
        answerer: used by one thread only.
        most: questions of a batch.
    """

    def __init__(self, answerer: Answerer, most: int) -> None:
        self._answerer = answerer
        self._most = most
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._work, name="blindspot-model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> Future[Reply]:
        """The reply to come; cancelled if the model stops before its turn."""
        waiting = _Waiting(asked, Future())
        self._queue.put(waiting)
        if self._closed:
            waiting.reply.cancel()
        return waiting.reply

    def close(self) -> None:
        """Finish the batch under way and cancel the questions behind it."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._closed:
            if batch := [one for one in self._gather() if one.reply.set_running_or_notify_cancel()]:
                self._answer(batch)
        while not self._queue.empty():
            if waiting := self._queue.get():
                waiting.reply.cancel()

    def _gather(self) -> list[_Waiting]:
        """What waits, at least for one; nothing when closed."""
        first = self._queue.get()
        batch = [] if first is None else [first]
        until = time.monotonic() + GATHERING
        while batch and len(batch) < self._most:
            try:
                further = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if further is None:
                break
            batch.append(further)
        if self._closed:
            for waiting in batch:
                waiting.reply.cancel()
        return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        left = {waiting.asked.id: waiting for waiting in batch}
        error: Exception | None = None
        try:
            for reply in self._answerer.answer([waiting.asked for waiting in batch]):
                left.pop(reply.id).reply.set_result(reply)
        except Exception as raised:
            error = raised
        for waiting in left.values():
            if len(batch) == 1:
                waiting.reply.set_exception(error or RuntimeError("the model gave no reply"))
            else:
                self._answer([waiting])
