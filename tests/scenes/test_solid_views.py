"""What is trained on viewpoints: true of the scene graph, in known words, and of no use to who takes another's view."""

from collections import Counter
from math import cos, radians, sin, sqrt
from random import Random

import pytest

from blindspot.scenes.baselines import named
from blindspot.scenes.solid.lessons import Lesson
from blindspot.scenes.solid.tasks import Facing
from blindspot.scenes.solid.views import VIEWS, Views
from blindspot.scenes.solid.world import Shot, see

DRAWN = 400
WORLD = Views()


@pytest.fixture(scope="module")
def shown() -> list[Lesson]:
    rng = Random(3)
    return [WORLD.lesson(rng, "shadow") for _ in range(DRAWN)]


def on_the_left(shot: Shot, who: str, of: str) -> bool:
    """By the map: on the left of one that stands where ``of`` does and looks where it faces."""
    a, b = shot.find(who), shot.find(of)
    ahead = cos(radians(b.heading)), sin(radians(b.heading))
    return ahead[0] * (a.y - b.y) - ahead[1] * (a.x - b.x) > 0


def test_turns_are_true_of_the_scene_graph(shown: list[Lesson]) -> None:
    counted: Counter[str] = Counter()
    for (shot,), told in shown:
        seen = {solid.colour: see(solid, shot.camera) for solid in shot.scene.solids}
        for turn, _ in told:
            counted[" ".join(word for word in turn.prompt.split() if word not in seen)] += 1
            match turn.prompt.split():
                case [a, "left-or-right", "for", b]:
                    assert (turn.answer == "left") == on_the_left(shot, a, b)
                case [a, "left-or-right", b]:
                    assert (turn.answer == "left") == (seen[a].x < seen[b].x)
                case [side, a, "left-or-right", b]:
                    nearer = seen[a].y < seen[b].y
                    assert (turn.answer == "left") == (nearer if side == "from-right" else not nearer)
                case [a, "facing"]:
                    middle = {"away": 0, "left": 90, "toward": 180, "right": 270}[turn.answer]
                    assert abs((seen[a].facing - middle + 180) % 360 - 180) <= 30
                case ["foot" | "cell" as what, "of", a]:
                    column, row = "abcdefgh".index(turn.answer[0]), int(turn.answer[1])
                    across = seen[a].foot_u if what == "foot" else seen[a].u
                    assert -1 + column / 4 <= across <= -0.75 + column / 4
                    assert what == "foot" or -1.25 + row / 4 <= seen[a].v <= -1 + row / 4
                case ["shape", "of", a]:
                    assert turn.answer == shot.find(a).shape
                case ["colour", "of", shape]:
                    assert shot.find(turn.answer).shape == shape
                case words:
                    pytest.fail(f"an unknown turn: {words}")
    assert all(counted[words] > DRAWN / 2 for words in ("left-or-right for", "left-or-right", "facing")), counted
    assert counted["from-left left-or-right"] + counted["from-right left-or-right"] > DRAWN / 2


def test_a_scene_in_words_tells_what_is_asked_of_it(shown: list[Lesson]) -> None:
    rng = Random(0)
    for shots, told in shown:
        said = WORLD.describe(shots, rng, places=True).split()
        at = {solid.colour: said[said.index(solid.colour) + 2 :][:3] for solid in shots[0].scene.solids}
        for turn, in_words in told:
            match turn.prompt.split():
                case [_, "left-or-right", "for", _]:
                    assert not in_words
                case [a, "facing"]:
                    assert in_words and turn.answer == at[a][2]
                case [a, "left-or-right", b]:
                    assert in_words == (at[a][0][0] != at[b][0][0])
                    assert not in_words or (turn.answer == "left") == (at[a][0][0] < at[b][0][0])
                case [side, a, "left-or-right", b]:
                    nearer = at[a][1][1] > at[b][1][1]
                    assert in_words == (at[a][1][1] != at[b][1][1])
                    assert not in_words or (turn.answer == "left") == (nearer == (side == "from-right"))
                case _:
                    assert in_words


def test_every_word_is_known(shown: list[Lesson]) -> None:
    words, rng = set(WORLD.words()), Random(1)
    for shots, told in shown:
        assert words >= {word for places in (True, False) for word in WORLD.describe(shots, rng, places).split()}
        assert words >= {word for turn, _ in told for word in f"{turn.prompt} {turn.answer}".split()}


def test_who_takes_the_cameras_view_scores_chance_for_others() -> None:
    asked = WORLD.questions("test", DRAWN, 2, "shadow")
    examples, margin = asked.by_column(), 4 * 0.5 / sqrt(DRAWN)
    assert examples.keys() == {*VIEWS, "foot", "cell", "shape"}
    for column in ("for_camera", "for_whom", "from_side"):
        right = 0
        for (shot,), turn in examples[column]:
            a, b = (see(shot.find(colour), shot.camera).x for colour in named(turn.prompt))
            right += (turn.answer == "left") == (a < b)
        assert right == len(examples[column]) if column == "for_camera" else abs(right / DRAWN - 0.5) < margin
    assert {turn.choices for _, turn in examples["facing"]} == {Facing.answers}
