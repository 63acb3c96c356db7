"""Pictures of solids by exact ray casting, with depth and id buffers.

Light falls from the zenith, so that a shadow is the footprint on the ground, and a fill light from the east. Rays are
unnormalised: the parameter along a ray is depth along the camera's axis. Every solid is intersected in the window of
its bounding sphere alone. Suffixes: ``b`` pictures, ``k`` solids, ``p`` solids of one kind, ``y`` and ``x`` samples.
"""

from collections.abc import Sequence
from math import cos, dist, hypot, radians, sin
from typing import NamedTuple

import numpy as np

from blindspot.errors import UserError
from blindspot.scenes.render import RGB
from blindspot.scenes.solid.world import EXTENT, SHAPES, WALL, WIDE, Shot, Solid

F = np.float32
COLOUR = {
    **{name: np.array(rgb, F) / 255 for name, rgb in RGB.items()},
    "grey": np.full(3, 0.55, F),
    "": np.zeros(3, F),
}
"""``grey`` is the wall's; the empty name is that of noses."""
AMBIENT, ZENITH, FILL, SHADE = F(0.5), F(0.38), F(0.12), F(0.45)
GROUND, SKY = -1, -2
_KINDS = (*SHAPES, WALL)
_BOUND = {"sphere": 1.0, "cube": 1.74, "cylinder": 1.42, "cone": 1.42, WALL: hypot(*EXTENT[WALL])}
_SMALL = F(1e-9)


class Rendering(NamedTuple):
    """Pictures of several shots, and on ``side * samples`` rows and columns what their rays met."""

    rgb: np.ndarray  # ``uint8`` of shape ``(shots, side, side, 3)``
    depth: np.ndarray  # along the camera's axis; infinite in the sky
    ids: np.ndarray  # index of the solid in its scene; `GROUND`, `SKY`
    hits: np.ndarray  # samples that each solid would have alone, its nose counted apart: ``(shots, solids)``


def render(shots: Sequence[Shot], side: int, samples: int = 2, windows: bool = True, fill: bool = True) -> Rendering:
    """Cast rays through ``samples`` x ``samples`` points of every pixel.

    Args:
        shots: what is seen; a picture does not depend on the others.
        side: pixels.
        samples: of a pixel, along each side.
        windows: intersect a solid near its place alone; without, the same picture, slowly.
        fill: whether there is the light from the east.
    """
    grid = _Grid(shots, side * samples)
    solids = [_parts(shot) for shot in shots]
    hits_bk = np.zeros((len(shots), max((len(shot.scene.solids) for shot in shots), default=0)), np.int32)
    groups = []
    for place in range(max(map(len, solids), default=0)):
        for kind in _KINDS:
            if chosen := [b for b, own in enumerate(solids) if place < len(own) and own[place][1].shape == kind]:
                groups.append(_Group(grid, np.array(chosen), [solids[b][place] for b in chosen], windows))
    for group in groups if any(shot.scene.shadows for shot in shots) else ():
        group.shade([shots[b].scene.shadows for b in group.chosen_p])
    grid.paint_ground([shot.scene.ground for shot in shots])
    for group in groups:
        hits_bk[group.chosen_p, group.owner_p] += group.cast(FILL if fill else F(0))
    return Rendering(grid.picture(samples), grid.depth_byx, grid.ids_byx, hits_bk)


def pictures(shots: Sequence[Shot], side: int, batch: int = 256) -> np.ndarray:
    """``uint8`` pictures of shape (shots, side, side, 3); memory holds the rays of ``batch`` at a time."""
    parts = [render(shots[start : start + batch], side).rgb for start in range(0, len(shots), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, side, side, 3), np.uint8)


def _parts(shot: Shot) -> list[tuple[int, Solid]]:
    """The solids of a scene and their noses, each with the index of its solid."""
    found = list(enumerate(shot.scene.solids))
    for place, solid in enumerate(shot.scene.solids):
        x, y = shot.camera.turned(solid.x, solid.y)
        eye = (0.0, *shot.camera.eye)
        if dist((x, y, solid.height), eye) <= solid.radius * _BOUND[solid.shape]:
            raise UserError(f"the camera is inside {solid.name}, at {solid.x:g}, {solid.y:g}; move one of them away")
        if solid.nose:
            a = radians(solid.heading)
            x, y = solid.x + solid.radius * cos(a), solid.y + solid.radius * sin(a)
            found.append((place, Solid("", "sphere", x, y, solid.height, solid.radius / 2)))
    return found


class _Grid:
    """The rays of all pictures, and what they have met so far; the y and z of a ray depend on its row alone."""

    def __init__(self, shots: Sequence[Shot], side: int) -> None:
        self.side = side
        cameras = [shot.camera for shot in shots]
        self.cameras = cameras
        g_x = (np.arange(side, dtype=F) + F(0.5)) / side * 2 - 1
        slope_b, eye_b, angle_b = (
            np.array([getattr(each, name) for each in cameras], float) for name in ("slope", "eye", "elevation")
        )
        angle_b, azimuth_b = np.radians(angle_b), np.radians([each.azimuth for each in cameras])
        sin_b1, cos_b1 = np.sin(angle_b)[:, None].astype(F), np.cos(angle_b)[:, None].astype(F)
        self.eye_b2, self.slope_b = eye_b.astype(F), slope_b.astype(F)
        self.east_b2 = np.stack([np.cos(azimuth_b), -np.sin(azimuth_b)], 1).astype(F)
        self.dx_bx = self.slope_b[:, None] * g_x
        self.dy_by, self.dz_by = cos_b1 - self.dx_bx * sin_b1, -sin_b1 - self.dx_bx * cos_b1
        down_by = self.dz_by < -1e-6
        meets_by = -self.eye_b2[:, 1:] / np.where(down_by, self.dz_by, F(-1))
        self.ground_by = np.where(down_by, meets_by, F(np.inf))
        self.depth_byx = np.repeat(self.ground_by[:, :, None], side, 2)
        self.ids_byx = np.repeat(np.where(down_by, GROUND, SKY).astype(np.int8)[:, :, None], side, 2)
        self.shadow_byx = np.zeros(self.ids_byx.shape, bool)

    def paint_ground(self, brightness: Sequence[float]) -> None:
        ground_b1 = np.array(brightness, F)[:, None]
        level_by = np.where(np.isfinite(self.ground_by), ground_b1, ground_b1 * F(0.55) + F(0.4))
        level_byx = level_by[:, :, None] * np.where(self.shadow_byx, SHADE, F(1))
        self.rgb_byx3 = np.repeat(level_byx[..., None], 3, 3)

    def picture(self, samples: int) -> np.ndarray:
        whole = self.rgb_byx3
        steps = [(row, column) for row in range(samples) for column in range(samples)]
        mean = sum((whole[:, row::samples, column::samples] for row, column in steps), F(0)) / F(len(steps))
        return np.rint(np.clip(mean, 0, 1) * 255).astype(np.uint8)


class _Group:
    """Solids of one kind, one a picture, each in its window of the grid."""

    def __init__(self, grid: _Grid, chosen_p: np.ndarray, parts: Sequence[tuple[int, Solid]], windows: bool) -> None:
        solids = [solid for _, solid in parts]
        cameras = [grid.cameras[b] for b in chosen_p]
        self.grid, self.chosen_p, self.windows, self.kind = grid, chosen_p, windows, solids[0].shape
        self.owner_p = np.array([owner for owner, _ in parts])
        places = [(*camera.turned(own.x, own.y), own.height) for own, camera in zip(solids, cameras, strict=True)]
        self.centre_p3, self.radius_p = np.array(places, F), np.array([own.radius for own in solids], F)
        angle_p = np.radians([own.heading - camera.azimuth for own, camera in zip(solids, cameras, strict=True)])
        self.turn = tuple(each.astype(F)[:, None, None] for each in (np.cos(angle_p), np.sin(angle_p)))
        self.colour_p3 = np.stack([COLOUR[own.colour] for own in solids])
        self.seen = [camera.project(*place) for camera, place in zip(cameras, places, strict=True)]
        self.feet = [camera.project(*place[:2], 0.0) for camera, place in zip(cameras, places, strict=True)]

    def window(self, seen: Sequence[tuple[float, float, float]], bound: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the grid that hold a sphere of ``bound`` radii about each of these places."""
        u_p, v_p, depth_p = np.array(seen).T
        side, reach_p = self.grid.side, self.radius_p * bound
        half_p = 1.12 * reach_p / np.maximum(depth_p - reach_p, 0.5) / self.grid.slope_b[self.chosen_p]
        width = int(min(side, 2 * np.ceil(half_p.max() * side / 2) + 2)) if self.windows else side
        first_p = [np.clip(np.round((at + 1) / 2 * side - width / 2), 0, side - width).astype(int) for at in (v_p, u_p)]
        rows_py, columns_px = (first[:, None] + np.arange(width) for first in first_p)
        return rows_py, columns_px

    def shade(self, wanted: Sequence[bool]) -> None:
        """Put the footprint on the ground."""
        grid, b_p1 = self.grid, self.chosen_p[:, None]
        rows_py, columns_px = self.window(self.feet, WIDE[self.kind] * 1.05)
        meets_py = grid.ground_by[b_p1, rows_py]
        on_py = np.isfinite(meets_py) & np.array(wanted)[:, None]
        meets_py = np.where(on_py, meets_py, F(0))
        x_pyx = meets_py[:, :, None] * grid.dx_bx[b_p1, columns_px][:, None] - self.centre_p3[:, 0, None, None]
        y_py = grid.eye_b2[b_p1, 0] + meets_py * grid.dy_by[b_p1, rows_py] - self.centre_p3[:, 1, None]
        y_pyx, r_p11 = y_py[:, :, None], self.radius_p[:, None, None]
        if self.kind in ("cube", WALL):
            c, s = self.turn
            long, deep, _ = EXTENT[self.kind]
            inside = (abs(c * x_pyx + s * y_pyx) <= F(long) * r_p11) & (abs(c * y_pyx - s * x_pyx) <= F(deep) * r_p11)
        else:
            inside = x_pyx * x_pyx + y_pyx * y_pyx <= r_p11 * r_p11
        at = self.chosen_p[:, None, None], rows_py[:, :, None], columns_px[:, None, :]
        grid.shadow_byx[at] |= inside & on_py[:, :, None]

    def cast(self, fill: np.floating) -> np.ndarray:
        """Draw what is in front of all before; returns how many samples each would have alone."""
        grid, b_p1 = self.grid, self.chosen_p[:, None]
        rows_py, columns_px = self.window(self.seen, _BOUND[self.kind])
        at = self.chosen_p[:, None, None], rows_py[:, :, None], columns_px[:, None, :]
        shape = (len(b_p1), rows_py.shape[1], columns_px.shape[1])
        ray = (
            np.broadcast_to(grid.dx_bx[b_p1, columns_px][:, None], shape),
            np.broadcast_to(grid.dy_by[b_p1, rows_py][:, :, None], shape),
            np.broadcast_to(grid.dz_by[b_p1, rows_py][:, :, None], shape),
        )
        eye_p2 = grid.eye_b2[self.chosen_p]
        start = (-self.centre_p3[:, 0], eye_p2[:, 0] - self.centre_p3[:, 1], eye_p2[:, 1] - self.centre_p3[:, 2])
        start = tuple(each[:, None, None] for each in start)
        with np.errstate(all="ignore"):
            t_pyx, x_pyx, y_pyx, z_pyx = self._meet(start, ray)
        alone_pyx, before_pyx = np.isfinite(t_pyx), grid.depth_byx[at]
        first_pyx = t_pyx < before_pyx
        east = tuple(each[:, None, None] for each in grid.east_b2[self.chosen_p].T)
        light_pyx = AMBIENT + ZENITH * np.maximum(z_pyx, F(-0.4)) + fill * (x_pyx * east[0] + y_pyx * east[1])
        grid.depth_byx[at] = np.where(first_pyx, t_pyx, before_pyx)
        grid.ids_byx[at] = np.where(first_pyx, self.owner_p[:, None, None], grid.ids_byx[at])
        drawn = self.colour_p3[:, None, None] * light_pyx[..., None]
        grid.rgb_byx3[at] = np.where(first_pyx[..., None], drawn, grid.rgb_byx3[at])
        return alone_pyx.sum((1, 2))

    def _meet(self, start: tuple[np.ndarray, ...], ray: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Where rays from ``start``, relative to the centre, enter, infinite where they miss; and the normal there."""
        r = self.radius_p[:, None, None]
        if self.kind in ("cube", WALL):
            return _box(start, ray, [F(each) * r for each in EXTENT[self.kind]], *self.turn)
        return {"sphere": _sphere, "cylinder": _cylinder, "cone": _cone}[self.kind](start, ray, r)


_Arrays = tuple[np.ndarray, ...]


def _sphere(start: _Arrays, ray: _Arrays, r: np.ndarray) -> _Arrays:
    (ox, oy, oz), (dx, dy, dz) = start, ray
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - r * r
    root = b * b - a * c
    t = (-b - np.sqrt(root)) / a
    t = np.where((root > 0) & (t > 0), t, F(np.inf))
    near = np.where(np.isfinite(t), t, F(0))
    return t, (ox + near * dx) / r, (oy + near * dy) / r, (oz + near * dz) / r


def _box(start: _Arrays, ray: _Arrays, half: Sequence[np.ndarray], c: np.ndarray, s: np.ndarray) -> _Arrays:
    (ox, oy, oz), (dx, dy, dz) = start, ray
    turned = ((c * ox + s * oy, c * dx + s * dy), (c * oy - s * ox, c * dy - s * dx), (oz, dz))
    enter, leave = [], []
    for (o, d), h in zip(turned, half, strict=True):
        safe = np.where(abs(d) < _SMALL, _SMALL, d)
        one, other = (-h - o) / safe, (h - o) / safe
        enter.append(np.minimum(one, other))
        leave.append(np.maximum(one, other))
    t = np.maximum(np.maximum(enter[0], enter[1]), enter[2])
    hit = (t < np.minimum(np.minimum(leave[0], leave[1]), leave[2])) & (t > 0)
    by_x = t == enter[0]
    by_y = (t == enter[1]) & ~by_x
    nx, ny = np.where(by_x, -np.sign(turned[0][1]), F(0)), np.where(by_y, -np.sign(turned[1][1]), F(0))
    return np.where(hit, t, F(np.inf)), c * nx - s * ny, s * nx + c * ny, np.where(by_x | by_y, F(0), -np.sign(dz))


def _disc(start: _Arrays, ray: _Arrays, r: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Where rays meet the horizontal disc at height ``at``."""
    (ox, oy, oz), (dx, dy, dz) = start, ray
    t = (at - oz) / np.where(abs(dz) < _SMALL, _SMALL, dz)
    x, y = ox + t * dx, oy + t * dy
    return np.where((x * x + y * y <= r * r) & (t > 0), t, F(np.inf))


def _cylinder(start: _Arrays, ray: _Arrays, r: np.ndarray) -> _Arrays:
    (ox, oy, oz), (dx, dy, dz) = start, ray
    a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - r * r
    root = b * b - a * c
    t = (-b - np.sqrt(root)) / a
    t = np.where((root > 0) & (t > 0) & (abs(oz + t * dz) <= r), t, F(np.inf))
    cap = _disc(start, ray, r, np.sign(oz) * r)
    flat, t = cap < t, np.minimum(cap, t)
    near = np.where(np.isfinite(t), t, F(0))
    x, y = (ox + near * dx) / r, (oy + near * dy) / r
    return t, np.where(flat, F(0), x), np.where(flat, F(0), y), np.where(flat, np.sign(oz), F(0))


def _cone(start: _Arrays, ray: _Arrays, r: np.ndarray) -> _Arrays:
    """Its tip is at r, its base at -r: at height z it is (r - z) / 2 wide."""
    (ox, oy, oz), (dx, dy, dz) = start, ray
    w = r - oz
    a, b = dx * dx + dy * dy - dz * dz / 4, ox * dx + oy * dy + w * dz / 4
    root = b * b - a * (ox * ox + oy * oy - w * w / 4)
    a = np.where(abs(a) < _SMALL, _SMALL, a)
    t = np.full_like(root, np.inf)
    for sign in (F(-1), F(1)):
        one = (-b + sign * np.sqrt(root)) / a
        below = w - one * dz
        t = np.where((root > 0) & (one > 0) & (below >= 0) & (below <= 2 * r) & (one < t), one, t)
    cap = _disc(start, ray, r, -r)
    flat, t = cap < t, np.minimum(cap, t)
    near = np.where(np.isfinite(t), t, F(0))
    x, y = ox + near * dx, oy + near * dy
    out = F(1 / np.sqrt(1.25)) / (np.sqrt(x * x + y * y) + _SMALL)
    return (
        t,
        np.where(flat, F(0), x * out),
        np.where(flat, F(0), y * out),
        np.where(flat, F(-1), F(0.5 / np.sqrt(1.25))),
    )
