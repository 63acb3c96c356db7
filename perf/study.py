"""What the engine itself takes: a study of steps that do nothing, in worker processes or on a Ray cluster.

    python perf/study.py [STEPS] [WORKERS] [local|ray]      1000, 2, local; 2501 are a study of 500 arms from 5 seeds

Arms are five steps in a row, of each seed, behind one that all share. Prints how long it took to look at all folders,
to carry all steps out, and to find them done, and how much the engine's memory grew with the finished steps.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from blindspot.files import locked
from blindspot.studies.cluster import RayPool
from blindspot.studies.engine import Scheduler, run_steps
from blindspot.studies.local import LocalPool
from blindspot.studies.progress import Progress
from blindspot.studies.step import Step, StepContext


def nothing(context: StepContext) -> None:
    """A step."""


KINDS = ("encoder", "connector", "evaluate", "instruct", "diagnose")
STEPS = dict.fromkeys(("data", *KINDS), nothing)
"""What the workers import."""


def main(number: int, workers: int, where: str) -> None:
    steps = [Step("data", "data", None, None, None, {}, {}, 1.0, "data")]
    for place in range(number - 1):
        chain, link = divmod(place, len(KINDS))
        name, before = f"{KINDS[link]}/{chain}", f"{KINDS[link - 1]}/{chain}" if link else "data"
        steps.append(Step(name, KINDS[link], None, 0, None, {}, {"before": before}, 1.0 + chain % 7, name))
    with tempfile.TemporaryDirectory() as folder, locked(Path(folder)) as lock, open("/dev/null", "w") as nowhere:
        run = Path(folder)
        for what in ("carried out", "found done"):
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            scheduler = Scheduler(steps, run)
            checked = time.monotonic() - began
            if not scheduler.complete:
                if where == "ray":
                    pool = RayPool(run, workers, registry="study:STEPS")
                    pool.begin(steps)
                else:
                    pool = LocalPool(workers, run, lock, registry="study:STEPS")
                print(f"{where}: {time.monotonic() - began:.1f} s until workers were asked for")
                run_steps(scheduler, pool, Progress(Console(file=nowhere), steps, {}, workers))
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            took = time.monotonic() - began
            print(f"{number} steps {what}: {took:.1f} s, of it {checked:.1f} s to check; {grown:.1f} MB more memory")


if __name__ == "__main__":
    given = [*sys.argv[1:], *("1000", "2", "local")[len(sys.argv) - 1 :]]
    main(int(given[0]), int(given[1]), given[2])
