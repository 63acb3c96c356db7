"""What is trained on pictures with depth: true, in known words, and of no use to who sees no depth."""

from collections import Counter
from math import sqrt
from random import Random

import numpy as np
import pytest

from blindspot.scenes.solid import cast, depth
from blindspot.scenes.solid.depth import Depth
from blindspot.scenes.solid.draw import FAR, NEAR
from blindspot.scenes.solid.lessons import Told
from blindspot.scenes.solid.registry import CUES, FEET
from blindspot.scenes.solid.world import Shot, see

DRAWN = 400
DEPTH = Depth()


@pytest.fixture(scope="module")
def shown() -> list[tuple[Shot, list[Told]]]:
    rng = Random(5)
    shots = [depth.picture(rng, "shadow") for _ in range(DRAWN)]
    return [(shot, depth.turns(rng, shot, "shadow")) for shot in shots]


def test_turns_are_true_of_the_scene_graph(shown: list[tuple[Shot, list[Told]]]) -> None:
    for shot, told in shown:
        own = {solid.colour: (solid, see(solid, shot.camera)) for solid in shot.scene.solids}
        for turn, _ in told:
            match turn.prompt.split():
                case ["nearer", a, "or", b]:
                    first, second = (own[c][1] for c in (a, b))
                    assert abs(first.y - second.y) >= depth.GAP and turn.answer == (a if first.y < second.y else b)
                case [a, "in-front-of", b]:
                    assert (turn.answer == "yes") == (own[a][1].y < own[b][1].y)
                case ["foot", "of", a]:
                    column, row = "abcd".index(turn.answer[0]), int(turn.answer[1])
                    assert -1 + column / 2 <= own[a][1].foot_u <= -0.5 + column / 2
                    deep = (own[a][1].y - NEAR) / (FAR - NEAR)
                    assert (4 - row) / 4 - 1e-9 <= deep <= (5 - row) / 4 + 1e-9, "row 1 is the farthest"
                case ["cell", "of", a]:
                    column, row = "abcd".index(turn.answer[0]), int(turn.answer[1])
                    assert -1 + column / 2 <= own[a][1].u <= -0.5 + column / 2
                    assert -1.5 + row / 2 <= own[a][1].v <= -1 + row / 2
                case ["shape", "of", a]:
                    assert turn.answer == own[a][0].shape
                case ["colour", "of", shape]:
                    assert own[turn.answer][0].shape == shape
                case words:
                    pytest.fail(f"an unknown turn: {words}")


def test_what_a_scene_in_words_cannot_tell_is_not_asked_of_it(shown: list[tuple[Shot, list[Told]]]) -> None:
    for shot, told in shown:
        feet = dict(zip((s.colour for s in shot.scene.solids), (foot for _, foot in depth.cells(shot)), strict=True))
        for turn, in_words in told:
            colours = [word for word in turn.prompt.split() if word in feet]
            if len(colours) == 2:
                assert in_words == (feet[colours[0]][0] != feet[colours[1]][0])
            else:
                assert in_words


def test_who_sees_no_depth_answers_half_of_the_comparisons(shown: list[tuple[Shot, list[Told]]]) -> None:
    right: Counter[str] = Counter()
    asked = 0
    for shot, told in shown:
        own = {solid.colour: see(solid, shot.camera) for solid in shot.scene.solids}
        for turn, _ in told:
            if turn.prompt.startswith("nearer"):
                _, a, _, b = turn.prompt.split()
                asked += 1
                right["first"] += turn.answer == a
                right["lower"] += turn.answer == max((a, b), key=lambda c: own[c].v)
                right["larger"] += turn.answer == max((a, b), key=lambda c: own[c].size)
                right["foot"] += turn.answer == max((a, b), key=lambda c: own[c].foot_v)
    margin = 4 * 0.5 / sqrt(asked)
    assert asked > 2 * DRAWN and right["foot"] == asked
    assert all(abs(right[rule] / asked - 0.5) < margin for rule in ("first", "lower", "larger")), right


@pytest.mark.parametrize("cue", CUES)
def test_every_cue_has_pictures_turns_and_words(cue: str) -> None:
    rng, words = Random(1), set(DEPTH.words())
    for _ in range(20):
        shot = depth.picture(rng, cue)
        told = depth.turns(rng, shot, cue)
        said = [DEPTH.describe([shot], rng, places) for places in (True, False)]
        assert words >= {word for text in said for word in text.split()}
        assert words >= {word for turn, _ in told for word in f"{turn.prompt} {turn.answer}".split()}
        assert any(turn.prompt.startswith("foot") for turn, _ in told) == (cue in FEET)
        assert shot.scene.shadows == (cue in ("shadow", "naive"))


def test_feet_are_asked_where_they_can_be_seen() -> None:
    assert "foot" not in DEPTH.questions("test", 2, 0, "none").by_column()


def test_pictures_are_those_that_are_cast_one_by_one() -> None:
    rng = Random(2)
    shots = [depth.picture(rng, "shadow") for _ in range(5)]
    together = cast.pictures(shots, 32, batch=2)
    assert together.shape == (5, 32, 32, 3)
    assert all(np.array_equal(one, cast.render([shot], 32).rgb[0]) for one, shot in zip(together, shots, strict=True))
    assert cast.pictures([], 32).shape == (0, 32, 32, 3)
