"""Places read in a model: of one whose words know them, and of one whose words cannot."""

import numpy as np
import pytest
import torch

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core.stimuli import directions
from blindspot.diagnostics.probes.inner import InnerPlaces
from blindspot.diagnostics.probes.targets import middle
from blindspot.errors import UserError
from blindspot.scenes.world import CELL, Scene, Thing
from tests.diagnostics.known import random_subject
from tests.diagnostics.test_patching_truth import reader

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_place_that_a_word_knows_is_read_and_follows_the_object() -> None:
    with torch.no_grad():
        inner = InnerPlaces(reader(), Budget())
        assert inner.layer in (1, 2) and inner.error < 0.5, "the word finds the patch in the first layer"
        scene = Scene((Thing("red", "square", 0, 0, 6, 1, 1), Thing("blue", "circle", 3, 2, 6, 17, 25)), 30)
        before = inner(scene)
        moved = scene.things[0]._replace(row=2, column=3, x=25, y=17)
        after = inner(scene._replace(things=(moved, scene.things[1])))
    for found, thing in ((before, scene.things[0]), (before, scene.things[1]), (after, moved)):
        assert np.hypot(*np.subtract(found[thing], middle(thing)[::-1])) < CELL / 2


def test_a_model_without_places_reads_none() -> None:
    with torch.no_grad():
        inner = InnerPlaces(reader(places=0.0), Budget())
    truth = np.array([middle(stimulus.subject) for stimulus in directions(400, 1, "words")]) / CELL
    chance = np.linalg.norm(truth - truth.mean(axis=0), axis=1).mean()
    assert inner.error > 0.9 * chance


def test_an_object_that_no_word_tells_apart_is_left_out() -> None:
    inner = InnerPlaces(random_subject(spread=0.5), Budget())
    red, other, blue = (Thing(c, "square", n, n, 6, 8 * n, 8 * n) for n, c in enumerate(("red", "red", "blue")))
    assert inner(Scene((red, other, blue), 30)).keys() == {blue}
    for things in ((red,), (red, other)):
        with pytest.raises(UserError, match="another colour"):
            inner(Scene(things, 30))
