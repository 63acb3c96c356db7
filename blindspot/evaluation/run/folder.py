"""The run folder: what it holds the answers of, and answers as they come, which outlive any kill."""

import json
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from blindspot.errors import UserError, explained
from blindspot.evaluation.base import Reply
from blindspot.evaluation.run.questions import Asking, Condition
from blindspot.files import fingerprint, parse_json, read_jsonl, write_json, write_jsonl, write_text

RUN, ANSWERS, ERRORS = "run.json", "answers.jsonl", "errors.jsonl"
PLACE = "place"
"""Where a user's own questions lie."""
_PARTS = "answers.part*.jsonl"
_CHECKSUM = "sha256"
_PACKAGES = ("spatial-blindspot", "torch", "transformers", "tokenizers", "pillow")
_LAYOUT = ("runs", "models", "instruct", "model")
"""Folders on the way from a study to a model of its, which say nothing of either."""
_TOLD_ONLY = ("answerer.adapter", "answerer.pictures", "answerer.others")
"""What `run.json` tells and no run is known by: what a family was known by; what was measured before the first
question, and may come out otherwise the next time; which other servers there are. Nor by where a user's own questions
lie."""
TOKENS = "tokens"
"""Of a benchmark in `run.json`, once it is answered: how many were read and said, of the answers that tell."""


def default_folder(model: str, prompts: str, condition: Condition, limit: int | None) -> Path:
    """``runs/eval/`` and a name of its own for every model, prompt profile, condition and limit."""
    stem = re.sub(r"^https?://", "", model).rstrip("/").removesuffix(".jsonl")
    parts = stem.split("/")
    parts = [part for part in parts if part not in _LAYOUT] if len(parts) > 2 else parts
    words = [re.sub(r"[^\w.-]+", "-", "-".join(parts[-2:])).strip("-.") or "model"]
    words += [] if prompts == "auto" else [f"prompts-{prompts}"]
    told = {name.replace("_", "-"): value for name, value in asdict(condition).items() if value}
    words += [f"{name}-{value}" if value is not True else name for name, value in told.items()]
    words += [] if limit is None else [f"limit-{limit}"]
    return Path("runs") / "eval" / "-".join(words)


def claim(out: Path, identity: Mapping[str, Any], finished: bool) -> None:
    """Make the folder that of a run with this ``run.json``, or find that it is already; its benchmarks may become more.

    Once all of them are ``finished``, neither the libraries' versions nor the bytes of plug-ins matter.
    """
    held = read_run(out, "choose another --out")
    if held is None:
        write_json(out / RUN, identity)
        return
    theirs, ours = dict(held), dict(identity)
    there, our_benchmarks = theirs.pop("benchmarks", {}), ours.pop("benchmarks")
    their_benchmarks = {name: {k: v for k, v in one.items() if k != TOKENS} for name, one in there.items()}
    if finished:
        theirs |= {name: ours[name] for name in ("versions", "plugins") if name in ours}
    shared = [name for name in our_benchmarks if name in their_benchmarks]
    differing = leaves_differing(
        theirs | {name: their_benchmarks[name] for name in shared},
        ours | {name: our_benchmarks[name] for name in shared},
    )
    lines = [f"{name} is {short(a)} there, {short(b)} now" for name, a, b in differing
             if name not in _TOLD_ONLY and not name.endswith(f".{PLACE}")]  # fmt: skip
    if lines:
        raise UserError(f"{out} holds another run ({'; '.join(lines[:3])}); choose another --out")
    if len(shared) < len(our_benchmarks):
        more = {name: one for name, one in our_benchmarks.items() if name not in there}
        write_json(out / RUN, held | {"benchmarks": there | more})


def read_run(out: Path, otherwise: str) -> dict[str, Any] | None:
    """What ``run.json`` says, None where there is none; ``otherwise``: what to do but remove it, if it is no such."""
    path = out / RUN
    if not path.is_file():
        return None
    try:
        held = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or not isinstance(held.get("benchmarks", {}), dict):
            raise ValueError("not the run.json of an evaluation")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it or {otherwise}") from error
    return held


def leaves_differing(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: the path, and what is there; None where there is nothing."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in {**a, **b}:
            yield from leaves_differing(a.get(key), b.get(key), f"{name}.{key}".strip("."))
    elif a != b:
        yield name, a, b


def short(value: Any) -> str:
    """A JSON value in a few words."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]}..."


def versions() -> dict[str, str]:
    """Of what answers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package.removeprefix("spatial-")] = version(package)
        except PackageNotFoundError:
            found[package.removeprefix("spatial-")] = "not installed"
    return found


@contextmanager
def part(folder: Path, rank: int) -> Iterator[Callable[[Reply], None]]:
    """Yields what adds an answer to those of the process ``rank``, each line with its checksum. `mend` comes before."""
    path = folder / ("answers.part.jsonl" if rank == 0 else f"answers.part-{rank}.jsonl")
    writing = partial(explained, f"cannot write {path}", advice="free the disk, then the same command continues")
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")

    def write(reply: Reply) -> None:
        row: dict[str, Any] = {"id": reply.id, "raw": reply.raw, "stopped": reply.stopped}
        if reply.likelihood is not None:
            row["likelihood"] = dict(reply.likelihood)
        if reply.tokens is not None:
            row[TOKENS] = list(reply.tokens)
        with writing():
            file.write(json.dumps(row | {_CHECKSUM: fingerprint(row)}).encode() + b"\n")
            file.flush()

    try:
        yield write
    finally:
        with writing():  # what a full disk did not take is tried once more
            file.close()


def mend(folder: Path) -> None:
    """Remove lines that are no answers any more, so that they are asked again; says so, but of one a kill cut off."""
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


def answered(out: Path) -> dict[str, tuple[int, int]]:
    """How many questions of each benchmark are answered, and of how many; also while another process asks."""
    held = read_run(out, "look at another folder") or {}
    found: dict[str, tuple[int, int]] = {}
    for name, asked in held.get("benchmarks", {}).items():
        lines = sum(len(_lines(path)) for path in (out / name).glob(_PARTS))
        total = int(asked["questions"]) * (held.get("condition", {}).get("samples") or 1)
        found[name] = (total if (out / name / ANSWERS).is_file() else min(lines, total), total)
    return found


def _lines(path: Path) -> list[bytes]:
    with explained(f"cannot read {path}"):
        return path.read_bytes().splitlines(keepends=True)


def _reply(line: bytes) -> Reply | None:
    """The answer in a line that is as `part` wrote it."""
    try:
        row = parse_json(line)
        checksum = row.pop(_CHECKSUM)
        if line.endswith(b"\n") and checksum == fingerprint(row):
            tokens = (int(row[TOKENS][0]), int(row[TOKENS][1])) if TOKENS in row else None
            return Reply(row["id"], row["raw"], row["stopped"], row.get("likelihood"), tokens=tokens)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def finish(folder: Path, asking: Asking, errors: Mapping[str, str]) -> None:
    """Write the answers to all questions in their order and remove the parts; where some have none, write why."""
    if errors:
        write_jsonl(folder / ERRORS, ({"id": name, "error": error} for name, error in errors.items()))
        return
    replies = read_parts(folder)
    rows = []
    for question in asking.questions:
        reply, *further = (replies[name] for name in asking.names(question))
        said: dict[str, Any] = {} if reply.likelihood is None else {"likelihood": dict(reply.likelihood)}
        if further:
            said["further"] = [{"raw": one.raw, "stopped": one.stopped} for one in further]
        prompt = str(asking.prompt(question))
        rows.append(question.row(reply.raw, prompt, asking.shown(question), stopped=reply.stopped, **said))
    _tell_tokens(folder, [reply.tokens for reply in replies.values() if reply.tokens])
    write_jsonl(folder / ANSWERS, rows)
    tidy(folder)


def _tell_tokens(folder: Path, tokens: Sequence[tuple[int, int]]) -> None:
    """Write into ``run.json`` what a benchmark's answers cost in tokens."""
    held = read_run(folder.parent, "choose another --out")
    if tokens and held and folder.name in held.get("benchmarks", {}):
        read, said = map(sum, zip(*tokens, strict=True))
        held["benchmarks"][folder.name][TOKENS] = {"answers": len(tokens), "read": read, "said": said}
        write_json(folder.parent / RUN, held)


def tidy(folder: Path) -> None:
    """Remove what a benchmark without all its answers needs, and what a kill left of writing them."""
    for path in (folder / ERRORS, *folder.glob(_PARTS), *folder.glob(f".{ANSWERS}.*")):
        path.unlink(missing_ok=True)


def finished(folder: Path, asking: Asking) -> bool:
    """Whether the answers to all of its questions are there; answers to others are refused."""
    path = folder / ANSWERS
    if not path.is_file():
        return False
    held = [row.get("id") if isinstance(row, dict) else None for row in read_jsonl(path)]
    if held != [question.id for question in asking.questions]:
        raise UserError(
            f"{path} does not hold one answer to each of the {len(asking.questions)} questions, as this run wrote it; "
            "remove it and run again, or choose another --out"
        )
    return True
