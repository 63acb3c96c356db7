"""One training sample and one test set of each split, drawn once."""

import pytest

from blindspot.question import Question
from blindspot.scenes.sampling import TrainingWorld, test_questions
from blindspot.scenes.tasks import Task, Turn
from blindspot.scenes.world import Scene

TURNS = 14
SCENES = 3000
PER_COLUMN = 2160  # of one, two or three tasks; divisible by their numbers of answers

Train = list[tuple[Scene, list[tuple[Task, Turn]]]]
Test = tuple[list[Scene], list[Question]]


@pytest.fixture(scope="session")
def train() -> Train:
    world = TrainingWorld(1, TURNS)
    return [world.draw() for _ in range(SCENES)]


@pytest.fixture(scope="session")
def iid() -> Test:
    return test_questions("iid", PER_COLUMN, 5)


@pytest.fixture(scope="session")
def compositional() -> Test:
    return test_questions("compositional", PER_COLUMN, 5)
