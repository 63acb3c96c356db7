"""Solids, cameras and what of a solid a camera sees: the graph that everything about a picture is derived from.

Lengths have no unit, angles are degrees, counter-clockwise seen from above. Places are drawn in the camera's frame (x
to its right, y away from it, around the point that it looks at) and turned into the world's (x east, y north, the
ground at 0), so that the direction of the camera changes the shading alone.
"""

from math import atan2, cos, degrees, hypot, radians, sin, tan
from typing import NamedTuple

from blindspot.scenes.world import COLOURS

SHAPES = ("sphere", "cube", "cylinder", "cone")
WALL = "wall"
EXTENT = {**dict.fromkeys(SHAPES, (1.0, 1.0, 1.0)), WALL: (1.0, 0.06, 0.62)}
"""Half sizes along a shape's own axes, in radii; its x axis is its heading."""
WIDE = {"sphere": 1.0, "cube": 1.42, "cylinder": 1.0, "cone": 1.0, WALL: 1.0}
"""The radius of its footprint, in radii."""
HELD_OUT = frozenset(zip(COLOURS[1:], SHAPES[1:], strict=False))
"""Colour-shape pairs that are never drawn but in compositional tests; ``red`` and ``sphere`` occur in every pair."""
AZIMUTHS = tuple(range(0, 360, 45))
ELEVATIONS = (15.0, 22.5, 30.0)


class Solid(NamedTuple):
    """An object: what it is, its centre, the radius of its inscribed sphere, where its front is.

    ``nose``: a dark ball in the middle of its front shows where that is.
    """

    colour: str
    shape: str
    x: float
    y: float
    height: float
    radius: float
    heading: float = 0.0
    nose: bool = False

    @property
    def name(self) -> str:
        return f"the {self.colour} {self.shape}"


class Camera(NamedTuple):
    """A camera at ``distance`` from the point at height ``target`` that it looks at; azimuth 0: from the south."""

    azimuth: float = 0.0
    elevation: float = 22.5
    distance: float = 7.0
    target: float = 0.8
    fov: float = 36.0

    @property
    def slope(self) -> float:
        """Half the picture's width at depth 1."""
        return tan(radians(self.fov / 2))

    @property
    def eye(self) -> tuple[float, float]:
        """Where it is in its own frame: y, height."""
        e = radians(self.elevation)
        return -self.distance * cos(e), self.target + self.distance * sin(e)

    def turned(self, x: float, y: float, back: bool = False) -> tuple[float, float]:
        """A place of the world in the camera's frame; ``back``: of its frame in the world."""
        c, s = cos(radians(self.azimuth)), sin(radians(self.azimuth))
        return (c * x - s * y, s * x + c * y) if back else (c * x + s * y, c * y - s * x)

    def through(self, u: float, v: float, y: float) -> tuple[float, float, float]:
        """Where the ray through a picture point meets depth row ``y``: x in the camera's frame, height, depth."""
        e, (eye_y, eye_z) = radians(self.elevation), self.eye
        depth = (y - eye_y) / (cos(e) - self.slope * v * sin(e))
        return depth * self.slope * u, eye_z - depth * (sin(e) + self.slope * v * cos(e)), depth

    def project(self, x: float, y: float, height: float) -> tuple[float, float, float]:
        """A place of its frame: u and v in half pictures from the middle (right, down), depth along its axis."""
        e, (eye_y, eye_z) = radians(self.elevation), self.eye
        dy, dz = y - eye_y, height - eye_z
        depth = dy * cos(e) - dz * sin(e)
        return x / (depth * self.slope), -(dy * sin(e) + dz * cos(e)) / (depth * self.slope), depth


class SolidScene(NamedTuple):
    """A picture's scene graph, but for the camera. ``ground`` is its brightness, 0 to 1."""

    solids: tuple[Solid, ...]
    shadows: bool = True
    ground: float = 0.78


class Shot(NamedTuple):
    """A picture: a scene as a camera sees it."""

    scene: SolidScene
    camera: Camera

    def find(self, colour: str) -> Solid:
        return next(solid for solid in self.scene.solids if solid.colour == colour)

    def graph(self) -> dict[str, object]:
        """As plain JSON values; ``seen`` is what `SeenSolid` has of each object."""
        seen = [see(solid, self.camera)._asdict() for solid in self.scene.solids]
        objects = [{**solid._asdict(), "seen": own} for solid, own in zip(self.scene.solids, seen, strict=True)]
        return {"camera": self.camera._asdict(), "objects": objects, "shadows": self.scene.shadows}


class SeenSolid(NamedTuple):
    """Of a solid in a picture: its centre, its radius and its foot in half pictures; its place in the camera's frame
    (x, y), its depth along the camera's axis, its heading relative to the line of sight (0: away, 90: to the left)."""

    u: float
    v: float
    size: float
    foot_u: float
    foot_v: float
    x: float
    y: float
    depth: float
    facing: float

    def sides(self, solid: Solid) -> tuple[float, float]:
        """Half width and half height of what the silhouette of its solid, seen like this, does not exceed."""
        return max(1.1 * WIDE[solid.shape], 1.55 * solid.nose) * self.size, 1.35 * self.size


def see(solid: Solid, camera: Camera) -> SeenSolid:
    """What a camera sees of a solid."""
    x, y = camera.turned(solid.x, solid.y)
    u, v, depth = camera.project(x, y, solid.height)
    foot_u, foot_v, _ = camera.project(x, y, 0.0)
    sight_x, sight_y = x, y - camera.eye[0]
    a = radians(solid.heading - camera.azimuth)
    length = hypot(sight_x, sight_y)
    along = (cos(a) * sight_x + sin(a) * sight_y) / length
    left = (sin(a) * sight_x - cos(a) * sight_y) / length
    return SeenSolid(
        u, v, solid.radius / (depth * camera.slope), foot_u, foot_v, x, y, depth, degrees(atan2(left, along))
    )
