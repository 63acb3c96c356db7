"""Pictures of solids against what follows from their equations."""

from dataclasses import dataclass
from math import cos, radians, sin
from random import Random

import numpy as np
import pytest

from blindspot.errors import UserError
from blindspot.scenes.solid.cast import GROUND, Rendering, render
from blindspot.scenes.solid.draw import camera, grounded, kinds
from blindspot.scenes.solid.world import AZIMUTHS, SHAPES, WALL, Camera, Shot, Solid, SolidScene, see

SIDE = 48


def drawn(seed: int, count: int = 5) -> Shot:
    rng = Random(seed)
    eye = camera(rng)
    spots = rng.sample([(x, y) for x in (-1.2, -0.4, 0.4, 1.2) for y in (-0.9, 0.3, 1.5, 2.7)], count)
    found = zip(kinds(rng, count), spots, strict=True)
    solids = [grounded(eye, kind, *at, rng.uniform(0.25, 0.45), rng.uniform(0, 360)) for kind, at in found]
    return Shot(SolidScene(tuple(solids), ground=rng.uniform(0.6, 0.85)), eye)


SHOTS = [drawn(seed) for seed in range(12)]


def same(a: Rendering, b: Rendering) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def changed(shot: Shot, **camera_changes: float) -> Shot:
    return Shot(shot.scene, shot.camera._replace(**camera_changes))


def test_windows_and_the_rest_of_a_batch_change_no_bit() -> None:
    whole = render(SHOTS, SIDE)
    assert same(whole, render(SHOTS, SIDE, windows=False))
    assert same(Rendering(*(part[3:5] for part in whole)), render(SHOTS[3:5], SIDE))


@dataclass
class Rays:
    """Where the samples of a picture lie in the frame of the camera, in double precision."""

    shot: Shot
    picture: Rendering

    def places(self) -> np.ndarray:
        eye, side = self.shot.camera, self.picture.ids.shape[1]
        g = ((np.arange(side) + 0.5) / side * 2 - 1) * eye.slope
        x, v = np.meshgrid(g, g)
        c, s = cos(radians(eye.elevation)), sin(radians(eye.elevation))
        ray = np.stack([x, c - v * s, -s - v * c], -1)
        return np.array([0, *eye.eye]) + self.picture.depth[0][..., None].astype(float) * ray


def beyond(solid: Solid, p_n3: np.ndarray, camera: Camera) -> np.ndarray:
    """How far places of the camera's frame are outside the surface of a solid, in radii."""
    x, y = camera.turned(solid.x, solid.y)
    p_n3 = (p_n3 - np.array([x, y, solid.height])) / solid.radius
    a = radians(solid.heading - camera.azimuth)
    turned = np.stack([cos(a) * p_n3[:, 0] + sin(a) * p_n3[:, 1], cos(a) * p_n3[:, 1] - sin(a) * p_n3[:, 0]])
    across, z = np.hypot(*turned), p_n3[:, 2]
    return {
        "sphere": np.hypot(across, z) - 1,
        "cube": np.maximum(abs(turned).max(0), abs(z)) - 1,
        "cylinder": np.maximum(across, abs(z)) - 1,
        "cone": np.maximum(across - (1 - z) / 2, -z - 1),
    }[solid.shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_hit_lies_on_the_surface_and_the_ground_at_zero(shape: str) -> None:
    for seed in range(6):
        shot = drawn(seed, 1)
        solid = shot.scene.solids[0]._replace(shape=shape)
        shot = Shot(SolidScene((solid,)), shot.camera)
        rays = Rays(shot, picture := render([shot], SIDE))
        places = rays.places()
        on = picture.ids[0] == 0
        assert on.sum() > 40
        assert abs(beyond(solid, places[on], shot.camera)).max() < 1e-3
        assert abs(places[picture.ids[0] == GROUND][:, 2]).max() < 5e-4


def test_a_sphere_has_the_depth_that_its_equation_gives() -> None:
    solid = Solid("red", "sphere", 0.3, 0.4, 0.5, 0.4)
    shot = Shot(SolidScene((solid,)), Camera())
    picture = render([shot], SIDE, samples=1)
    own = see(solid, shot.camera)
    centre = np.array([own.u, -own.v, 1 / shot.camera.slope]) * own.depth * shot.camera.slope
    rows, columns = np.nonzero(picture.ids[0] == 0)
    g = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * shot.camera.slope
    ray = np.stack([g[columns], -g[rows], np.ones(len(rows))], -1)
    a, b, c = (ray * ray).sum(1), ray @ centre, centre @ centre - 0.4**2
    expected = (b - np.sqrt(b * b - a * c)) / a
    assert abs(picture.depth[0][rows, columns] - expected).max() < 1e-4
    assert abs(rows.mean() + 0.5 - (own.v + 1) / 2 * SIDE) < 0.5
    assert abs(columns.mean() + 0.5 - (own.u + 1) / 2 * SIDE) < 0.5
    assert abs(np.ptp(columns) + 1 - own.size * SIDE) < 1.5


def test_what_is_alone_has_all_its_hits() -> None:
    picture = render(SHOTS, SIDE)
    seen = np.stack([(picture.ids == place).sum((1, 2)) for place in range(5)], 1)
    assert (picture.hits >= seen).all() and (picture.hits > seen).any()
    for place in range(5):
        alone = render([Shot(SolidScene((shot.scene.solids[place],)), shot.camera) for shot in SHOTS], SIDE)
        assert np.array_equal((alone.ids == 0).sum((1, 2)), picture.hits[:, place])


@pytest.mark.parametrize("shot", SHOTS[:4])
def test_mirrored_turned_and_permuted_scenes_have_such_pictures(shot: Shot) -> None:
    scene, eye = shot
    picture = render([changed(shot, azimuth=0)], SIDE, fill=False)
    mirrored = tuple(own._replace(x=-own.x, heading=180 - own.heading) for own in scene.solids)
    other = render([Shot(scene._replace(solids=mirrored), eye._replace(azimuth=0))], SIDE, fill=False)
    assert (picture.ids != other.ids[:, :, ::-1]).mean() < 1e-4
    assert (abs(picture.rgb.astype(int) - other.rgb[:, :, ::-1]) > 1).mean() < 1e-3
    for angle in AZIMUTHS[1:]:
        east = Camera(azimuth=-angle)
        turned = [(own, east.turned(own.x, own.y)) for own in scene.solids]
        solids = tuple(own._replace(x=x, y=y, heading=own.heading + angle) for own, (x, y) in turned)
        other = render([Shot(scene._replace(solids=solids), eye._replace(azimuth=angle))], SIDE, fill=False)
        assert (picture.ids != other.ids).mean() < 1e-3
    order = [3, 0, 4, 1, 2]
    permuted = scene._replace(solids=tuple(scene.solids[place] for place in order))
    again = render([Shot(permuted, eye)], SIDE).ids
    assert np.array_equal(np.where(again >= 0, np.array(order)[again], again), render([shot], SIDE).ids)


def test_what_is_enlarged_about_the_eye_keeps_its_samples() -> None:
    shot = Shot(SHOTS[0].scene._replace(solids=SHOTS[0].scene.solids[:1]), SHOTS[0].camera)
    solid, eye = shot.scene.solids[0]._replace(height=1.5), shot.camera
    own = see(solid, eye)
    x, height, depth = eye.through(own.u, own.v, own.y + 1)
    east, north = eye.turned(x, own.y + 1, back=True)
    grown = solid._replace(x=east, y=north, height=height, radius=solid.radius * depth / own.depth)
    picture, other = (render([Shot(SolidScene((each,)), eye)], SIDE) for each in (solid, grown))
    assert ((picture.ids == 0) != (other.ids == 0)).mean() < 1e-3


def test_a_quarter_turn_four_times_is_none_and_headings_are_seen() -> None:
    solid = Solid("red", "cube", 0.4, -0.2, 0.3, 0.3, heading=0.0)
    assert see(solid, Camera(azimuth=0)) == pytest.approx(see(solid, Camera(azimuth=360)))
    ahead = Solid("red", "cube", 0.0, 0.0, 0.3, 0.3, heading=0.0)  # it faces east
    facing = [see(ahead, Camera(azimuth=a)).facing % 360 for a in (0, 90, 180, 270)]
    assert facing == pytest.approx([270, 180, 90, 0])  # from the south right, from the east toward the camera


def test_a_shadow_lies_where_the_footprint_is() -> None:
    for kind in (*SHAPES, WALL):
        shot = Shot(SolidScene((Solid("red" if kind != WALL else "grey", kind, 0, 1, 1.5, 0.4, 30.0),)), Camera())
        dark = (
            render([shot], SIDE).rgb.sum(-1)
            != render([Shot(shot.scene._replace(shadows=False), shot.camera)], SIDE).rgb.sum(-1)
        )[0]
        rows, columns = np.nonzero(dark)
        u, v, _ = shot.camera.project(0, 1, 0)
        assert (rows.mean() + 0.5) / SIDE * 2 - 1 == pytest.approx(v, abs=0.05)
        assert (columns.mean() + 0.5) / SIDE * 2 - 1 == pytest.approx(u, abs=0.05)


def test_a_camera_inside_an_object_is_one_line() -> None:
    eye = Camera()
    y, z = eye.eye
    with pytest.raises(UserError, match=r"^the camera is inside the blue cube, at 0, -6\.4\d+; move one of them away$"):
        render([Shot(SolidScene((Solid("blue", "cube", 0.0, y, z, 0.5),)), eye)], 32)
