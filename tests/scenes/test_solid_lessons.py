"""What the worlds that models are trained on have in common."""

from collections import Counter

import pytest

from blindspot.scenes.solid.registry import CUES, TAUGHT
from blindspot.studies.corpus import SOLIDS
from blindspot.studies.relatives import relatives


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("solid", [*(f"nearer_{cue}" for cue in CUES), "foot", "cell", "shape"]),
        ("motion", ["first", "moved", "first_shuffled", "cell", "shape"]),
        ("views", ["for_whom", "for_camera", "from_side", "facing", "foot", "cell", "shape"]),
    ],
)
def test_questions_come_alike_from_one_seed_and_others_from_another_name(source: str, columns: list[str]) -> None:
    world = SOLIDS[source]
    asked, again, other = (world.questions(name, 6, 0, "shadow") for name in ("test", "test", "probe"))
    assert (asked.shown, asked.questions) == (again.shown, again.questions)
    assert not {shot for shots in asked.shown for shot in shots} & {shot for shots in other.shown for shot in shots}
    assert Counter(one.benchmark for one in asked.questions) == dict.fromkeys(columns, 6)
    assert [one.images for one in asked.questions] == [(place,) for place in range(len(asked.shown))]
    answers = Counter((one.groups["cluster"], one.answer) for one in asked.questions if one.benchmark == columns[0])
    assert len(answers) == 6 and set(answers.values()) == {1}, "twins have different answers"


def test_every_world_has_its_columns_in_the_tables() -> None:
    assert tuple(SOLIDS) == TAUGHT
    for source, world in SOLIDS.items():
        asked = world.questions("test", 2, 0, "shadow").by_column()
        assert asked.keys() == {column["id"] for column in relatives(source, "shadow")}
