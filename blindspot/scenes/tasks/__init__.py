"""The registry of tasks. A new task is one class and one line here."""

from blindspot.scenes.tasks.attributes import (
    ChooseShape,
    ChooseSide,
    Compare,
    Exists,
    Logical,
    QueryColour,
    QueryShape,
)
from blindspot.scenes.tasks.base import Item, Task, Turn
from blindspot.scenes.tasks.counting import CountCrowd, CountKind, CountObjects, CountRelated
from blindspot.scenes.tasks.pairs import SwappedColours, SwappedPlaces
from blindspot.scenes.tasks.places import Box, Locate, Recognise
from blindspot.scenes.tasks.relations import Direction, MapHeading, Statement

TASKS: tuple[Task, ...] = (
    SwappedPlaces(),
    SwappedColours(),
    Direction(),
    CountObjects(),
    CountKind(),
    CountRelated(),
    ChooseSide(),
    ChooseShape(),
    Compare(),
    Logical(),
    QueryShape(),
    QueryColour(),
    Exists(),
    Statement(),
    Recognise(),
    Locate(),
    MapHeading(),
    CountCrowd(),
    Box(),
)

__all__ = ["TASKS", "Item", "Task", "Turn"]
