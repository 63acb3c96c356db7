"""Behaviour of answerers whose every answer is known: the tables must say what they do, and nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from blindspot.diagnostics.base import Budget, Findings
from blindspot.diagnostics.behaviour.run import run, shown, transposed
from blindspot.diagnostics.core import stimuli as draw
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared, Trace
from blindspot.diagnostics.core.stimuli import Stimulus
from blindspot.scenes.relations import RELATIONS
from tests.diagnostics.known import random_subject, rows

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGET = Budget(stimuli=64)
Answer = Callable[[Stimulus, bool], int]


def truth(stimulus: Stimulus) -> int:
    return stimulus.choices.index(stimulus.answer)


def wrong(stimulus: Stimulus) -> int:
    return (truth(stimulus) + 1) % len(stimulus.choices)


def behaviour(answer: Answer) -> Findings:
    """Of an answerer that is given each stimulus and whether its own picture is shown."""
    subject = random_subject()

    def prepare(stimuli: Sequence[Stimulus], pictures: Sequence[Any] | None = None) -> Prepared:
        own = [stimulus.image(subject.side) for stimulus in stimuli]
        seen = [np.array_equal(a, b) for a, b in zip(own, pictures or own, strict=True)]
        none = torch.zeros(len(stimuli), 1)
        choices = torch.zeros(len(stimuli), len(stimuli[0].choices))
        return Prepared(list(stimuli), {"own": torch.tensor(seen)}, none, choices, {})

    def answered(prepared: Prepared) -> Trace:
        seen = prepared.inputs["own"].tolist()
        chosen = [answer(stimulus, own) for stimulus, own in zip(prepared.stimuli, seen, strict=True)]
        logits_bk = torch.nn.functional.one_hot(torch.tensor(chosen), prepared.choice_ids_bk.shape[1]).float()
        return Trace(logits_bk, {}, torch.ones(()))

    holder: Any = subject
    holder.prepare, holder.run = prepare, answered
    return run(subject, BUDGET, lambda done, of: None)


def values(found: Findings, name: str, key: str, **labels: Any) -> dict[Any, float]:
    return {row[key]: row["value"] for row in rows(found, name, **labels)}


@pytest.fixture(scope="module")
def one_column() -> Findings:
    """Sees, but not a subject in column 2; without its picture says the first answer."""

    def answer(stimulus: Stimulus, own: bool) -> int:
        if not own:
            return 0
        lost = "subject" in stimulus.mentions and stimulus.subject.cell[1] == 2
        return wrong(stimulus) if lost else truth(stimulus)

    return behaviour(answer)


@pytest.mark.parametrize("task", ["direction", "statement", "existence"])
def test_an_answerer_that_errs_in_one_column_gives_that_map(one_column: Findings, task: str) -> None:
    for row in rows(one_column, "cells", task=task, object="subject"):
        assert row["n"] == 0 or row["value"] == (row["column"] != 2)
    [spread] = rows(one_column, "spread", task=task, object="subject")
    assert spread["value"] == 1 and spread["p"] == 0.001


def test_cells_are_counted_once_each(one_column: Findings) -> None:
    for task in ("direction", "statement"):
        for role in ("subject", "reference"):
            assert sum(row["n"] for row in rows(one_column, "cells", task=task, object=role)) == 4 * BUDGET.stimuli
    alone = rows(one_column, "cells", task="existence")
    assert sum(row["n"] for row in alone) == 4 * BUDGET.stimuli / 2


def test_an_answerer_without_its_picture_is_at_chance(one_column: Findings) -> None:
    for row in rows(one_column, "conditions"):
        if row["condition"] != "as it is":
            assert row["value"] == row["chance"]  # it says the first answer, and answers are balanced
            assert row["low"] < row["chance"] < row["high"]
            assert row["difference_high"] < 0 and row["p"] < 0.05
    perfect = {row["task"]: row for row in rows(one_column, "conditions", condition="as it is")}
    assert perfect["count"]["value"] == 1
    assert perfect["direction"]["difference"] == 0


def test_one_axis_is_told_from_the_other() -> None:
    blind_to_rows = behaviour(lambda stimulus, own: truth(stimulus) if stimulus.answer in RELATIONS[:2] else 0)
    shares = {row["axis"]: row for row in rows(blind_to_rows, "axes", measure="of four")}
    assert (shares["left, right"]["value"], shares["above, below"]["value"]) == (1, 0)
    assert shares["difference"]["value"] == 1 and shares["difference"]["low"] > 0.8
    two = values(blind_to_rows, "axes", "axis", measure="of two")
    assert two == {"left, right": 1, "above, below": 0.5, "difference": 0.5}
    even = behaviour(lambda stimulus, own: truth(stimulus))
    for row in rows(even, "axes", axis="difference"):
        assert row["value"] == 0 and row["low"] < 0 < row["high"]
    assert all(row["value"] == 0 and row["p"] == 1 for row in rows(even, "spread"))


def test_a_preferred_answer_is_not_taken_for_a_place_a_distance_or_an_axis() -> None:
    """Right answers depend on the place, so its accuracy does too; what is beyond the answer does not."""
    found = behaviour(lambda stimulus, own: 0)
    assert len({row["value"] for row in rows(found, "cells", task="direction", object="subject")}) > 2
    for row in [*rows(found, "cells"), *rows(found, "factors")]:
        assert row["beyond"] in (None, 0)
        assert row["n"] == 0 or row["beyond_low"] == pytest.approx(0, abs=1e-9) == row["beyond_high"]
    assert all(row["p"] == 1 for row in rows(found, "spread"))
    assert values(found, "axes", "axis", measure="of four")["difference"] == 0.5
    assert values(found, "axes", "axis", measure="of two")["left, right"] == 0.5


def test_transposed_pictures_ask_about_the_other_axis_and_back() -> None:
    turned = {"left": "above", "above": "left", "right": "below", "below": "right"}
    for stimulus in draw.directions(16, 0, "words"):
        other = transposed(stimulus, "words")
        assert other.answer == turned[stimulus.answer]
        assert other.mentions == stimulus.mentions
        assert [thing.size for thing in other.scene.things] == [thing.size for thing in stimulus.scene.things]
        assert transposed(other, "words").answer == stimulus.answer


def test_counts_that_are_one_too_many_are_confused_with_the_next() -> None:
    found = behaviour(lambda stimulus, own: min(truth(stimulus) + 1, len(stimulus.choices) - 1))
    confused = {(row["truth"], row["answer"]): row["value"] for row in rows(found, "counts")}
    assert {pair for pair, value in confused.items() if value == 1} == {(2, 3), (3, 4), (4, 5), (5, 5)}
    assert sum(confused.values()) == 4
    assert values(found, "answers", "answer", task="count", measure="given") == {"2": 0, "3": 0.25, "4": 0.25, "5": 0.5}


def test_far_and_large_objects_can_be_told_from_near_and_small() -> None:
    def near(stimulus: Stimulus, own: bool) -> int:
        if "reference" not in stimulus.mentions:
            return truth(stimulus) if stimulus.subject.size == 8 else wrong(stimulus)
        (row, column), (other_row, other_column) = stimulus.subject.cell, stimulus.reference.cell
        return truth(stimulus) if max(abs(row - other_row), abs(column - other_column)) == 1 else wrong(stimulus)

    found = behaviour(near)
    for task in ("direction", "statement"):
        assert values(found, "factors", "level", task=task, factor="distance") == {1: 1, 2: 0, 3: 0}
    assert values(found, "factors", "level", task="existence", factor="size") == {6: 0, 7: 0, 8: 1}


def test_every_picture_is_shown_once_at_another_question() -> None:
    stimuli = draw.directions(24, 0, "words")
    own = [stimulus.image(32) for stimulus in stimuli]
    other = shown("mismatched", stimuli, 32, 0)
    assert not any(np.array_equal(a, b) for a, b in zip(own, other, strict=True))
    assert sorted(picture.tobytes() for picture in own) == sorted(picture.tobytes() for picture in other)


def test_a_real_reader_of_random_weights_is_near_chance() -> None:
    subject: HookedVLM = random_subject()
    told: list[tuple[int, int]] = []
    found = run(subject, Budget(stimuli=32), lambda done, of: told.append((done, of)))
    assert told == [(k, 5) for k in range(1, 6)]
    for row in rows(found, "conditions"):
        assert abs(row["value"] - row["chance"]) < 0.3
        assert row["low"] <= row["value"] <= row["high"]
