"""Fingerprints of what results depend on beside the study file: the code, the libraries and the user's data."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from blindspot.errors import UserError
from blindspot.files import fingerprint, sha256_file

PACKAGE = Path(__file__).parents[1]

RESULT_SOURCES = (
    "question.py",
    "scenes",
    "benchmarks",
    "positions",
    "encoders",
    "connectors",
    "model",
    "training",
    "evaluation",
    "studies/corpus.py",
    "studies/sources.py",
    "studies/steps.py",
)
"""Files and rooms whose code determines results. The engine, the reports and the command line do not."""

RESULT_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")

NLVR_SPLITS = ("train", "dev", "test")
NLVR_SUFFIXES = (".json", ".jsonl", ".png")


def code_version() -> str:
    """Hash of the source bytes of `RESULT_SOURCES` and the versions of `RESULT_LIBRARIES`."""
    files: list[Path] = []
    for name in RESULT_SOURCES:
        path = PACKAGE / name
        files += [path] if path.is_file() else path.rglob("*.py")
    sources = {path.relative_to(PACKAGE).as_posix(): sha256_file(path) for path in files}
    return fingerprint({"sources": sources, "libraries": {name: _version(name) for name in RESULT_LIBRARIES}})


def nlvr_fingerprint(folder: Path | None) -> str:
    """Hash of the names and bytes of the NLVR files in ``folder``, in either of its layouts.

    Raises:
        UserError: if the folder is not given or holds no NLVR; says where to get it.
    """
    where = "get it with `git clone https://github.com/lil-lab/nlvr` and pass --data nlvr/nlvr"
    if folder is None:
        raise UserError(f"this study reads NLVR, real images and sentences: {where}")
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder; it should hold NLVR: {where}")
    for split in NLVR_SPLITS:
        if not any((folder / name).is_file() for name in (f"{split}.jsonl", f"{split}/{split}.json")):
            layout = f"expected {split}.jsonl beside images/, or {split}/{split}.json beside {split}/images/"
            raise UserError(f"--data {folder}: no {split} split of NLVR: {layout}; {where}")
    files = sorted(path for path in folder.rglob("*") if path.suffix in NLVR_SUFFIXES and path.is_file())
    try:
        return fingerprint({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"
