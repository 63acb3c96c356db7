"""What tests of every room share; and that a run of the whole suite proves every feature of ``features.yaml``."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

HERE = Path(__file__).parent
LONG = (
    "training/distributed/test_several_ranks.py",
    "studies/test_rehearsal.py",
    "studies/test_cluster.py",
    "diagnostics/test_diagnosing.py",
    "studies/test_study_disk.py",
    "evaluation/test_serving_model.py",
    "studies/test_study_variants.py",
    "studies/test_study_steps.py",
    "reporting/test_report_collect.py",
    "test_cli_serve.py",
)
"""Files that take longest. They come first: none is then what one worker is at while another has nothing left."""

settings.register_profile("blindspot", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("blindspot")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, as the workers of a study run it: small models are faster so."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but neither laid out nor rendered: written are empty pictures."""
    from blindspot.reporting import drawing

    def save(figure: Any, folder: Path, name: str) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.svg").write_text('<svg width="1" height="1" viewBox="0 0 1 1"></svg>')
        return folder / f"{name}.svg"

    monkeypatch.setattr(drawing, "save", save)
    monkeypatch.setattr(drawing.Canvas, "draw_without_rendering", lambda canvas: None)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the controller of pytest-xdist hears of every worker's tests
        config.pluginmanager.register(Proofs(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {HERE / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(LONG)))


class Proofs:
    """Fails a run of the whole suite in which a feature's test did not pass."""

    def __init__(self, config: pytest.Config) -> None:
        self._passed: set[str] = set()
        self._unproved: list[str] = []
        options = config.option
        chosen = any(getattr(options, name, None) for name in ("keyword", "markexpr", "deselect", "lf", "collectonly"))
        places = {(config.invocation_params.dir / arg).resolve() for arg in config.args}
        self._whole = places <= {HERE, HERE.parent} and not chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid.partition("[")[0])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._whole and session.exitstatus == pytest.ExitCode.OK:
            self._unproved = [
                f"{feature}: {test} did not pass"
                for feature, test, needs in features()
                if test not in self._passed and all(map(is_here, needs))
            ]
            if self._unproved:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._unproved:
            terminalreporter.section("features without a proof", red=True)
            terminalreporter.write_line("\n".join(self._unproved))


def is_here(need: str) -> bool:
    """Whether there is a package, an environment variable, or a file, whose path starts at the repository."""
    return (HERE.parent / need).exists() if "/" in need else need in os.environ or find_spec(need) is not None


def features() -> Iterator[tuple[str, str, list[str]]]:
    """Every feature, its test, and what it needs, without which it is skipped."""
    for section, lines in yaml.safe_load((HERE / "features.yaml").read_text(encoding="utf-8")).items():
        for feature, proof in lines.items():
            told = proof if isinstance(proof, dict) else {"test": proof, "needs": []}
            yield f"{section}, {feature}", told["test"], told["needs"]
