"""Plants the faults of ``faults.yaml``, one at a time, in a copy of the tree, and sees that their tests fail.

``python tests/golden/faults.py [WORD]`` takes all of them, or those with the word in their name. Status 1 if one is not
caught.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FAULTS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "faults.yaml").read_text(encoding="utf-8"))
FAILED = 1  # pytest's status where tests ran and some failed


def planted(fault: dict[str, Any], root: Path) -> str:
    """The file's text with the fault in it."""
    text = (root / fault["file"]).read_text(encoding="utf-8")
    if text.count(fault["find"]) != 1:
        raise SystemExit(
            f"{fault['name']}: {fault['file']} has its text {text.count(fault['find'])} times; anchor it anew"
        )
    return text.replace(fault["find"], fault["replace"])


def run(root: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """The tests of a tree in a process of their own, up to the first that fails."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def main() -> None:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [fault for fault in FAULTS if word in fault["name"]]
    for fault in chosen:
        planted(fault, ROOT)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs"))
        whole = run(copy, sorted({test for fault in chosen for test in fault["tests"]}))
        if whole.returncode:
            raise SystemExit(f"the tests fail without any fault:\n{whole.stdout}")
        for fault in chosen:
            path = copy / fault["file"]
            before = path.read_text(encoding="utf-8")
            path.write_text(planted(fault, copy), encoding="utf-8")
            found = run(copy, fault["tests"])
            path.write_text(before, encoding="utf-8")
            by = [line for line in found.stdout.splitlines() if line.startswith("FAILED ")]
            caught = found.returncode == FAILED and bool(by)
            missed += not caught
            print(
                f"{'caught' if caught else 'MISSED'}: {fault['name']}",
                *by or [found.stdout[-300:]],
                sep="\n    ",
                flush=True,
            )
    print(f"{len(chosen) - missed} of {len(chosen)} faults caught")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
