"""A server from its model to its end."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from blindspot.evaluation.answerers.local import LocalAnswerer
from blindspot.evaluation.serving.server import Server
from blindspot.model import load

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
        server.start(LocalAnswerer(opened, processor, batch=batch, device=device), name, TOGETHER * batch)
        print(f"Serving {name} at {server.address}; Ctrl-C stops it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopping when the batch under way is answered; Ctrl-C again stops at once", file=sys.stderr)
        try:
            server.stop()
        except KeyboardInterrupt:
            os._exit(130)  # a thread inside torch cannot be ended otherwise


@contextmanager
def _interrupted_by(number: int) -> Iterator[None]:
    """Treat a signal as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)
