"""Where solids are put: in the band of the picture where every depth is possible, or on the ground.

In the band an object's place in the picture and its apparent size are drawn before its depth; height and radius follow
along the ray. Enlarging an object about the eye keeps its pixels, so depths may be exchanged between objects and only
the shadows tell. Nothing is rejected for its depth, which would tie depth to height and size again.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from math import atan2, cos, degrees, radians, sin, sqrt
from random import Random
from typing import NamedTuple, TypeVar

from blindspot.errors import UserError
from blindspot.scenes.solid.world import (
    AZIMUTHS,
    ELEVATIONS,
    HELD_OUT,
    SHAPES,
    Camera,
    Shot,
    Solid,
    SolidScene,
    see,
)
from blindspot.scenes.world import COLOURS

NEAR, FAR, HIGHEST = -1.5, 3.5, 3.0
"""The depth rows of objects in the camera's frame, and the greatest height of one."""
SIZES, SMALL, MIDDLING = (0.12, 0.18), (0.09, 0.13), (0.1, 0.14)
"""Apparent radii in half pictures: of up to three objects, of more, and of those that overlap."""
RADIUS = 0.36
"""Of all objects where size is the cue."""
TRIES = 2000
T = TypeVar("T")


class Sighting(NamedTuple):
    """An object in the picture, its depth left open."""

    colour: str
    shape: str
    u: float
    v: float
    size: float
    heading: float


def until(draw: Callable[[], T | None], what: str) -> T:
    """The first draw that fits."""
    for _ in range(TRIES):
        if (found := draw()) is not None:
            return found
    raise UserError(f"no scene fits {what} in {TRIES:,} draws; allow more room or ask for less")


def camera(rng: Random, elevations: Sequence[float] = ELEVATIONS) -> Camera:
    return Camera(azimuth=rng.choice(AZIMUTHS), elevation=rng.choice(elevations))


def kinds(rng: Random, count: int) -> list[tuple[str, str]]:
    """Colours and shapes; no colour twice, and no shape before all others have come."""
    while True:
        found: list[tuple[str, str]] = list(zip(rng.sample(COLOURS, count), rng.sample(SHAPES * 2, count), strict=True))
        spread = len({shape for _, shape in found}) == min(count, len(SHAPES))
        if spread and not HELD_OUT.intersection(found):
            return found


@cache
def band(elevation: float) -> tuple[float, float]:
    """The heights in the picture, down positive, at which an object of every size fits at every depth."""
    eye = Camera(elevation=elevation)
    rows = [NEAR + (FAR - NEAR) * step / 8 for step in range(9)]

    def fits(v: float) -> bool:
        held = [eye.through(0, v, y) for y in rows]
        feet = [eye.project(0, y, 0)[1] for y in rows]
        above = all(h >= SIZES[1] * eye.slope * depth + 0.02 and h <= HIGHEST for _, h, depth in held)
        return above and max(feet) < 0.95

    good = [v for v in (step / 200 for step in range(-156, 180)) if fits(v)]
    return good[0], good[-1]


def places(rng: Random, eye: Camera, count: int) -> list[Sighting]:
    """Objects in columns of their own, anywhere in the band, no silhouette touching another."""
    low, high = band(eye.elevation)
    width = 1.6 / count

    def draw() -> list[Sighting] | None:
        slots = rng.sample(range(count), count)
        found = [
            Sighting(
                *kind,
                width * (slot + 0.5) - 0.8 + rng.uniform(-0.06, 0.06),
                rng.uniform(low, high),
                rng.uniform(*(SIZES if count < 4 else SMALL)),
                rng.uniform(0, 360),
            )
            for kind, slot in zip(kinds(rng, count), slots, strict=True)
        ]
        return found if apart(lift(eye, found, [1.0] * count, "shadow")) else None

    return until(draw, f"{count} objects in the band")


def lift(eye: Camera, at: Sequence[Sighting], rows: Sequence[float], cue: str) -> Shot:
    """The picture with each object at its depth row; size and occlusion are shown without shadows."""
    solids = []
    for own, y in zip(at, rows, strict=True):
        x, height, depth = eye.through(own.u, own.v, y)
        radius = RADIUS if cue == "size" else own.size * eye.slope * depth
        east, north = eye.turned(x, y, back=True)
        solids.append(Solid(own.colour, own.shape, east, north, height, radius, own.heading))
    return Shot(SolidScene(tuple(solids), shadows=cue in ("shadow", "naive")), eye)


def grounded(
    eye: Camera, kind: tuple[str, str], x: float, y: float, radius: float, heading: float, nose: bool = False
) -> Solid:
    """A solid on the ground at a place of the camera's frame; its heading is the world's."""
    return Solid(*kind, *eye.turned(x, y, back=True), radius, radius, heading, nose)


def facing(eye: Camera, x: float, y: float, angle: float) -> float:
    """The heading in the world of what at a place of the camera's frame faces at an angle to the line of sight."""
    return degrees(atan2(y - eye.eye[0], x)) + eye.azimuth + angle


def apart(shot: Shot) -> bool:
    """Whether no silhouette touches another, and all are in the picture, with their feet."""
    seen = [see(solid, shot.camera) for solid in shot.scene.solids]
    boxes = [(own.u, own.v, *own.sides(solid)) for own, solid in zip(seen, shot.scene.solids, strict=True)]
    inside = all(abs(u) + wide < 1 and abs(v) + tall < 1.05 for u, v, wide, tall in boxes)
    feet = all(abs(own.foot_u) < 0.95 and own.foot_v < 0.95 for own in seen)
    free = all(abs(a[0] - b[0]) > a[2] + b[2] or abs(a[1] - b[1]) > a[3] + b[3] for a, b in combinations(boxes, 2))
    return free and inside and feet


def on_disc(rng: Random, reach: float) -> tuple[float, float]:
    """A place on a disc about the middle, which looks alike from everywhere."""
    length, angle = reach * sqrt(rng.random()), radians(rng.uniform(0, 360))
    return length * cos(angle), length * sin(angle)


def two_rows(rng: Random, low: float, high: float) -> tuple[float, float]:
    """Depth rows ``low`` to ``high`` apart, the nearer first, their middle anywhere."""
    gap = rng.uniform(low, high)
    middle = rng.uniform(NEAR + gap / 2, FAR - gap / 2)
    return middle - gap / 2, middle + gap / 2
