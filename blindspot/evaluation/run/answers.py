"""Answers on disk: parts that grow while a run lasts, then one file in the order of the questions."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from blindspot.errors import UserError
from blindspot.evaluation.base import Prompt, Reply
from blindspot.evaluation.run.asking import letters, shown
from blindspot.files import fingerprint, parse_json, read_jsonl, write_jsonl, write_text
from blindspot.question import Question

ANSWERS, ERRORS = "answers.jsonl", "errors.jsonl"
_PARTS = "answers.part*.jsonl"
_CHECKSUM = "sha256"


class Part(AbstractContextManager["Part"]):
    """Where one process puts answers as they come, each line with its checksum. `mend` comes before it.

    Args:
        folder: of the benchmark in the run folder.
        rank: number of the process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / ("answers.part.jsonl" if rank == 0 else f"answers.part-{rank}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, reply: Reply) -> None:
        """Add an answer; it outlives the process from here on.

        Raises:
            UserError: if the disk is full.
        """
        row: dict[str, Any] = {"id": reply.id, "raw": reply.raw, "stopped": reply.stopped}
        if reply.likelihood is not None:
            row["likelihood"] = dict(reply.likelihood)
        try:
            self._file.write(json.dumps(row | {_CHECKSUM: fingerprint(row)}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:  # what a full disk did not take is tried once more
            raise self._unwritable(failure) from failure

    def _unwritable(self, error: OSError) -> UserError:
        reason = error.strerror or error
        return UserError(f"cannot write {self._path}: {reason}; free the disk, then the same command continues")


def mend(folder: Path) -> None:
    """Remove lines that are no answers any more, so that they are asked again; says so, but of one a kill cut off.

    Raises:
        UserError: if the folder cannot be read or written.
    """
    for path in folder.glob(_PARTS):
        lines = _lines(path)
        kept = b"".join(filter(_reply, lines))
        lost = [number for number, line in enumerate(lines, start=1) if _reply(line) is None and line.endswith(b"\n")]
        if len(kept) < sum(map(len, lines)):
            write_text(path, kept.decode())
        if lost:
            print(f"{path}:{lost[0]}: damaged, {len(lost)} lines in all; these are asked again", file=sys.stderr)


def read_parts(folder: Path) -> dict[str, Reply]:
    """What any process has answered so far, by question; a line that is cut off or damaged does not count."""
    replies: dict[str, Reply] = {}
    for path in sorted(folder.glob(_PARTS)):
        for reply in filter(None, map(_reply, _lines(path))):
            replies.setdefault(reply.id, reply)
    return replies


def finish(
    folder: Path, questions: Sequence[Question], prompt: Callable[[Question], Prompt], replies: Mapping[str, Reply]
) -> None:
    """Write the answers in the order of the questions and remove the parts.

    Args:
        folder: of the benchmark.
        questions: all of the run.
        prompt: what each was asked with.
        replies: one for each question.
    """
    write_jsonl(folder / ANSWERS, (_row(one, prompt(one), replies[one.id]) for one in questions))
    tidy(folder)


def tidy(folder: Path) -> None:
    """Remove what a benchmark without all its answers needs, and what a kill left of writing them."""
    for path in (folder / ERRORS, *folder.glob(_PARTS), *folder.glob(f".{ANSWERS}.*")):
        path.unlink(missing_ok=True)


def finished(folder: Path, questions: Sequence[Question]) -> bool:
    """Whether the answers to all of the questions are there.

    Raises:
        UserError: if the file holds answers to others.
    """
    path = folder / ANSWERS
    if not path.is_file():
        return False
    held = [row.get("id") if isinstance(row, dict) else None for row in read_jsonl(path)]
    if held != [question.id for question in questions]:
        raise UserError(
            f"{path} does not hold one answer to each of the {len(questions)} questions, as this run wrote it; "
            "remove it and run again, or choose another --out"
        )
    return True


def anything_finished(out: Path) -> bool:
    """Whether a run folder holds all answers to some benchmark."""
    return any(out.glob(f"*/{ANSWERS}"))


def write_errors(folder: Path, errors: Mapping[str, str]) -> None:
    """Keep why questions have no answer, for the user to read."""
    write_jsonl(folder / ERRORS, ({"id": name, "error": error} for name, error in errors.items()))


def _row(question: Question, prompt: Prompt, reply: Reply) -> dict[str, Any]:
    row: dict[str, Any] = {"id": question.id, "benchmark": question.benchmark, "kind": question.kind}
    if question.kind == "mcq":
        row["choices"] = dict(zip(letters(question), question.choices, strict=True))
    row |= {"answer": question.answer, "raw": reply.raw, "stopped": reply.stopped}
    if reply.likelihood is not None:
        row["likelihood"] = dict(reply.likelihood)
    return row | {"prompt": str(prompt), "groups": question.groups, "images": list(shown(question, prompt))}


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _reply(line: bytes) -> Reply | None:
    """The answer in a line that is as `Part` wrote it."""
    try:
        row = parse_json(line)
        checksum = row.pop(_CHECKSUM)
        if line.endswith(b"\n") and checksum == fingerprint(row):
            return Reply(row["id"], row["raw"], row["stopped"], row.get("likelihood"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None
