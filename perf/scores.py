"""A report over many answers: our reader and statistics against pandas and a plain bootstrap, both in this run.

    python perf/scores.py           under 3 minutes on two idle cores; --rows, --json, --help

The file is made up: GQA-like rows with 30 questions a picture, then MMVP-like pairs, VSR- and MME-like yes/no rows.
Ours computes everything of ``scores.json``: all metrics, intervals, chance, baselines, and the values under all
profiles. The peer does less: one profile, one number per benchmark, its cluster bootstrap with as many resamples. Each
side runs in a process of its own, one after the other; time is of the whole process (on a busy machine the time that
it computed says more), memory its peak. Both must find the same values.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SHARES = {"gqa": 0.7, "vsr": 0.1, "mmvp": 0.1, "mme": 0.1}
"""Of the rows, by benchmark."""

_OURS = """
from blindspot.evaluation.scores.report import score
found = score(Path(sys.argv[1]))
values = {name: entry["metrics"]["overall"]["value"] for name, entry in found["benchmarks"].items() if name != "mme"}
"""
_PEER = """
import numpy as np, pandas as pd
from blindspot.benchmarks.scoring import DEFAULT, profile
rule, rng, values = profile(DEFAULT), np.random.default_rng(0), {}
parts = [pd.read_json(path, lines=True, dtype=False) for path in sorted(Path(sys.argv[1]).glob("*/answers.jsonl"))]
for frame in parts:
    frame["score"] = frame.apply(lambda row: rule.score(row.dropna().to_dict()).score, axis=1)
    frame["cluster"] = frame["groups"].map(lambda groups: groups["cluster"])
    sums = frame.groupby("cluster")["score"].agg(["sum", "count"]).to_numpy(float)
    drawn = [sums[rng.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(2000)]
    interval = np.quantile([total / count for total, count in drawn], [0.025, 0.975])
    name = frame["benchmark"].iloc[0]
    if name != "mme":
        values[name] = float(f"{frame['score'].mean():.6g}")
"""
_FRAME = """
import json, resource, sys
from pathlib import Path
{body}
used = resource.getrusage(resource.RUSAGE_SELF)
said = {{"values": values, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}}
print(json.dumps(said))
"""


def main() -> None:
    """Make the file, run both sides, compare their values, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-peer", action="store_true", help="only ours")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size_mb = write(Path(folder), options.rows) / 2**20
        sides = {"ours": _OURS} if options.no_peer else {"ours": _OURS, "pandas": _PEER}
        measured = {name: run(body, folder) for name, body in sides.items()}
    if len({json.dumps(side["values"], sort_keys=True) for side in measured.values()}) > 1:
        raise SystemExit(f"the two sides disagree: {[side['values'] for side in measured.values()]}")
    result = {"rows": options.rows, "file_mb": size_mb, **measured}
    print(json.dumps(result, indent=1)) if options.json else show(result)


def write(folder: Path, rows: int) -> int:
    """Write a run folder of made-up answers; returns its size in bytes."""
    size = 0
    for name, share in SHARES.items():
        path = folder / name / "answers.jsonl"
        path.parent.mkdir()
        with path.open("w", encoding="utf-8") as file:
            for row in made_up(name, int(rows * share)):
                file.write(json.dumps(row) + "\n")
        size += path.stat().st_size
    return size


def made_up(name: str, rows: int) -> Iterator[dict[str, Any]]:
    """Rows as the runner writes them, right about six times in ten."""
    rng = random.Random(name)
    categories = ("existence", "count", "position", "color", "OCR", "artwork")
    for place in range(rows):
        pair = str(place // 2)
        row: dict[str, Any] = {"id": f"{name}-{place}", "benchmark": name}
        if name == "gqa":
            gold = rng.choice(("yes", "no", "left", "right", "table", "white"))
            types = ("choose", "compare", "logical", "query", "verify")
            groups = {"type": rng.choice(types), "semantic": "rel", "spatial": "yes", "cluster": str(place // 30)}
            row |= {"kind": "text"}
        elif name == "mmvp":
            gold, groups = rng.choice("AB"), {"set": pair, "cluster": pair}
            row |= {"kind": "mcq", "choices": {"A": f"a thing {place}", "B": "another thing"}}
        else:
            gold = rng.choice(("Yes", "No"))
            label = categories[place // 2 % len(categories)]
            groups = {"category": label, "cluster": pair} | ({"set": f"{label}/{pair}"} if name == "mme" else {})
            row |= {"kind": "yes_no"}
        raw = gold if rng.random() < 0.6 else rng.choice(("Yes.", "I cannot tell from the picture.", "no", "B"))
        prompt = f"USER: <image>\nWhat can be said of thing {place}? Answer with a single word or phrase. ASSISTANT:"
        yield row | {
            "answer": gold,
            "raw": raw,
            "stopped": "end",
            "prompt": prompt,
            "groups": groups,
            "images": [place // 2],
        }


def run(body: str, folder: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _FRAME.format(body=body), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"seconds": time.perf_counter() - start, **json.loads(done.stdout)}


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(
        "side", "seconds", "of them computing", "peak MB", title=f"{result['rows']} answers, {result['file_mb']:.0f} MB"
    )
    for name in ("ours", "pandas"):
        if name in result:
            side = result[name]
            table.add_row(name, f"{side['seconds']:.1f}", f"{side['cpu_seconds']:.1f}", f"{side['peak_mb']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
