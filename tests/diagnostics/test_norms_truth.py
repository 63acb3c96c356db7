"""Norms that are known, and readers that are blind to order by construction."""

from typing import Any

import numpy as np
import pytest
import torch

from blindspot.connectors import ConnectorSpec
from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core import stimuli as draw
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.norms.run import ENTRY, index, matched, permuted, run
from blindspot.positions import LanguagePositions
from tests.diagnostics.known import image_span, random_subject

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGET = Budget(stimuli=32)


def tables(subject: HookedVLM) -> dict[str, list[dict[str, Any]]]:
    return {table.name: table.rows for table in run(subject, BUDGET, lambda done, of: None).tables}


def test_twice_the_connector_is_twice_the_norm() -> None:
    subject = random_subject()
    before = tables(subject)["norms"][0]
    last = subject.model.model.multi_modal_projector.linear_2
    with torch.no_grad():
        last.weight *= 2
        last.bias *= 2
    after = tables(subject)["norms"][0]
    assert after["value"] == pytest.approx(2 * before["value"], rel=1e-4)
    assert after["text"] == pytest.approx(before["text"])
    assert before["low"] < before["value"] < before["high"]


@pytest.mark.parametrize(
    "options",
    [
        {"language_positions": LanguagePositions("bapa"), "layers": 1},
        {"connector": ConnectorSpec(name="qformer", tokens=1)},
    ],
)
def test_a_reader_without_order_has_index_zero(options: dict[str, Any]) -> None:
    """One layer over tokens of one place sees a set; one token has no order."""
    for row in tables(random_subject(**options))["permutation"]:
        assert row["value"] in (0.0, None)


def test_the_permutation_moves_image_tokens_alone_and_keeps_them_all() -> None:
    subject = random_subject()
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    span, plain = image_span(prepared), subject.run(prepared, [ENTRY]).states[ENTRY]
    moved = permuted(prepared, 0)(plain)
    outside = [t for t in range(plain.shape[1]) if not span.start <= t < span.stop]
    assert torch.equal(moved[:, outside], plain[:, outside])
    assert not torch.equal(moved[:, span], plain[:, span])
    assert torch.equal(moved[:, span].sort(dim=1).values, plain[:, span].sort(dim=1).values)
    alone = subject.prepare(prepared.stimuli[1:2])
    assert torch.equal(permuted(alone, 0)(plain[1:2]), moved[1:2])  # whatever batch it is in


def test_matching_gives_image_tokens_the_norm_of_text() -> None:
    subject = random_subject()
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    norms = matched(prepared)(subject.run(prepared, [ENTRY]).states[ENTRY]).norm(dim=-1)
    text = norms[:, image_span(prepared).stop :].mean(dim=1)
    assert torch.allclose(norms[:, image_span(prepared)], text[:, None].expand(-1, 16), rtol=1e-4)


def test_the_index_of_few_right_answers_has_an_interval_of_its_own_size() -> None:
    """A resample without any right answer has no index."""
    right, none = np.arange(16) < 2, np.zeros(16, dtype=bool)
    assert index(right, none) == {"value": 1, "low": 1, "high": 1, "n": 16}
    found = index(right, ~right)
    assert found["value"] == 1 - 14 / 2 and -16 < found["low"] < found["value"] < found["high"] <= 1
    assert index(none, right)["value"] is None
