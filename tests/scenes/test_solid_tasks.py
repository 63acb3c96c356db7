"""Tasks with depth: the declared answers hold in space, and shortcuts score what they are known to."""

from collections import Counter
from math import atan2, degrees, dist, radians, sin, sqrt
from random import Random

import numpy as np
import pytest

from blindspot.errors import UserError
from blindspot.scenes.baselines import named
from blindspot.scenes.relations import relation
from blindspot.scenes.solid import motion, registry, rules
from blindspot.scenes.solid.cast import render
from blindspot.scenes.solid.draw import until
from blindspot.scenes.solid.tasks import TASKS, Nearer, SolidExample, couple
from blindspot.scenes.solid.world import Camera, Shot, Solid, see

ERRORS = 4
COLUMNS, ALL = {**registry.SOLID, **registry.MOTION}, {**TASKS, **motion.TASKS}
CASES = [(name, cue) for name, column in COLUMNS.items() for cue in column.cues]
SLOW = {"hidden_by"}


def depth(shot: Shot, colour: str) -> float:
    """From the eye, which must agree with the depth along the axis."""
    solid, eye = shot.find(colour), shot.camera
    return dist((*eye.turned(solid.x, solid.y), solid.height), (0, *eye.eye))


def space(shot: Shot, a: str, b: str) -> float:
    return dist(*((own.x, own.y, own.height) for own in (shot.find(a), shot.find(b))))


def side_of(shot: Shot, of: Solid, viewer: tuple[float, float], ahead: float) -> str:
    """Left or right of somebody in the world who looks in a direction."""
    angle = degrees(atan2(of.y - viewer[1], of.x - viewer[0])) - ahead
    return "left" if sin(radians(angle)) > 0 else "right"


def truth(name: str, example: SolidExample) -> str:
    """The answer from the scene graph, by the definition of the words."""
    shot, (prompt, _, choices, _) = example.shots[0], example.turn
    words = [*dict.fromkeys(named(prompt))]
    azimuth = shot.camera.azimuth
    if name in ("nearer", "nearest"):
        found = min(choices, key=lambda colour: depth(shot, colour))
        assert found == min(choices, key=lambda colour: see(shot.find(colour), shot.camera).depth)
        return found
    if name == "closer":
        return min(choices, key=lambda colour: space(shot, words[0], colour))
    if name == "higher":
        return max(choices, key=lambda colour: shot.find(colour).height)
    if name == "larger":
        assert len({shot.find(colour).shape for colour in choices}) == 1
        return max(choices, key=lambda colour: shot.find(colour).radius)
    if name == "in_front_of":
        a, b = (see(shot.find(word), shot.camera) for word in words)
        return (
            "yes" if relation((-round((a.y - b.y) / 1.3), round(a.x + 1.5)), (0, round(b.x + 1.5))) == "below" else "no"
        )
    if name == "hidden_by":
        hidden = [own.colour for own in shot.scene.solids].index(words[0])
        alone = render([shot], 64).ids == hidden
        gone = {}
        for colour in choices:
            rest = tuple(own for own in shot.scene.solids if own.colour != colour)
            place = [own.colour for own in rest].index(words[0])
            gone[colour] = int(
                ((render([Shot(shot.scene._replace(solids=rest), shot.camera)], 64).ids == place) & ~alone).sum()
            )
        assert min(gone.values()) == 0 < max(gone.values())
        return max(gone, key=gone.__getitem__)
    if name == "facing":
        angle = see(shot.find(words[0]), shot.camera).facing
        assert abs((angle + 45) % 90 - 45) <= 20.001
        return ("away", "left", "toward", "right")[round(angle / 90) % 4]
    if name == "for_whom":
        viewer = shot.find(words[1])
        return side_of(shot, shot.find(words[0]), (viewer.x, viewer.y), viewer.heading)
    if name in ("for_camera", "from_side"):
        turn = {"from-left": -90, "from-right": 90}.get(prompt.split()[0], 0)
        other = shot.camera._replace(azimuth=azimuth + turn)
        a, b = (see(shot.find(word), other).u for word in words)
        return "left" if a < b else "right"
    if name == "camera_moved":
        turn = (example.shots[1].camera.azimuth - azimuth) % 360
        assert example.shots[0].scene == example.shots[1].scene
        return "right" if turn < 180 else "left"  # counter-clockwise is to the right of who looks at the middle
    if name == "in_all":
        total = ("three", "four", "five", "six", "seven").index(prompt.split()[0]) + 3
        return "yes" if len(shot.scene.solids) - 1 == total else "no"
    if name in registry.MOTION:
        return moving(name, example)
    assert name == "ratio"
    return f"{space(shot, words[0], words[1]) / space(shot, words[0], words[2]):.1f}"


def moving(name: str, example: SolidExample) -> str:
    """The same of several pictures."""
    shots, words, choices = example.shots, named(example.turn.prompt), example.turn.choices

    def step(colour: str, start: int, end: int) -> float:
        (a, b) = (shots[frame].find(colour) for frame in (start, end))
        return dist((a.x, a.y), (b.x, b.y))

    def u(colour: str, frame: int) -> float:
        return see(shots[frame].find(colour), shots[frame].camera).u

    if name == "first":
        assert all(min(step(own, 0, 1), step(own, 1, 2)) == 0 < step(own, 0, 2) for own in words)
        return max(words, key=lambda own: step(own, 0, 1))
    if name == "moved":
        return "right" if u(words[0], 1) > u(words[0], 0) else "left"
    if name == "which_moved":
        assert sum(step(own, 0, 1) > 0 for own in choices) == 1
        return max(choices, key=lambda own: step(own, 0, 1))
    if name == "faster":
        assert all(step(own, 0, 1) == pytest.approx(step(own, 1, 2)) for own in words)
        return max(words, key=lambda own: step(own, 0, 1))
    if name == "thing_or_camera":
        return "thing" if shots[0].camera == shots[1].camera else "camera"
    if name == "behind":
        inside = [own for own in choices[:2] if abs(see(shots[-1].find(own), shots[-1].camera).u) < 1]
        assert set(np.unique(render(shots[-1:], 64).ids)) <= {2, -1, -2}  # the wall, which comes third
        return inside[0] if inside else "none"
    assert name == "next"
    a, b = (
        (2 * shots[2].find(own).x - shots[1].find(own).x, 2 * shots[2].find(own).y - shots[1].find(own).y)
        for own in words
    )
    project = shots[2].camera
    ahead = [project.project(*project.turned(*spot), 0.24)[0] for spot in (a, b)]
    return "left" if ahead[0] < ahead[1] else "right"


SAME_FRAMES = {"first": (0, 2), "which_moved": (0,), "thing_or_camera": (0,), "behind": (0, 3), "next": (2,)}


@pytest.mark.parametrize("name", SAME_FRAMES)
def test_pictures_that_are_promised_to_be_the_same_are(name: str) -> None:
    for cluster in rules.questions(motion.TASKS[name], 12, "same"):
        for frame in SAME_FRAMES[name]:
            pictures = render([one.shots[frame] for one in cluster], 48).rgb
            assert (pictures == pictures[0]).all()


def test_reversed_frames_give_the_other_answer() -> None:
    for first, second in rules.questions(motion.TASKS["moved"], 12, "reversed"):
        assert first.shots == second.shots[::-1] and first.turn.answer != second.turn.answer


@pytest.mark.parametrize(("name", "cue"), CASES)
def test_declared_answers_hold_and_come_equally_often(name: str, cue: str) -> None:
    task, count = ALL[name], 2 if name in SLOW else 12
    asked = [one for own in rules.questions(task, count, "truth", cue) for one in own]
    assert [truth(name, one) for one in asked] == [one.turn.answer for one in asked]
    again = [one for own in rules.questions(task, count, "truth", cue) for one in own]
    assert asked == again != [one for own in rules.questions(task, count, "other", cue) for one in own]
    for one in asked:
        text, options = task.in_english(one)
        assert text.startswith("All objects are of the same size. ") == (cue == "size")
        assert "{" not in text and len(options) == len(one.turn.choices)
        assert len(one.shots) == COLUMNS[name].frames
        assert all(shot.scene.shadows == (cue in ("shadow", "naive")) for shot in one.shots)
    if task.kind == "choice" and COLUMNS[name].twins and len(asked[0].turn.choices) == 2:
        firsts = Counter(one.turn.choices.index(one.turn.answer) for one in asked)
        assert firsts[0] == firsts[1]


def test_the_registry_has_every_task() -> None:
    assert list(TASKS) == list(registry.SOLID) and list(motion.TASKS) == list(registry.MOTION)


@pytest.mark.parametrize("name", ALL)
def test_shortcuts_score_what_they_are_known_to(name: str) -> None:
    count = 30 if name in SLOW else 200
    task = ALL[name]
    asked = [one for own in rules.questions(task, count, "asked") for one in own]
    found = rules.shortcuts(task, asked, learned=count, cues=True)
    assert {*rules.SHORTCUTS[name]} < {*found}
    for rule, (_, bound, cue, _) in rules.SHORTCUTS[name].items():
        if bound is not None:
            assert found[rule] <= bound + ERRORS * sqrt(0.25 / len(asked)), rule
        if cue:
            assert found[rule] >= 0.99, rule


@pytest.mark.parametrize("sighted", [True, False])
def test_the_way_an_object_is_seen_to_face_says_nothing_about_where_another_is(sighted: bool) -> None:
    """Directions from the first to the second, to its line of sight: all alike only where they are drawn so."""
    rng, eye, count = Random(4), Camera(), 20_000
    angles = []
    for _ in range(count):
        (first, _), angle = couple(rng, eye, sighted)
        own = see(first, eye)
        angles.append(angle - np.degrees(np.arctan2(own.y - eye.eye[0], own.x)))
    uneven = max(abs(np.exp(1j * k * np.radians(angles)).mean()) for k in (1, 2))
    assert (uneven < 4 * sqrt(0.5 / count)) == sighted


def test_the_bounds_are_those_of_linear_programmes() -> None:
    """The most that one place says, least over all weights of pairs: the formulas of `rules`."""
    from scipy.optimize import linprog

    for steps in (4, 6, 8):
        pairs = [(a, b) for a in range(steps) for b in range(steps) if abs(a - b) == 1]
        above = np.zeros((4 * steps, len(pairs) + 2 * steps))  # a rule sees the one or the other, by a coin
        for number, (a, b) in enumerate(pairs):
            above[4 * a + (a < b), number] = above[4 * b + 2 + (a < b), number] = 1
        for row in range(4 * steps):
            above[row, len(pairs) + row // 2] = -1
        cost = np.repeat([0.0, 0.5], [len(pairs), 2 * steps])
        found = linprog(cost, above, np.zeros(4 * steps), [np.repeat([1.0, 0.0], [len(pairs), 2 * steps])], [1])
        assert found.fun == pytest.approx(rules.lattice(steps))
    assert rules.line(0.7, 0.7) == pytest.approx(0.5 + 0.7 / (2 * 4.3))


@pytest.mark.parametrize("name", [name for name, column in registry.SOLID.items() if "none" in column.cues])
def test_without_a_cue_twins_are_the_same_picture(name: str) -> None:
    clusters = rules.questions(TASKS[name], 40, "none", "none")
    with_shadows = rules.questions(TASKS[name], 40, "none", "shadow")
    differ = []
    for own, shaded in zip(clusters, with_shadows, strict=True):
        assert len({one.turn.answer for one in own}) == len(own)
        bare, dark = (render([one.shots[0] for one in each], 32) for each in (own, shaded))
        objects = (dark.ids[1:] != dark.ids[0]).mean()
        differ.append(
            [(abs(each.rgb[1:] - each.rgb[0].astype(int)) > 1).any(-1).mean() for each in (bare, dark)] + [objects]
        )
        assert differ[-1][1] > 5e-3
    bare, _, objects = np.mean(differ, 0)
    assert bare <= 1e-4 and objects <= 1e-4  # samples on an edge, in single precision


@pytest.mark.parametrize("name", [name for name, column in registry.SOLID.items() if "none" in column.cues])
def test_without_a_cue_no_shortcut_beats_chance(name: str) -> None:
    asked = [one for own in rules.questions(TASKS[name], 200, "control", "none") for one in own]
    found = rules.shortcuts(TASKS[name], asked, "none", 200)
    chance = registry.SOLID[name].chance or 0.0
    assert "lower in the picture" in found or len(found) >= 3
    assert max(found.values()) <= chance + ERRORS * sqrt(0.25 / len(asked))


def test_naive_scenes_are_answered_by_what_is_seen() -> None:
    asked = [one for own in rules.questions(TASKS["nearer"], 200, "asked", "naive") for one in own]
    found = rules.shortcuts(TASKS["nearer"], asked, "naive", 200)
    assert found["lower in the picture"] > 0.85 and found["larger in the picture"] > 0.6


def test_what_is_asked_about_is_seen() -> None:
    for name, task in ALL.items():
        for one in (each for own in rules.questions(task, 3, "seen") for each in own):
            picture = render(one.shots, 96, samples=1)
            for colour in named(one.turn.prompt):
                place = [own.colour for own in one.shots[0].scene.solids].index(colour)
                seen, alone = int((picture.ids[0] == place).sum()), picture.hits[0][place]
                assert seen >= 8, name
                nose = one.shots[0].find(colour).nose  # which is counted apart
                assert seen >= (0.35 if name == "hidden_by" else 0.6 if nose else 0.8) * alone, name


def test_no_scene_that_fits_is_one_line() -> None:
    class Impossible(Nearer):
        def draw(self, rng: Random, answer: str, cue: str) -> None:
            return None

    with pytest.raises(UserError, match=r"^no scene fits nearer \(shadow\) in 2,000 draws; "):
        Impossible().build(Random(0), "first")
    assert until(lambda: 1, "one") == 1
