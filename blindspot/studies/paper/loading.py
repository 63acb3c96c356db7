"""From a YAML file to a `PaperStudy`, or to one line that says what is wrong with it."""

from pathlib import Path

from pydantic import ValidationError

from blindspot.errors import UserError
from blindspot.studies.loading import explain, find, read
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
        raise UserError(f"{where}: {explain(error, PaperStudy)}") from None
    try:
        expand(study)
    except UserError as error:
        raise UserError(f"{where}: arms: {error}") from None
    return study
