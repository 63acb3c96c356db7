"""What a model trained from nothing is shown and asked of films: three pictures of two objects.

Each film is drawn by a task of motion, so that no picture of it alone says who moved `first` or which way something
`moved`, and the last says nothing about what comes `next`. Of each object it is also asked where it is in each picture
and when it moved.
"""

from collections.abc import Sequence
from random import Random

from blindspot.scenes.solid import rules
from blindspot.scenes.solid.lessons import Asked, Lesson, Told, blind, one
from blindspot.scenes.solid.motion import TASKS
from blindspot.scenes.solid.tasks import SolidExample
from blindspot.scenes.solid.world import SHAPES, SeenSolid, Shot, see
from blindspot.scenes.tasks import Turn
from blindspot.scenes.text import place_word
from blindspot.scenes.world import COLOURS

FILMS = ("first", "moved", "next")
"""The tasks whose films are shown, `first` twice as often as the others, and asked with both objects named first."""
MOMENTS = ("at-first", "between", "at-last")
WHEN = {(True, False): "early", (False, True): "late", (True, True): "always", (False, False): "never"}
"""Whether an object moved before the second picture, and after it."""
SIDE = 8
"""Cells along a side of the picture."""
CELLS = tuple(place_word((row, column)) for row in range(SIDE) for column in range(SIDE))
ABOUT = {"cell": CELLS, "when": (*WHEN.values(),), "shape": SHAPES}
"""What is asked of one object: the answers."""


def words() -> tuple[str, ...]:
    """Every word of its texts and questions."""
    said = "shape of colour cell when then first or moved left-or-right next left right"
    return (*COLOURS, *SHAPES, *said.split(), *MOMENTS, *WHEN.values(), *CELLS)


def lesson(rng: Random, _cue: str) -> Lesson:
    """A film, and everything that is asked about it, in random order."""
    task = TASKS[rng.choice((FILMS[0], *FILMS))]
    shots, turn = three(rng, rng.choice(task.build(rng, rng.choice(task.answers))))
    told, noticed = [], False
    for own in shots[0].scene.solids:
        cells = [_cell(see(shot.find(own.colour), shot.camera)) for shot in shots]
        places = [shot.find(own.colour)[2:4] for shot in shots]
        really, in_words = ((each[0] != each[1], each[1] != each[2]) for each in (places, cells))
        noticed |= {"first": any(in_words), "moved": cells[0][0] != cells[-1][0]}.get(task.name, False)
        told += [Told(Turn(f"shape of {own.colour}", own.shape)), Told(Turn(f"colour of {own.shape}", own.colour))]
        told += [Told(Turn(f"cell of {own.colour} {at}", cell)) for at, cell in zip(MOMENTS, cells, strict=True)]
        told.append(Told(Turn(f"when {own.colour} moved", WHEN[really]), really == in_words))
    told.append(Told(turn, noticed))
    if task.name == "first":
        told.append(Told(task.turn(shots[0].scene.solids[::-1], turn.answer), noticed))
    return Lesson(shots, rng.sample(told, len(told)))


def three(rng: Random, film: SolidExample) -> SolidExample:
    """A film of three pictures; one of two stands still before or after what it shows."""
    if len(film.shots) == len(MOMENTS):
        return film
    first, last = film.shots
    return film._replace(shots=(first, rng.choice((first, last)), last))


def _cell(own: SeenSolid) -> str:
    """Where in the picture an object's centre is."""
    row, column = (min(SIDE - 1, max(0, int(SIDE * (at + 1) / 2))) for at in (own.v, own.u))
    return place_word((row, column))


def describe(shots: Sequence[Shot], rng: Random, places: bool) -> str:
    """The pictures in order, of each its objects in random order, with ``places`` the cell of each too."""
    frames = []
    for shot in shots:
        solids = rng.sample(shot.scene.solids, len(shot.scene.solids))
        cells = [f" {_cell(see(own, shot.camera))}" * places for own in solids]
        frames.append(" ".join(f"{own.colour} {own.shape}{cell}" for own, cell in zip(solids, cells, strict=True)))
    return " then ".join(frames)


def questions(name: str, per_column: int, seed: int, _cue: str) -> Asked:
    """Questions of a split: of twins those of each task, who moved first also with the pictures in random order, and
    what else was trained."""
    found = Asked(name)
    for column in (*FILMS, "first_shuffled"):
        task, rng = TASKS[column.removesuffix("_shuffled")], Random(f"{name}/{seed}/{column}/order")
        for place, twins in enumerate(rules.questions(task, per_column, f"{name}/{seed}/{column}")):
            for film in twins:
                shots, turn = three(rng, film)
                shots = tuple(rng.sample(shots, len(shots))) if column != task.name else shots
                found.ask(column, place, "choice", SolidExample(shots, turn))
    for about, answers in ABOUT.items():
        rng = Random(f"{name}/{seed}/{about}")
        for place in range(per_column):
            shots, turn = one(lesson(rng, ""), about)
            found.ask(about, place, "text", SolidExample(shots, turn._replace(choices=answers)))
    return found


def baselines(asked: Asked, seed: int, _cue: str) -> dict[str, dict[str, float]]:
    """What shortcuts score on the questions, by column."""
    found = {}
    for column, own in asked.by_column().items():
        if column in ABOUT:
            rng = Random(f"rules/{seed}/{column}")
            found[column] = blind(own, [one(lesson(rng, ""), column) for _ in range(4 * len(own))])
        else:
            task = TASKS[column.removesuffix("_shuffled")]
            drawn = [each._replace(shots=each.shots[:: 2 if task.name == "moved" else 1]) for each in own]
            found[column] = rules.shortcuts(task, drawn, learned=4 * len(own))
    return found
