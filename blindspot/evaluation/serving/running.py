"""A server from its model to its end."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from blindspot.errors import UserError
from blindspot.evaluation.base import Answerer, Asked, Picture, Reply
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.evaluation.serving.server import Server
from blindspot.model import load
from blindspot.model.load import in_known_words

TOGETHER = 8
"""Batches of questions that are handed over at a time, to be sorted by length and by picture."""


def run(model: str, host: str, port: int, batch: int, name: str | None = None) -> None:
    """Serve a model until Ctrl-C or SIGTERM.

    Raises:
        UserError: if the port cannot be had or the model cannot be opened.
    """
    with Server(host, port) as server, _interrupted_by(signal.SIGTERM):  # before the model, which takes its time
        load.quiet()
        opened, processor = load.load(model)
        name = name or os.path.basename(os.path.abspath(model))  # of a link, its own name
        device = torch.accelerator.current_accelerator(check_available=True)
        answerer = KnownWords(LocalAnswerer(opened, processor, batch=batch, device=device), processor)
        server.start(answerer, name, TOGETHER * batch)
        print(f"Serving {name} at {server.address}; Ctrl-C stops it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopping when the batch under way is answered; Ctrl-C again stops at once", file=sys.stderr)
        try:
            server.stop()
        except KeyboardInterrupt:
            os._exit(130)  # a thread inside torch cannot be ended otherwise


class KnownWords:
    """Another answerer, whose model is asked in words that it knows, as `blindspot ask` does, or not at all.

    Args:
        answerer: the other.
        processor: of its model.
    """

    def __init__(self, answerer: Answerer, processor: Any) -> None:
        self._answerer, self._processor = answerer, processor
        self.identity = answerer.identity

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """See `Answerer`; a question with other words gets an error."""
        known: list[Asked] = []
        for one in asked:
            pieces = one.prompt.content
            try:
                content = tuple(
                    piece if isinstance(piece, Picture) else in_known_words(self._processor, piece) for piece in pieces
                )
            except UserError as error:
                yield Reply(one.id, "", error=str(error))
                continue
            known.append(replace(one, prompt=replace(one.prompt, content=content)))
        yield from self._answerer.answer(known)


@contextmanager
def _interrupted_by(number: int) -> Iterator[None]:
    """Treat a signal as Ctrl-C."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)
