"""Consistency on models that are right everywhere, on one axis, or never look."""

from typing import Any

import numpy as np
import pytest

from blindspot.diagnostics.base import Budget, Findings
from blindspot.diagnostics.consistency.run import run
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, answer_map
from tests.diagnostics.known import rows
from tests.diagnostics.wired_reader import wired_subject

pytestmark = pytest.mark.usefixtures("one_thread")


def _run(subject: HookedVLM) -> Findings:
    told: list[tuple[int, int]] = []
    found = run(subject, Budget(stimuli=16), lambda done, of: told.append((done, of)))
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    return found


def _by(found: Findings, table: str, label: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row[label], row["measure"]): row for row in rows(found, table)}


def test_answers_turn_as_the_square_does() -> None:
    maps = {name: [answer_map(move)[side] for side in ("left", "below", "right", "above")]
            for name, move in SYMMETRIES.items()}  # fmt: skip
    assert maps == {
        "original": ["left", "below", "right", "above"],
        "turned 90": ["below", "right", "above", "left"],
        "turned 180": ["right", "above", "left", "below"],
        "turned 270": ["above", "left", "below", "right"],
        "mirrored": ["right", "below", "left", "above"],
        "flipped": ["left", "above", "right", "below"],
        "transposed": ["above", "right", "below", "left"],
        "anti-transposed": ["below", "left", "above", "right"],
    }


@pytest.mark.parametrize("route", ["ids", "encoder"])
def test_who_knows_places_is_consistent_in_everything(route: Any) -> None:
    found = _run(wired_subject(down=route, across=route))
    for table, label in (("symmetries", "symmetry"), ("together", "set")):
        for key, row in _by(found, table, label).items():
            assert (row["value"], row["n"]) == (1, 16), key
            assert row["low"] < 1 <= row["high"]
    assert all(row["value"] == 1 for row in rows(found, "flips"))


def test_who_never_looks_says_one_thing() -> None:
    """Always "left", and yes to everything: right in a quarter, never consistent where answers must turn."""
    found = _run(wired_subject(down="nothing", across="nothing", always_yes=True))
    alone, sets = _by(found, "symmetries", "symmetry"), _by(found, "together", "set")
    assert alone["all", "accuracy"]["value"] == 0.25
    assert alone["flipped", "agreement"]["value"] == 1
    for name in set(SYMMETRIES) - {"original", "flipped"}:
        assert alone[name, "agreement"]["value"] == 0
    assert alone["all", "agreement"]["value"] == pytest.approx(1 / 7)
    for name in ("eight symmetries", "four turns", "objects exchanged", "asked the other way round"):
        assert (sets[name, "fit"]["value"], sets[name, "all right"]["value"]) == (0, 0)
    assert (sets["inverse statements", "fit"]["value"], sets["opposite statements", "fit"]["value"]) == (1, 0)
    assert sets["inverse statements", "all right"]["value"] == 0.25
    assert sets["four statements", "fit"]["value"] == 0


def test_who_never_affirms_contradicts_itself_only_by_denying_all() -> None:
    sets = _by(_run(wired_subject(down="nothing", across="nothing")), "together", "set")
    assert (sets["inverse statements", "fit"]["value"], sets["opposite statements", "fit"]["value"]) == (1, 1)
    assert (sets["four statements", "fit"]["value"], sets["four statements", "all right"]["value"]) == (0, 0)


def test_who_knows_rows_only_is_right_in_half_and_in_no_whole_set() -> None:
    found = _run(wired_subject(down="ids", across="nothing"))
    alone, sets = _by(found, "symmetries", "symmetry"), _by(found, "together", "set")
    assert 0.5 <= alone["all", "accuracy"]["value"] <= 0.75  # "left" where the rows are equal
    assert sets["eight symmetries", "all right"]["value"] == 0
    assert sets["four turns", "fit"]["value"] < 0.2
    assert 0.2 < sets["objects exchanged", "all right"]["value"] < 0.8


def test_example_pictures_are_the_eight_of_a_scene() -> None:
    found = _run(wired_subject(down="ids", across="ids"))
    shown = found.pictures["examples"]
    assert shown.shape == (2, 8, 128, 128, 3)
    mean_centre = [_centre(picture) for picture in shown[0]]
    assert np.allclose(mean_centre[0], mean_centre[4] * (1, -1), atol=0.15), "mirrored: columns change sign"
    assert [row["symmetry"] for row in rows(found, "flips")] == list(SYMMETRIES) * 2


def _centre(picture: np.ndarray) -> np.ndarray:
    weight = np.ptp(picture.astype(float), axis=-1)
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    return np.array([(weight * rows).sum(), (weight * columns).sum()]) / weight.sum()
