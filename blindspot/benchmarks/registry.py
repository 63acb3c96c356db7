"""All benchmarks by name."""

from blindspot.benchmarks.base import Benchmark
from blindspot.benchmarks.ccbench import CCBENCH
from blindspot.benchmarks.coco_boxes import COCO_BOXES
from blindspot.benchmarks.countbenchqa import COUNTBENCHQA
from blindspot.benchmarks.cvbench_2d import CVBENCH_2D
from blindspot.benchmarks.gqa import GQA
from blindspot.benchmarks.mme import MME
from blindspot.benchmarks.mmmu_val import MMMU_VAL
from blindspot.benchmarks.mmvp import MMVP
from blindspot.benchmarks.nlvr import NLVR
from blindspot.benchmarks.seedbench_img import SEEDBENCH_IMG
from blindspot.benchmarks.tallyqa import TALLYQA
from blindspot.benchmarks.topviewrs import TOPVIEWRS
from blindspot.benchmarks.vsr import VSR
from blindspot.errors import UserError, one_of

SPATIAL = (MMVP, CVBENCH_2D, TALLYQA, GQA, VSR, TOPVIEWRS, COUNTBENCHQA)
GENERAL = (MMMU_VAL, MME, CCBENCH, SEEDBENCH_IMG)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*SPATIAL, *GENERAL, NLVR, COCO_BOXES)}

SETS: dict[str, tuple[str, ...]] = {
    "spatial": tuple(benchmark.name for benchmark in SPATIAL),
    "general": tuple(benchmark.name for benchmark in GENERAL),
    "paper": tuple(benchmark.name for benchmark in (*SPATIAL, *GENERAL)),
    "all": tuple(BENCHMARKS),
}
"""Names for several at once: the paper's Table 2, its Table 1, both, and everything."""


def find(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        UserError: if there is none of that name; names the nearest.
    """
    one_of(name, BENCHMARKS, "benchmarks", "benchmark")
    return BENCHMARKS[name]


def select(names: str) -> tuple[Benchmark, ...]:
    """The benchmarks of a comma-separated list of names and of the names of `SETS`, each once.

    Raises:
        UserError: if one of them is unknown, or none is named.
    """
    wanted: dict[str, Benchmark] = {}
    for name in filter(None, map(str.strip, names.split(","))):
        one_of(name, (*SETS, *BENCHMARKS), "benchmarks", "benchmark or set")
        wanted |= {member: BENCHMARKS[member] for member in SETS.get(name, (name,))}
    if not wanted:
        raise UserError(f"no benchmark is named; name some of {', '.join((*SETS, *BENCHMARKS))}")
    return tuple(wanted.values())
