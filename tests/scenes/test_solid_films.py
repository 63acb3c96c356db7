"""What is trained on films: true of every picture, in known words, and of no use to who does not know their order."""

from collections import Counter
from math import sqrt
from random import Random

import pytest

from blindspot.scenes.solid import films
from blindspot.scenes.solid.films import Films
from blindspot.scenes.solid.lessons import Lesson
from blindspot.scenes.solid.world import Shot, Solid, see

DRAWN = 400
FILMS = Films()


@pytest.fixture(scope="module")
def shown() -> list[Lesson]:
    rng = Random(7)
    return [FILMS.lesson(rng, "") for _ in range(DRAWN)]


def across(shots: tuple[Shot, ...], colour: str) -> list[float]:
    return [see(shot.find(colour), shot.camera).u for shot in shots]


def still(before: Shot, after: Shot, colour: str) -> bool:
    a, b = before.find(colour), after.find(colour)
    return (a.x, a.y) == (b.x, b.y)


def test_turns_are_true_of_every_picture(shown: list[Lesson]) -> None:
    counted: Counter[str] = Counter()
    for shots, told in shown:
        first, middle, last = shots
        shape = {solid.colour: solid.shape for solid in first.scene.solids}
        for turn, _ in told:
            match turn.prompt.split():
                case ["first", a, "or", b]:
                    early = [each for each in (a, b) if not still(first, middle, each)]
                    assert early == [turn.answer] and still(middle, last, turn.answer)
                case [a, "moved", "left-or-right"]:
                    before, _, after = across(shots, a)
                    assert turn.answer == ("right" if after > before else "left")
                case ["when", a, "moved"]:
                    told_of = {"early": (0, 1), "late": (1, 0), "always": (0, 0), "never": (1, 1)}[turn.answer]
                    assert (still(first, middle, a), still(middle, last, a)) == told_of
                case ["cell", "of", a, moment]:
                    shot = shots[films.MOMENTS.index(moment)]
                    seen = see(shot.find(a), shot.camera)
                    column, row = "abcdefgh".index(turn.answer[0]), int(turn.answer[1])
                    assert -1 + column / 4 <= seen.u <= -0.75 + column / 4
                    assert -1.25 + row / 4 <= seen.v <= -1 + row / 4
                case ["shape", "of", a]:
                    assert turn.answer == shape[a]
                case words:
                    pytest.fail(f"an unknown turn: {words}")
            counted[" ".join(word for word in turn.prompt.split() if word not in {*shape, *shape.values()})] += 1
    assert all(counted[each] > DRAWN / 5 for each in ("first or", "moved left-or-right")), counted


def test_a_film_in_words_tells_what_is_asked_of_it(shown: list[Lesson]) -> None:
    rng = Random(0)
    for shots, told in shown:
        said = [text.split() for text in FILMS.describe(shots, rng, places=True).split(" then ")]
        cells = {solid.colour: [text[text.index(solid.colour) + 2] for text in said] for solid in shots[0].scene.solids}
        for turn, in_words in told:
            colours = [word for word in turn.prompt.split() if word in cells]
            if turn.prompt.startswith("when"):
                a, b, c = cells[colours[0]]
                assert in_words == (films.WHEN[a != b, b != c] == turn.answer)
            elif turn.prompt.startswith("first") and in_words:
                moves = {colour: (a != b, b != c) for colour, (a, b, c) in cells.items()}
                assert moves[turn.answer] != (False, True) and {*moves.values()} != {(False, False)}
            elif "moved" in turn.prompt and in_words:
                assert (turn.answer == "right") == (cells[colours[0]][-1] > cells[colours[0]][0])
    assert sum(told.in_words for _, own in shown for told in own) > 6 * DRAWN


def test_every_word_is_known_and_pictures_are_three(shown: list[Lesson]) -> None:
    words, rng = set(FILMS.words()), Random(1)
    for shots, told in shown:
        assert len(shots) == 3 and len({shot.camera for shot in shots}) == 1
        said = [FILMS.describe(shots, rng, places) for places in (True, False)]
        assert words >= {word for text in said for word in text.split()}
        assert words >= {word for turn, _ in told for word in f"{turn.prompt} {turn.answer}".split()}


def test_no_order_and_no_single_picture_tell_who_moved_first() -> None:
    asked = FILMS.questions("test", DRAWN, 3, "")
    examples, scores = asked.by_column(), FILMS.baselines(asked, 3, "")
    margin = 4 * 0.5 / sqrt(DRAWN)
    for column in ("first", "first_shuffled"):
        assert all(abs(score - 0.5) < margin for score in scores[column].values()), scores[column]

    def mover(shots: tuple[Shot, ...], a: Solid, b: Solid) -> str:
        return b.colour if still(shots[0], shots[1], a.colour) else a.colour

    right = Counter(
        {
            column: sum(mover(shots, *shots[0].scene.solids) == turn.answer for shots, turn in examples[column])
            for column in ("first", "first_shuffled")
        }
    )
    assert right["first"] == DRAWN, "who knows the order knows the answer"
    assert abs(right["first_shuffled"] / DRAWN - 0.5) < margin, "the control answers nobody"
    assert scores["moved"]["the last picture"] < 0.607 + margin
    assert scores["cell"]["blind rule"] < 0.1 + margin


def test_the_film_from_behind_has_the_other_answer() -> None:
    moved = FILMS.questions("test", 20, 1, "").by_column()["moved"]
    for (there, said), (back, other) in zip(moved[::2], moved[1::2], strict=True):
        assert (there[0], there[-1]) == (back[-1], back[0]) and said.answer != other.answer
        assert said.prompt == other.prompt
