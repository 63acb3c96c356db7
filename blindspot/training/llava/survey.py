"""What is read of rows and images for a check, by worker processes or in this one."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from blindspot.errors import UserError
from blindspot.model.conversation import RowError, Span, plain, v1
from blindspot.model.encoding import encode, token_ids
from blindspot.model.tokenizer import END
from blindspot.training.llava.index import LlavaRows
from blindspot.training.llava.pictures import Finding, inspect_picture

TEMPLATES = {"v1": v1, "plain": plain}
TOKENS_PER_WORD = 1.3
UNMEASURED = 0

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Measure:
    """How rows become tokens.

    Attributes:
        tokenizer: its folder; without one, a word counts as `TOKENS_PER_WORD` tokens.
        template: a name of `TEMPLATES`.
        max_length: the most tokens that are kept of a row.
        image_tokens: that an image takes.
    """

    tokenizer: Path | None
    template: str
    max_length: int
    image_tokens: int

    def __call__(self, rows: LlavaRows, number: int) -> tuple[int, str | None]:
        """Tokens of a row before it is cut, `UNMEASURED` if that cannot be said, and why it cannot be trained on."""
        tokens = UNMEASURED
        try:
            messages = rows[number].messages
            if self.tokenizer is None:
                spans = self._spans(messages, END)
                return self._estimated(spans), None
            tokenizer = _tokenizer(self.tokenizer)
            spans = self._spans(messages, tokenizer.eos_token)
            pictures = [self.image_tokens] * sum(span.picture for span in spans)
            ids, supervised = token_ids(spans, tokenizer, pictures)
            tokens = len(ids)
            if tokens > self.max_length or not any(supervised):
                encode(spans, tokenizer, pictures, self.max_length)  # for what it refuses
        except RowError as error:
            return tokens, str(error)
        return tokens, None

    def _spans(self, messages: Any, end: str) -> list[Span]:
        return v1(messages, end=end) if self.template == "v1" else plain(messages)

    def _estimated(self, spans: Sequence[Span]) -> int:
        words = sum(len(span.text.split()) for span in spans if not span.picture)
        return round(words * TOKENS_PER_WORD) + self.image_tokens * sum(span.picture for span in spans)


class Measured(NamedTuple):
    """Of consecutive rows: their tokens, and row number and reason of those that cannot be trained on."""

    tokens_r: np.ndarray
    refused: list[tuple[int, str]]


def measure_rows(measure: Measure, rows: LlavaRows, part: range) -> Measured:
    """Measure the rows of ``part``."""
    found = [measure(rows, number) for number in part]
    refused = [(number, why) for number, (_, why) in zip(part, found, strict=True) if why is not None]
    return Measured(np.array([tokens for tokens, _ in found], np.int32), refused)


def inspect_pictures(root: Path, names: Sequence[str]) -> list[Finding | None]:
    """What is wrong with each of the images ``names``."""
    return [inspect_picture(root, name) for name in names]


def spread(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, report: Callable[[int], None]
) -> Iterator[Result]:
    """The results of ``work`` for each job, in order, by ``workers`` processes; by this one if it is 1.

    Args:
        work: what to do. With more than one worker it must be importable, and so must the main module.
        jobs: what to do it with.
        workers: how many processes.
        report: told how many jobs are done.

    Raises:
        UserError: if a worker dies.
    """
    if workers == 1:
        for number, job in enumerate(jobs, start=1):
            yield work(job)
            report(number)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of tokenizers' and torch's threads
    pool = ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_the_parent)
    try:
        for number, result in enumerate(pool.map(work, jobs), start=1):
            yield result
            report(number)
    except BrokenProcessPool as error:
        raise UserError("a worker process died, perhaps for want of memory; use fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@cache
def _tokenizer(folder: Path) -> Any:
    from blindspot.model.formats.llava_original import read_tokenizer  # takes torch along

    try:
        return read_tokenizer(folder)
    except UserError as error:
        raise UserError(f"cannot use the tokenizer in {folder}: {error}") from error
