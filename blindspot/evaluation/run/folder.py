"""The run folder: what it holds the answers of, and the refusal of anything else in it."""

import json
import platform
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.evaluation.run.conditions import Condition
from blindspot.files import parse_json, write_json

RUN = "run.json"

_PACKAGES = {"blindspot": "spatial-blindspot"} | {
    name: name for name in ("torch", "transformers", "tokenizers", "pillow")
}
_MOST_NAMED = 3
_LAYOUT = ("runs", "models", "instruct", "model")
"""Folders on the way from a study to a model of its, which say nothing of either."""
_TOLD_ONLY = ("answerer.adapter", "answerer.pictures")
"""What `run.json` tells and no run is known by: what a family was known by; what was measured before the first
question, and may come out otherwise the next time."""


def claim(out: Path, identity: Mapping[str, Any], finished: bool) -> None:
    """Make the folder that of a run, or find that it is already; its benchmarks may become more.

    Args:
        out: the run folder.
        identity: of the run, as `run.json` holds it; ``benchmarks`` by name.
        finished: every benchmark has all its answers, so that the libraries' versions no longer matter.

    Raises:
        UserError: if it holds another run; says what differs.
    """
    path = out / RUN
    if not path.exists():
        write_json(path, identity)
        return
    held = _read(path)
    theirs, ours = dict(held), dict(identity)
    their_benchmarks, our_benchmarks = theirs.pop("benchmarks", {}), ours.pop("benchmarks")
    if finished:
        theirs["versions"] = ours["versions"]
    shared = [name for name in our_benchmarks if name in their_benchmarks]
    differing = leaves_differing(
        theirs | {name: their_benchmarks[name] for name in shared},
        ours | {name: our_benchmarks[name] for name in shared},
    )
    lines = [f"{name} is {short(a)} there, {short(b)} now" for name, a, b in differing if name not in _TOLD_ONLY]
    if lines:
        raise UserError(f"{out} holds another run ({'; '.join(lines[:_MOST_NAMED])}); choose another --out")
    if len(shared) < len(our_benchmarks):
        write_json(path, held | {"benchmarks": their_benchmarks | our_benchmarks})


def versions() -> dict[str, str]:
    """Of what answers depend on."""
    found = {"python": platform.python_version()}
    for name, package in _PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def default_folder(model: str, prompts: str, condition: Condition, limit: int | None) -> Path:
    """``runs/eval/`` and a name of its own for every model, prompt profile, condition and limit."""
    stem = re.sub(r"^https?://", "", model).rstrip("/").removesuffix(".jsonl")
    parts = stem.split("/")
    told = [part for part in parts if part not in _LAYOUT] if len(parts) > 2 else parts
    words = [re.sub(r"[^\w.-]+", "-", "-".join(told[-2:])).strip("-.") or "model"]
    words += [] if prompts == "auto" else [f"prompts-{prompts}"]
    words += [f"{name}-{value}" if value is not True else name for name, value in condition.to_dict().items() if value]
    words += [] if limit is None else [f"limit-{limit}"]
    return Path("runs") / "eval" / "-".join(words)


def _read(path: Path) -> dict[str, Any]:
    try:
        held = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or not isinstance(held.get("benchmarks"), dict):
            raise ValueError("no run of evaluate")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it or choose another --out") from error
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
