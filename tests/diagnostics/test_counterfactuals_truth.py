"""Counterfactuals on models whose answers follow a known factor."""

from typing import Any

import numpy as np
import pytest

from blindspot.connectors import ConnectorSpec
from blindspot.diagnostics.base import Budget, Findings
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, claimed, order, rearranged, shuffle
from blindspot.diagnostics.core.stimuli import directions
from blindspot.diagnostics.counterfactuals.run import (
    EXAMPLES,
    MOVES,
    Arrangement,
    accuracy,
    ask,
    claims,
    moves_of,
    run,
)
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.scenes.render import render
from blindspot.scenes.world import CELLS, Scene
from tests.diagnostics.known import random_subject
from tests.diagnostics.wired_reader import wired_subject

pytestmark = pytest.mark.usefixtures("one_thread")
BARE = EncoderPositions("learned", table="replace")
POOLED = "mirrored or flipped"


def _run(subject: HookedVLM, stimuli: int = 32) -> Findings:
    return run(subject, Budget(stimuli=stimuli), lambda done, of: None)


def _shares(found: Findings) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["factor"], row["move"]): row for row in found.tables[0].rows}


def _factorial(found: Findings) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["content"], row["ids"], row["encoder"]): row for row in found.tables[1].rows}


@pytest.mark.parametrize(
    ("route", "factor"), [("ids", "language ids"), ("encoder", "encoder positions"), ("order", "order of tokens")]
)
def test_answers_follow_the_one_factor_that_a_model_reads(route: Any, factor: str) -> None:
    found = _run(wired_subject(down=route, across=route))
    for (name, move), row in _shares(found).items():
        assert row["n"] > 0
        assert row["value"] == float(name in ("content", factor)), (name, move)
        assert row["unchanged"] == 1 - row["value"]
        assert row["elsewhere"] in (1, None)
    for (content, ids, encoder), row in _factorial(found).items():
        label = {"ids": ids, "encoder": encoder, "order": "original"}[route]
        if label == "original":
            assert row["value"] == 1
        elif label in ("constant", "zero"):
            assert content == "shuffled" or row["value"] == 0.25, "without places it gives one answer"
        else:
            assert row["by ids" if route == "ids" else "by encoder"] == 1
            assert row["value"] < 0.7


def test_each_axis_has_a_route_of_its_own() -> None:
    shares = _shares(_run(wired_subject(down="ids", across="encoder")))
    for factor, move in (("language ids", "flipped"), ("encoder positions", "mirrored")):
        assert shares[factor, move]["value"] == 1
        assert shares[factor, move]["elsewhere"] == 1
    for factor, move in (("language ids", "mirrored"), ("encoder positions", "flipped")):
        assert (shares[factor, move]["value"], shares[factor, move]["unchanged"]) == (0, 1)
    for factor in ("language ids", "encoder positions"):
        assert 0.3 < shares[factor, POOLED]["value"] < 0.7
    assert shares["order of tokens", POOLED]["value"] == 0


def test_a_model_without_any_place_follows_nothing() -> None:
    """No encoder positions, one id for all image tokens, one layer: the last token reads a bag of patches."""
    bag = random_subject(BARE, LanguagePositions("bapa"), layers=1, spread=0.5)
    shares = _shares(_run(bag))
    assert {factor for factor, _ in shares} == {"content", "language ids", "encoder positions", "order of tokens"}
    assert sum(row["n"] for row in shares.values()) > 0
    for row in shares.values():
        assert row["n"] == 0 or (row["value"], row["unchanged"], row["elsewhere"]) in ((0, 1, 1), (0, 1, None))


def _answers(subject: HookedVLM, *arranged: Arrangement) -> list[list[int]]:
    stimuli = directions(64, 0, subject.speech)
    given = ask(subject, stimuli, list(arranged), moves_of(0), Budget(), lambda done, of: None)
    return [given[one].tolist() for one in arranged]


def test_what_a_model_lacks_moves_no_answer() -> None:
    bare = _answers(
        random_subject(BARE, spread=0.5), Arrangement(), Arrangement(encoder="mirrored"), Arrangement(encoder="zero"),
        Arrangement(ids="mirrored"),
    )  # fmt: skip
    assert bare[0] == bare[1] == bare[2] != bare[3]
    shared = _answers(
        random_subject(language_positions=LanguagePositions("bapa"), spread=0.5), Arrangement(),
        Arrangement(ids="transposed"), Arrangement(ids="constant"), Arrangement(encoder="shuffled"),
    )  # fmt: skip
    assert shared[0] == shared[1] == shared[2] != shared[3]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(
    ("label", "positions"),
    [("ids", {"positions": BARE}), ("encoder", {"language_positions": LanguagePositions("bapa")})],
)
def test_in_one_layer_content_and_its_only_label_move_alike(label: str, positions: dict[str, Any], move: str) -> None:
    """Without encoder positions an id is all that a token has of a place, so moving both is moving neither."""
    alone, both = Arrangement(content=move), Arrangement(content=move, **{label: move})
    arranged = (Arrangement(), both, alone, Arrangement(**{label: move}))
    start, both, content, moved = _answers(random_subject(layers=1, spread=0.7, **positions), *arranged)
    assert start == both != content == moved


def test_a_factor_that_cannot_be_moved_is_left_out_and_said() -> None:
    resampled = random_subject(connector=ConnectorSpec(name="resampler", tokens=4))
    found = _run(resampled, 16)
    assert {factor for factor, _ in _shares(found)} == {"content", "encoder positions"}
    assert {row["ids"] for row in found.tables[1].rows} == {"original"}
    assert any("Left out, ids" in note for note in found.tables[0].notes)
    computed = _run(random_subject(family="dinov3"), 16)
    assert {factor for factor, _ in _shares(computed)} == {"content", "language ids"}
    assert any("Left out, encoder" in note for note in computed.tables[1].notes)


@pytest.mark.filterwarnings("error")
def test_pictures_that_all_come_to_lie_on_a_diagonal_have_no_accuracy() -> None:
    moves = moves_of(0)
    lost = [s for s in directions(64, 0, "words") if claims([s], moves["shuffled"])[0] < 0]
    [row] = accuracy(lost, {Arrangement(content="shuffled"): np.zeros(len(lost))}, moves)
    assert (row["value"], row["low"], row["n"], row["by ids"]) == (None, None, 0, None)


def test_example_pictures_are_the_ones_that_the_rows_are_about() -> None:
    found = _run(wired_subject(down="ids", across="ids"), 16)
    shown, rows = found.pictures["examples"], found.tables[2].rows
    assert shown.shape == (EXAMPLES, 1 + len(MOVES), 128, 128, 3)
    assert shown.dtype == np.uint8
    assert {(row["picture"], row["drawn"]) for row in rows} == set(np.ndindex(*shown.shape[:2]))
    for row in rows:
        assert row["value"] == (row["answer"] == row["right"])
    kept = [row for row in rows if (row["content"], row["ids"], row["encoder"]) == ("original",) * 3]
    assert [row["right"] in ("left", "right") for row in kept] == [True] * 3 + [False] * 3
    assert not np.array_equal(shown[:, 0], shown[:, 1])


def test_moves_undo_themselves_and_carry_cells_whole() -> None:
    moves = [*(SYMMETRIES[name] for name in MOVES[:-1]), shuffle(3)]
    assert {shuffle(3)(cell, 4) for cell in CELLS} == set(CELLS)
    assert all(shuffle(3)(cell, 4) != cell for cell in CELLS)
    for move in moves:
        for side in (4, 12, 24):
            order_n = order(move, side)
            assert order_n[order_n].tolist() == list(range(side * side))
        fine = order(move, 12).view(4, 3, 4, 3)
        assert (fine[:, 1, :, 1] // 12 // 3 * 4 + fine[:, 1, :, 1] % 12 // 3).flatten().tolist() == order(
            move, 4
        ).tolist()
        for stimulus in directions(8, 0, "words"):
            moved = rearranged(stimulus.scene, move)
            assert claimed(moved) == claimed(stimulus.scene, move)
            patches = [_patches(scene) for scene in (stimulus.scene, moved)]
            assert np.array_equal(patches[0], patches[1][order(move, 4).numpy()])


def _patches(scene: Scene) -> np.ndarray:
    return render(scene).reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1)
