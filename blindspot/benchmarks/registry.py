"""All benchmarks by name: each is the file of its name here, and an entry in one of the lists."""

from importlib import import_module

from blindspot.benchmarks.base import Benchmark
from blindspot.errors import UserError, one_of

SPATIAL = ("mmvp", "cvbench_2d", "tallyqa", "gqa", "vsr", "topviewrs", "countbenchqa")
GENERAL = ("mmmu_val", "mme", "ccbench", "seedbench_img")
OTHER = ("nlvr", "coco_boxes")

BENCHMARKS: dict[str, Benchmark] = {
    name: getattr(import_module(f"blindspot.benchmarks.{name}"), name.upper()) for name in (*SPATIAL, *GENERAL, *OTHER)
}

SETS: dict[str, tuple[str, ...]] = {
    "spatial": SPATIAL,
    "general": GENERAL,
    "paper": (*SPATIAL, *GENERAL),
    "all": tuple(BENCHMARKS),
}
"""Names for several at once: the paper's Table 2, its Table 1, both, and everything."""


def find(name: str) -> Benchmark:
    """A benchmark by its name."""
    one_of(name, BENCHMARKS, "benchmarks", "benchmark")
    return BENCHMARKS[name]


def select(names: str) -> tuple[Benchmark, ...]:
    """The benchmarks of a comma-separated list of names and of the names of `SETS`, each once."""
    wanted: dict[str, Benchmark] = {}
    for name in filter(None, map(str.strip, names.split(","))):
        one_of(name, (*SETS, *BENCHMARKS), "benchmarks", "benchmark or set")
        wanted |= {member: BENCHMARKS[member] for member in SETS.get(name, (name,))}
    if not wanted:
        raise UserError(f"no benchmark is named; name some of {', '.join((*SETS, *BENCHMARKS))}")
    return tuple(wanted.values())
