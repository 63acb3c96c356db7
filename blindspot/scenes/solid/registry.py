"""The tasks of the worlds with depth as data; they are imported when they are used."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from blindspot.errors import UserError, one_of

if TYPE_CHECKING:
    from blindspot.scenes.solid.tasks import SolidTask


class TaskColumn(NamedTuple):
    """What there is to know of a task before it is drawn."""

    relative: str  # published benchmarks that ask the like
    chance: float | None = 0.5  # of guessing; None where there is no such thing
    cues: tuple[str, ...] = ("shadow",)  # which of `CUES` it can be asked by
    twins: bool = True  # whether a cluster has several questions
    frames: int = 1  # pictures of a question


CUES = ("shadow", "size", "occlusion", "none", "naive")
"""What tells depth: the shadow alone; the apparent size of objects that are all alike; what hides what; nothing, which
is a control; all of it at once, as in scenes that nobody has balanced."""

FEET = ("shadow", "size", "naive")
"""Those by which it can be seen where the foot of an object is."""

SOLID = {
    "nearer": TaskColumn("CV-Bench 3D depth, BLINK relative depth", cues=CUES),
    "nearest": TaskColumn("3DSRBench multi-object", 0.25, ("shadow", "size", "none")),
    "closer": TaskColumn("CV-Bench 3D distance", cues=("shadow", "none")),
    "in_front_of": TaskColumn("What'sUp, VSR", twins=False),
    "hidden_by": TaskColumn("SPHERE", cues=("shadow", "occlusion")),
    "higher": TaskColumn("3DSRBench height"),
    "facing": TaskColumn("3DSRBench orientation", 0.25, twins=False),
    "for_whom": TaskColumn("ViewSpatial-Bench, What'sUp"),
    "for_camera": TaskColumn("What'sUp, CV-Bench 2D relation"),
    "from_side": TaskColumn("MindCube"),
    "camera_moved": TaskColumn("BLINK multi-view reasoning", frames=2),
    "in_all": TaskColumn("VSI-Bench object count", twins=False, frames=2),
    "ratio": TaskColumn("VSI-Bench absolute distance", None, twins=False),
    "larger": TaskColumn("size constancy"),
}
"""The tasks of one or two views, by name."""

MOTION = {
    "first": TaskColumn("temporal order", frames=3),
    "moved": TaskColumn("VSI-Bench route, motion direction", frames=2),
    "which_moved": TaskColumn("MMSI-Bench object motion", 1 / 3, frames=2),
    "faster": TaskColumn("speed", frames=3),
    "thing_or_camera": TaskColumn("MMSI-Bench camera and object motion", frames=2),
    "behind": TaskColumn("object permanence", 1 / 3, frames=4),
    "next": TaskColumn("extrapolation", frames=3),
}
"""The tasks of several moments, by name."""

TAUGHT = ("solid", "motion", "views")
"""What models are trained on from nothing: depth, films, viewpoints."""

WORLDS = {"solid": SOLID, "motion": MOTION}
"""Columns by world."""
_MODULES = {"solid": "tasks", "motion": "motion"}


def asked(world: str, cue: str, otherwise: str) -> "Mapping[str, tuple[SolidTask, TaskColumn]]":
    """The tasks of a world that can be asked by a cue; ``otherwise`` is what to do where there are none."""
    one_of(cue, CUES, "--cue", "cue")
    tasks = import_module(f"blindspot.scenes.solid.{_MODULES[world]}").TASKS
    found = {name: (tasks[name], column) for name, column in WORLDS[world].items() if cue in column.cues}
    if not found:
        raise UserError(f"--cue {cue}: {world} has no task with this cue; {otherwise}")
    return found
