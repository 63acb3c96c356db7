"""Fingerprints of what results depend on beside the study file: the code, the libraries and the user's data."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from blindspot import plugins
from blindspot.benchmarks import nlvr
from blindspot.errors import UserError, explained
from blindspot.files import fingerprint, sha256_file

PACKAGE = Path(__file__).parents[1]

RESULT_SOURCES = (
    "question.py",
    "scenes/baselines.py",
    "scenes/relations.py",
    "scenes/render.py",
    "scenes/sampling.py",
    "scenes/solid",
    "scenes/tasks.py",
    "scenes/text.py",
    "scenes/world.py",
    "benchmarks/boxes.py",
    "benchmarks/exact.py",
    "benchmarks/nlvr.py",
    "positions",
    "encoders",
    "connectors",
    "model",
    "training/checkpoint.py",
    "training/config.py",
    "training/fit.py",
    "training/log.py",
    "training/loss.py",
    "training/objectives",
    "training/optim.py",
    "training/order.py",
    "training/packing.py",
    "training/parallel.py",
    "training/parts.py",
    "training/stages.py",
    "training/turns.py",
    "studies/corpus.py",
    "studies/steps.py",
)
"""Files and rooms whose code determines results. The engine, the reports and the command line do not."""

DIAGNOSIS_SOURCES = (
    "diagnostics",
    "evaluation/base.py",
    "evaluation/adapters.py",
    "evaluation/statistics.py",
    "studies/diagnosing.py",
    "text.py",
)
"""Likewise for diagnoses, beside those."""

SHOWING = ("figures.py", "plots.py")
"""Files of a diagnostic that say how its numbers are shown, and determine none."""

RESULT_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy")


def code_version(everything: bool = False) -> str:
    """Hash of the source bytes of `RESULT_SOURCES`, or of the whole package, of all plug-ins, and the versions of
    `RESULT_LIBRARIES`."""
    libraries: dict[str, str] = {}
    for name in RESULT_LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "missing"
    held = {"sources": sources(("",) if everything else RESULT_SOURCES), "libraries": libraries}
    return fingerprint(held | ({"plugins": brought} if (brought := plugins.digests()) else {}))


def diagnostics_version() -> str:
    """Hash of the source bytes of `DIAGNOSIS_SOURCES`, beside what is in `code_version`."""
    return fingerprint(sources(DIAGNOSIS_SOURCES))


def sources(names: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of every file of these files and rooms."""
    files: list[Path] = []
    for name in names:
        path = PACKAGE / name
        found = [path] if path.is_file() else [file for file in path.rglob("*.py") if file.name not in SHOWING]
        if not found:
            raise FileNotFoundError(f"{path} makes results, and is not there")
        files += found
    return {path.relative_to(PACKAGE).as_posix(): sha256_file(path) for path in files}


def nlvr_fingerprint(folder: Path | None) -> str:
    """Hash of the NLVR data that the user named; an error that says where to get it where there is none."""
    if folder is None:
        raise UserError(
            "this study reads NLVR, real images and sentences: get it with "
            "`git clone https://github.com/lil-lab/nlvr` and pass --data nlvr/nlvr"
        )
    with explained("--data", UserError):
        return nlvr.fingerprint(folder)
