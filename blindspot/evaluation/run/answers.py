"""Answers on disk: parts that grow while a run lasts, then one file in the order of the questions."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from blindspot.errors import UserError
from blindspot.evaluation.base import Prompt, Reply
from blindspot.evaluation.run.asking import letters, shown
from blindspot.files import parse_json, read_jsonl, write_jsonl
from blindspot.question import Question

ANSWERS, ERRORS = "answers.jsonl", "errors.jsonl"
_PARTS = "answers.part*.jsonl"


class Part(AbstractContextManager["Part"]):
    """Where one process puts answers as they come. A line that a kill cut off is removed when it is opened.

    Args:
        folder: of the benchmark in the run folder.
        rank: number of the process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / ("answers.part.jsonl" if rank == 0 else f"answers.part-{rank}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab+")
            self._file.truncate(_whole_lines(self._path))
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
            self._file.write(json.dumps(row).encode() + b"\n")
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


def read_parts(folder: Path) -> dict[str, Reply]:
    """What any process has answered so far, by question; a line that a kill cut off does not count.

    Raises:
        UserError: if another line is damaged (it is named).
    """
    replies: dict[str, Reply] = {}
    for path in sorted(folder.glob(_PARTS)):
        with path.open("rb") as part:
            whole = part.read(_whole_lines(path))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = parse_json(line)
                replies.setdefault(row["id"], Reply(row["id"], row["raw"], row["stopped"], row.get("likelihood")))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}:{number}: not an answer of this run; remove that line") from error
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


def as_text(prompt: Prompt) -> str:
    """A prompt as one text."""
    return prompt.text if prompt.text is not None else "\n".join(filter(None, (prompt.system, *prompt.content)))


def _row(question: Question, prompt: Prompt, reply: Reply) -> dict[str, Any]:
    row: dict[str, Any] = {"id": question.id, "benchmark": question.benchmark, "kind": question.kind}
    if question.kind == "mcq":
        row["choices"] = dict(zip(letters(question), question.choices, strict=True))
    row |= {"answer": question.answer, "raw": reply.raw, "stopped": reply.stopped}
    if reply.likelihood is not None:
        row["likelihood"] = dict(reply.likelihood)
    return row | {"prompt": as_text(prompt), "groups": question.groups, "images": list(shown(question, prompt))}


def _whole_lines(path: Path) -> int:
    """How many bytes of a file are lines with their end."""
    end = path.stat().st_size
    with path.open("rb") as file:
        for start in range((end - 1) // 2**16 * 2**16, -1, -(2**16)):
            file.seek(start)
            place = file.read(2**16).rfind(b"\n")
            if place >= 0:
                return start + place + 1
    return 0
