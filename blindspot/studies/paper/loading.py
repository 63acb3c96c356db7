"""From a YAML file to a `PaperStudy`, or to one line that says what is wrong with it."""

from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from blindspot.errors import UserError
from blindspot.studies.loading import explain, find, model_in, read
from blindspot.studies.nearest import suggest
from blindspot.studies.paper.arms import expand
from blindspot.studies.paper.spec import KIND, PaperStudy


def is_paper(name_or_path: str | Path) -> bool:
    """Whether a study is one of real size: its file says ``kind: llava``. Nothing else of it is checked.

    Raises:
        UserError: if there is no such study, its file is no YAML, or it says another kind.
    """
    path = find(str(name_or_path))
    kind = read(path, str(name_or_path)).get("kind")
    if kind not in (None, KIND):
        raise UserError(f'{name_or_path}: kind: "{kind}": unknown; write kind: {KIND}, or leave the key out')
    return kind == KIND


def load_paper(name_or_path: str | Path) -> PaperStudy:
    """Read a study and check every key and every arm.

    Args:
        name_or_path: a shipped study (``paper``) or the path of a YAML file.

    Raises:
        UserError: naming the file, the key and what to write instead.
    """
    path = find(str(name_or_path))
    where = str(name_or_path) if path == Path(name_or_path) else path.name
    try:
        study = PaperStudy.model_validate(read(path, where))
    except ValidationError as error:
        # A mistyped key is reported twice, as unknown and as missing: the first says more.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        raise UserError(f"{where}: {_say(problems[0])}") from None
    try:
        expand(study)
    except UserError as error:
        raise UserError(f"{where}: arms: {error}") from None
    return study


def _say(problem: ErrorDetails) -> str:
    *outer, key = problem["loc"]
    if problem["type"] != "extra_forbidden":
        return explain(problem)
    section: type[BaseModel] = PaperStudy
    for part in outer:
        if isinstance(part, str):
            section = model_in(section.model_fields[part].annotation)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    return f"{place}: unknown key; {suggest(str(key), section.model_fields)}"
