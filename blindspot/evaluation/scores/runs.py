"""A run of `blindspot evaluate`, or a bare file of answers, read and scored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import read_row
from blindspot.benchmarks.scoring import HARNESS, profile
from blindspot.errors import UserError
from blindspot.evaluation.scores.answers import Answers, read_answers
from blindspot.files import parse_json, read_jsonl


@dataclass(frozen=True)
class Run:
    """What was answered, and by whom.

    Attributes:
        path: the run folder or the file.
        info: what ``run.json`` says; empty for a bare file.
        answers: by benchmark, in the registry's order, those that it does not know last.
        notes: what is missing and why, one line each.
    """

    path: Path
    info: Mapping[str, Any]
    answers: Mapping[str, Answers]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """A short name: of the folder, or of the file without its ending."""
        return self.path.resolve().name.removesuffix(".jsonl")

    def of(self, benchmark: str) -> Mapping[str, Any]:
        """What ``run.json`` says of a benchmark."""
        return self.info.get("benchmarks", {}).get(benchmark, {})


def load_run(path: Path, profiles: Sequence[str], thinking: str = HARNESS) -> Run:
    """Read the answers of a run folder, or of one file, and score them.

    Args:
        path: the folder or the file.
        profiles: the main one, without which a benchmark is left out, then others.
        thinking: how thoughts are treated.

    Raises:
        UserError: if there are no answers that the main profile can score, a file is damaged, or a profile is unknown.
    """
    info: dict[str, Any] = {}
    notes: list[str] = []
    files = _files(path)
    if path.is_dir():
        info = _info(path / "run.json")
        unfinished = set(info.get("benchmarks", {})) - {file.parent.name for file in files}
        notes = [f"{name}: not all questions are answered yet; left out" for name in sorted(unfinished)]
        if not files:
            yet = " yet: the evaluation is not finished" if unfinished else ""
            raise UserError(
                f"{path} holds no */answers.jsonl{yet}; give a run folder of blindspot evaluate, or such a file"
            )
    answers = read_answers(files, [profile(name, thinking) for name in profiles])
    if not answers:
        raise UserError(f"{path}: no answers in it")
    unscored = {name: held.unscored[profiles[0]] for name, held in answers.items() if profiles[0] in held.unscored}
    if len(unscored) == len(answers):
        raise UserError(next(iter(unscored.values())))
    notes += [f"{name}: left out, as {why}" for name, why in unscored.items()]
    scored = {name: answers[name] for name in (*BENCHMARKS, *answers) if name in answers and name not in unscored}
    return Run(path, info, scored, tuple(notes))


def scored_rows(path: Path, profiles: Sequence[str], thinking: str = HARNESS) -> Iterator[dict[str, dict[str, Any]]]:
    """``extracted`` and ``score`` of each row by profile, in the order of the files; None where it has none for it."""
    rules = [profile(name, thinking) for name in profiles]
    for file in _files(path):
        for number, row in enumerate(read_jsonl(file), start=1):
            item = read_row(row, f"{file}:{number}")
            found = {each.name: None if each.why_not(item) else each.judge(item) for each in rules}
            yield {
                name: {"extracted": scored and scored.extracted, "score": scored and scored.score}
                for name, scored in found.items()
            }


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*/answers.jsonl")) if path.is_dir() else [path]


def _info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        info = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it to score the answers without it") from error
    if not isinstance(info, dict) or not isinstance(info.get("benchmarks", {}), dict):
        raise UserError(f"{path} is not the run.json of an evaluation; remove it to score the answers without it")
    return info
