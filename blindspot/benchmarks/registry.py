"""All benchmarks by name: each is the file of its name here, and an entry in one of the lists."""

from importlib import import_module
from pathlib import Path

from blindspot.benchmarks.base import Benchmark
from blindspot.benchmarks.own import SUFFIXES, own
from blindspot.errors import UserError, one_of
from blindspot.plugins import extend

SPATIAL = ("mmvp", "cvbench_2d", "tallyqa", "gqa", "vsr", "topviewrs", "countbenchqa")
LATER = (
    *("cvbench_3d", "embspatial", "dsrbench_3d", "blink", "viewspatial", "mmsi", "mindcube", "site_image"),
    *("site_video", "vsi", "vsi_debiased"),
)
GENERAL = ("mmmu_val", "mme", "ccbench", "seedbench_img")
OTHER = ("whatsup", "whatsup_photos", "refspatial", "robospatial", "nlvr", "coco_boxes")
DRAWN = ("solid", "motion")

BENCHMARKS: dict[str, Benchmark] = {
    name: getattr(import_module(f"blindspot.benchmarks.{name}"), name.upper())
    for name in (*SPATIAL, *GENERAL, *LATER, *OTHER, *DRAWN)
}
extend("benchmarks", BENCHMARKS, Benchmark)

SETS: dict[str, tuple[str, ...]] = {
    "spatial": SPATIAL,
    "general": GENERAL,
    "paper": (*SPATIAL, *GENERAL),
    "spatial-2026": (*LATER, "whatsup", "whatsup_photos", "refspatial", "robospatial"),
    "easi-8": (
        *("vsi", "mmsi", "mindcube", "viewspatial", "site_image", "site_video", "blink", "dsrbench_3d", "embspatial"),
    ),
    "drawn": DRAWN,
    "all": tuple(BENCHMARKS),
}
"""Names for several at once: the paper's Table 2, its Table 1, both, later ones on space, those of
EASI's leaderboard, those that are drawn here, and everything."""


def find(name: str) -> Benchmark:
    """A benchmark by its name."""
    one_of(name, BENCHMARKS, "benchmarks", "benchmark")
    return BENCHMARKS[name]


def brought(name: str) -> bool:
    """Whether a name is the path of a user's own questions."""
    return name not in (*SETS, *BENCHMARKS) and (name.endswith(SUFFIXES) or Path(name).exists() or "/" in name)


def select(names: str) -> tuple[Benchmark, ...]:
    """The benchmarks of a comma-separated list of names, of the names of `SETS`, and of paths, each once."""
    wanted: dict[str, Benchmark] = {}
    for name in filter(None, map(str.strip, names.split(","))):
        if brought(name):
            benchmark = own(Path(name))
            if benchmark.name in (*BENCHMARKS, *wanted, ""):
                raise UserError(f"{name}: there is a benchmark called {benchmark.name!r} already; rename the file")
            wanted[benchmark.name] = benchmark
            continue
        one_of(name, (*SETS, *BENCHMARKS), "benchmarks", "benchmark or set")
        wanted |= {member: BENCHMARKS[member] for member in SETS.get(name, (name,))}
    if not wanted:
        raise UserError(f"no benchmark is named; name some of {', '.join((*SETS, *BENCHMARKS))}")
    return tuple(wanted.values())
