"""Patching, knockout, spatial-ID vectors and steering on models whose flow of information is known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blindspot.diagnostics.base import Budget, Findings
from blindspot.diagnostics.core import stimuli as draw
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import Changes, Site
from blindspot.diagnostics.patching.plots import dropped
from blindspot.diagnostics.patching.run import (
    FLOWS,
    QUESTION,
    cases_of,
    drops,
    exchanged,
    exchanges,
    hidden,
    patch,
    question_groups,
    recoveries,
    run,
    usable,
    windows,
)
from blindspot.diagnostics.patching.spatial_id import PLACES_L2, deviations, lattice, maps, steered, targets, tour
from blindspot.scenes.relations import relation
from blindspot.scenes.render import RGB
from blindspot.scenes.world import CELLS, Thing
from tests.diagnostics.known import image_span, random_subject, weights

pytestmark = pytest.mark.usefixtures("one_thread")
Row = dict[str, Any]
BUDGET = Budget(stimuli=48, batch=20)
Told = dict[str, list[Row]]
KEY, PLACE, FOUND, DIFFERENCE, QUERY = slice(0, 3), slice(3, 5), slice(5, 7), slice(7, 9), slice(9, 12)


class Look(nn.Module):
    """Every token finds the place of the patch whose colour it asks for."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor, **_: Any) -> Tensor:
        key, query = (nn.functional.normalize(hidden_states[..., part], dim=-1, eps=1e-2) for part in (KEY, QUERY))
        weights = (1000 * query @ key.mT + attention_mask[:, 0]).softmax(dim=-1)
        found = weights @ hidden_states[..., PLACE] * query.norm(dim=-1, keepdim=True)
        return torch.cat([hidden_states[..., :5], found, hidden_states[..., 7:]], dim=-1)


class Compare(nn.Module):
    """Every token takes its own place from that which stands two tokens before it."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor, **_: Any) -> Tensor:
        back = torch.eye(hidden_states.shape[1]).roll(-2, 1)
        weights = (1000 * back + attention_mask[:, 0]).softmax(dim=-1)
        difference = weights @ hidden_states[..., FOUND] - hidden_states[..., FOUND]
        return torch.cat([hidden_states[..., :7], difference, hidden_states[..., 9:]], dim=-1)


class Passes(nn.Module):
    def forward(self, patches: Tensor, *_: Any) -> Tensor:
        return patches


@torch.no_grad()
def reader(places: float = 1.0) -> HookedVLM:
    """A model that looks up both objects' places in its first layer and compares them in its second.

    Args:
        places: scale of what patches know of their place.
    """
    subject = random_subject()
    body: Any = subject.model.model
    for name, parameter in body.vision_tower.named_parameters():
        if "out_proj" in name or "fc2" in name or "embedding" in name:
            parameter.zero_()
    chroma = (torch.eye(3) - 1 / 3) / 64
    body.vision_tower.embeddings.patch_embedding.weight[KEY] = chroma[..., None, None]
    body.vision_tower.embeddings.position_embedding.weight[:, PLACE] = places * torch.tensor(PLACES_L2).float()
    body.multi_modal_projector = Passes()
    body.language_model.layers = nn.ModuleList([Look(), Compare()])
    body.language_model.norm = nn.Identity()
    words, head = subject.tokenizer.convert_tokens_to_ids, subject.model.lm_head.weight
    embeddings = body.language_model.embed_tokens.weight
    embeddings.zero_()
    for name, rgb in RGB.items():
        colour = torch.tensor(rgb).float()
        embeddings[words(name), QUERY] = colour - colour.mean()
    head.zero_()
    for name, channel, sign in (("above", 7, -1.0), ("below", 7, 1.0), ("left", 8, -1.0), ("right", 8, 1.0)):
        head[words(name), channel] = sign
    return HookedVLM(subject.model, subject.processor, subject.family)


def told(subject: HookedVLM, budget: Budget = BUDGET) -> tuple[Told, Findings]:
    findings = run(subject, budget, lambda done, of: None)
    return {table.name: table.rows for table in findings.tables}, findings


def only(rows: list[Row], **labels: Any) -> Row:
    (row,) = [row for row in rows if all(row[key] == value for key, value in labels.items())]
    return row


@pytest.fixture(scope="module")
def wired() -> Told:
    with torch.no_grad():
        return told(reader())[0]


def recovery(rows: Told, part: str, layer: int, group: str) -> float:
    return only(rows["patching"], part=part, layer=layer, group=group)["value"]


def test_the_wired_reader_is_patched_where_it_reads(wired: Told) -> None:
    assert {row["n"] for row in wired["patching"]} == {48}
    expected = {
        0: {"all image": 1, "both objects' patches": 1, "words": 0, "last token": 0},
        1: {"all image": 0, "subject word": 0.5, "reference word": 0.5, "relation word": 0, "words": 0.5},
        2: {"all image": 0, "subject word": 0, "words": 0, "last token": 1},
    }
    for layer, groups in expected.items():
        for group, value in groups.items():
            assert recovery(wired, "language", layer, group) == pytest.approx(value, abs=1e-3)
            flipped = only(wired["patching"], part="language", layer=layer, group=group)["flipped"]
            assert value == 0.5 or flipped == value
    assert recovery(wired, "encoder", 1, "other patches") == pytest.approx(0, abs=1e-5)


def test_the_wired_reader_misses_what_it_needs_and_nothing_else(wired: Told) -> None:
    needed = {
        ("all image", QUESTION, 0), ("all image", "words", 0), ("all image", "last token", 0),
        ("words", "last token", 1), ("subject's patches", "subject word", 0), ("reference's patches", "last token", 0),
    }  # fmt: skip
    for row in wired["knockout"]:
        window = range(row["first"], row["last"] + 1)
        if any((row["from"], row["to"], layer) in needed for layer in window):
            assert row["low"] > 0.2 and row["margin_low"] > 0
        else:
            assert row["value"] == 0 and abs(row["margin"]) < 1e-4


def test_the_picture_can_be_dropped_where_the_wired_reader_has_read_it(wired: Told) -> None:
    blind, read = wired["dropped"]
    assert (blind["first"], read["first"], read["last"], read["value"]) == (0, 1, 1, 0) and abs(read["margin"]) < 1e-4
    hidden_always = only(wired["knockout"], **{"from": "all image", "to": QUESTION}, first=0, last=1)
    assert blind["value"] == hidden_always["value"] > 0.2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, 0.4, 0.0], "can be dropped from layer 2 on"),
        ([0.5, 0.4, 0.3], "are needed to the last layers"),
        ([0.5], "Without the picture's tokens 50 points of accuracy are lost"),
        ([-0.4, 0.0, 0.0], "from layer 0 on raises accuracy by 40 points"),
        ([0.02, -0.01, 0.0], "costs less than 5 points of accuracy"),
        ([None, 0.5, 0.0], "can be dropped from layer 2 on"),
    ],
)
def test_the_title_says_from_where_the_picture_is_not_needed(values: list[float | None], said: str) -> None:
    off = [None if value is None else 0.04 for value in values]
    assert said in dropped("dropped", "accuracy", lost(values, off)).title


def test_a_cost_that_is_not_sure_is_none_for_the_title() -> None:
    assert "No clear cost" in dropped("dropped", "accuracy", lost([0.3, 0.2], [0.4, 0.3])).title


def lost(values: list[float | None], off: list[float | None]) -> list[Any]:
    return [
        {"first": layer, "value": value, "low": value and value - (far or 0), "high": value and value + (far or 0)}
        for layer, (value, far) in enumerate(zip(values, off, strict=True))
    ]


def test_the_wired_reader_shows_its_map_and_follows_it(wired: Told) -> None:
    for token, layer in (("subject word", 1), ("subject word", 2), ("subject's patches", 0)):
        row = only(wired["spatial_id"], token=token, layer=layer)
        assert row["value"] > 0.99 > row["chance"] and row["low"] > 0.98
    assert only(wired["spatial_id"], token="subject word", layer=0)["value"] is None
    for token, layer, follows in (("subject word", 1, 1), ("subject's patches", 0, 1), ("subject's patches", 1, 0)):
        row = only(wired["steering"], token=token, layer=layer, direction="spatial id", strength=1.0)
        assert (row["value"], row["n"]) == (follows, 24)
        random = only(wired["steering"], token=token, layer=layer, direction="random", strength=1.0)
        assert random["value"] < 0.35


def test_a_reader_that_knows_no_places_shows_none() -> None:
    rows, findings = told(reader(places=0.0))
    assert rows["patching"] == [] and "nothing to patch" in findings.tables[0].notes[0]
    assert "pair" not in findings.pictures
    assert all(row["value"] == 0 for row in rows["knockout"])
    assert all(row["value"] is None for row in rows["spatial_id"] if row["token"] == "subject word")
    assert all(row["value"] == 0 for row in rows["steering"] if row["direction"] == "spatial id")


@pytest.mark.parametrize(("layers", "family"), [(1, "siglip"), (2, "clip")])
def test_patching_is_exact_whatever_the_weights(layers: int, family: str) -> None:
    rows, findings = told(random_subject(layers=layers, family=family, spread=0.5))
    assert findings.pictures["pair"].shape == (2, 32, 32, 3)
    for layer in range(layers + 1):
        row = only(rows["patching"], part="language", layer=layer, group="everything")
        assert (row["value"], row["low"], row["high"], row["flipped"]) == (1, 1, 1, 1)
    zero = [("language", 0, "words"), ("language", 0, "last token"), ("encoder", 0, "other patches")]
    zero += [("language", layers, group) for group in ("all image", "words", "other patches")]
    for part, layer, group in zero:
        row = only(rows["patching"], part=part, layer=layer, group=group)
        assert (row["value"], row["low"], row["high"], row["flipped"]) == (0, 0, 0, 0)
    one = [("language", 0, "all image"), ("language", layers, "last token"), ("encoder", 0, "all image")]
    for part, layer, group in [*one, ("encoder", 0, "both objects' patches")]:
        assert recovery(rows, part, layer, group) == 1
    for row in rows["patching"]:
        assert row["low"] <= row["value"] <= row["high"]


def test_patching_nothing_is_the_run_itself() -> None:
    subject = random_subject(spread=0.5)
    pairs, _ = usable(subject, exchanges(draw.directions(32, 0, "words"), "words"), 32)
    giving, taking = subject.prepare([a for a, _ in pairs]), subject.prepare([b for _, b in pairs])
    nothing = {"nothing": torch.zeros_like(giving.image_bt), "everything": torch.ones_like(giving.image_bt)}
    (_, none), (_, all_) = patch(subject, giving, taking, Site("language", 1), nothing)
    assert torch.equal(none.logits_bk, subject.run(taking).logits_bk)
    assert torch.equal(all_.logits_bk, subject.run(giving).logits_bk)
    assert not torch.equal(none.logits_bk, all_.logits_bk)


def test_recovery_is_the_ratio_of_mean_differences() -> None:
    subject, site = random_subject(spread=0.5), Site("language", 1)
    pairs, said = usable(subject, exchanges(draw.directions(64, 0, "words"), "words"), 32)
    assert pairs and f"the {len(pairs)} answered differently are used" in said
    giving, taking = subject.prepare([a for a, _ in pairs]), subject.prepare([b for _, b in pairs])
    image = {"all image": giving.image_bt}
    (_, patched), *_ = patch(subject, giving, taking, site, image)

    def mean(logits_bk: Tensor) -> float:
        rows = zip(logits_bk.tolist(), draw.answers(giving.stimuli), draw.answers(taking.stimuli), strict=True)
        return float(np.mean([row[a] - row[b] for row, a, b in rows]))

    first, second = (mean(subject.run(side).logits_bk) for side in (giving, taking))
    assert first > 0 > second
    row = only(recoveries(subject, pairs, 64, lambda done, of: None), part="language", layer=1, group="all image")
    assert row["value"] == pytest.approx((mean(patched.logits_bk) - second) / (first - second), rel=1e-4)
    assert row["n"] == len(pairs) and row["tokens"] == 16


def test_hidden_pictures_are_as_good_as_any_other() -> None:
    """With the picture hidden from the question in every layer, logits are those of any picture, to the bit."""
    subject = random_subject(spread=0.5)
    stimuli = draw.directions(16, 0, "words")
    noise = list(np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8))
    seen, other = subject.prepare(stimuli), subject.prepare(stimuli, noise)
    groups = question_groups(seen, subject.image_grid)
    scores = hidden(groups["all image"], groups[QUESTION])
    blind = Changes(scores={0: scores, 1: scores})
    assert torch.equal(subject.run(seen, changes=blind).logits_bk, subject.run(other, changes=blind).logits_bk)
    assert not torch.equal(subject.run(seen).logits_bk, subject.run(other).logits_bk)
    half = Changes(scores={1: scores})
    assert not torch.equal(subject.run(seen, changes=half).logits_bk, subject.run(other, changes=half).logits_bk)


def test_what_the_last_layer_gives_to_words_is_lost_anyway() -> None:
    subject = random_subject(spread=0.5)
    rows = drops(subject, draw.directions(32, 0, "words"), cases_of(subject, FLOWS), 16, lambda done, of: None)
    last = [row for row in rows if row["first"] == 1]
    idle = [row for row in last if row["to"] in ("words", "subject word")]
    assert len(idle) == 2 and all(row["value"] == row["margin"] == 0 for row in idle)
    assert all(row["margin"] != 0 for row in last if row["to"] == "last token")


def test_hiding_closes_what_it_names_and_keeps_every_row_open() -> None:
    subject = random_subject(spread=0.5)
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    groups = question_groups(prepared, subject.image_grid)
    scores = hidden(groups["all image"], groups[QUESTION])
    seen = weights(subject, prepared, Changes(scores={1: scores}))[1]
    closed = scores.expand_as(seen) < 0
    assert seen[closed].max() == 0 and torch.allclose(seen.sum(-1), torch.ones(()))
    assert int(closed[0, 0].sum()) == 16 * 3
    assert hidden(groups["words"], groups["words"])[0, 0].diagonal().min() == 0


def test_groups_are_tokens_where_the_objects_stand() -> None:
    thing = Thing("red", "square", 1, 2, 7, 17, 8)
    assert draw.covered([thing], (4, 4)).nonzero()[:, 1].tolist() == [6]
    assert draw.covered([thing], (8, 8)).nonzero()[:, 1].tolist() == [20, 21, 28, 29]
    subject = random_subject()
    prepared = subject.prepare(draw.directions(8, 0, "words"))
    groups = prepared.token_groups(subject.image_grid)
    both = groups["subject's patches"] ^ groups["reference's patches"]
    assert torch.equal(both ^ groups["other patches"], groups["all image"])
    for row, stimulus in enumerate(prepared.stimuli):
        place = image_span(prepared).start + 4 * stimulus.subject.row + stimulus.subject.column
        assert groups["subject's patches"][row].nonzero()[:, 0].tolist() == [place]
    assert groups["words"].sum(dim=1).tolist() == [2] * 8
    assert not (groups["words"] & (groups["all image"] | groups["last token"])).any()
    assert "subject's patches" not in prepared.token_groups(None)
    span = image_span(prepared)
    prepared.image_bt[:, span.start + 5] = False  # a mark between two tiles
    cut = prepared.token_groups(None)
    assert torch.equal(cut["all image"], groups["all image"]) and torch.equal(cut["words"], groups["words"])


def test_exchanged_pictures_differ_in_two_boxes() -> None:
    for stimulus in draw.directions(16, 1, "words"):
        other = draw.direction(exchanged(stimulus.scene), "words")
        assert {stimulus.answer, other.answer} in ({"left", "right"}, {"above", "below"})
        assert [(t.colour, t.shape) for t in other.scene.things] == [(t.colour, t.shape) for t in stimulus.scene.things]
        changed = (stimulus.image(32) != other.image(32)).any(-1)
        for x0, y0, x1, y1 in (stimulus.subject.box, stimulus.reference.box):
            changed[y0:y1, x0:x1] = False
        assert not changed.any()
        assert exchanged(other.scene) == stimulus.scene


def test_a_lattice_is_told_from_noise() -> None:
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((2, 24))
    exact = lattice(PLACES_L2 @ axes + 5)
    assert exact is not None and exact.score == pytest.approx(1) and exact.share == pytest.approx(1)
    noisy = lattice(PLACES_L2 @ axes + 0.1 * rng.standard_normal((16, 24)))
    assert noisy is not None and noisy.score > 0.98
    noise = [found.score for _ in range(50) if (found := lattice(rng.standard_normal((16, 24))))]
    assert abs(np.mean(noise)) < 0.1
    above = [found.score > found.chance for _ in range(50) if (found := lattice(rng.standard_normal((16, 24))))]
    assert np.mean(above) < 0.15
    assert lattice(np.ones((16, 24))) is None


def test_points_lie_as_the_places_do() -> None:
    """Components come in any order and sign; the picture has rows and columns where they belong."""
    found = lattice(PLACES_L2 @ np.array([[0.0, 0, -3], [0, 3, 0]]))
    assert found is not None and np.allclose(found.points, 3 * PLACES_L2)


def test_the_tour_visits_every_place_with_all_else_at_random() -> None:
    stimuli = tour(3, 0, "words")
    for start in range(0, 48, 16):
        scenes = stimuli[start : start + 16]
        assert tuple(stimulus.subject.cell for stimulus in scenes) == CELLS
        assert len({stimulus.prompt for stimulus in scenes}) == 1
        assert len({stimulus.reference.cell for stimulus in scenes}) > 3
        assert all(len({thing.cell for thing in s.scene.things}) == len(s.scene.things) for s in scenes)


def test_random_words_have_no_map_before_they_look() -> None:
    subject = random_subject(spread=0.5)
    ids = deviations(subject, 4, Budget(), lambda done, of: None)
    rows, points = maps(ids, 0)
    assert only(rows, token="subject word", layer=0)["value"] is None
    assert points.shape == (len(rows), 16, 2)
    assert all(np.allclose(found.sum(axis=1), 0, atol=1e-9) for found in ids.values())


def test_steering_by_nothing_and_too_late_changes_nothing() -> None:
    subject = random_subject(spread=0.5)
    prepared = subject.prepare(draw.directions(8, 0, "words"))
    word = prepared.token_groups(subject.image_grid)["subject word"]
    plain, push = subject.run(prepared).logits_bk, np.full((8, 32), 3.0)
    zero = steered(Site("language", 1), word, 0 * push)
    assert torch.equal(subject.run(prepared, changes=zero).logits_bk, plain)
    late = steered(Site("language", 2), word, push)
    assert torch.equal(subject.run(prepared, changes=late).logits_bk, plain)
    early = subject.run(prepared, [Site("language", 2)], steered(Site("language", 1), word, push))
    assert not torch.equal(early.logits_bk, plain)


def test_targets_change_the_answer() -> None:
    stimuli = draw.directions(64, 0, "words")
    for stimulus, cell in zip(stimuli, targets(stimuli, 0), strict=True):
        assert relation(cell, stimulus.reference.cell) not in (None, stimulus.answer)


def test_large_models_are_looked_at_here_and_there() -> None:
    assert windows(1) == [range(1)]
    assert windows(3) == [range(0, 1), range(1, 2), range(2, 3), range(3)]
    assert windows(33)[:2] == [range(0, 5), range(5, 10)] and windows(33)[-2:] == [range(30, 33), range(33)]
    small = random_subject()
    assert small.some_sites("language") == [Site("language", layer) for layer in range(3)]
    deep = random_subject(layers=20)
    layers = [site.layer for site in deep.some_sites("language")]
    assert len(layers) == 9 and (layers[0], layers[-1]) == (0, 20) and layers == sorted(set(layers))


def test_the_same_budget_gives_the_same_numbers() -> None:
    subject = random_subject(spread=0.5, layers=1)
    assert told(subject, Budget(stimuli=16))[0] == told(subject, Budget(stimuli=16))[0]
