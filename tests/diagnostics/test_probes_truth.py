"""Probes on models of which it is known by construction what can be read where."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core import stimuli as draw_stimuli
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.patching import run as patching
from blindspot.diagnostics.probes import fits, targets
from blindspot.diagnostics.probes import run as probes
from blindspot.diagnostics.probes.fits import AttentionPool, HiddenLayer, LinearMap, learn, ridge
from blindspot.diagnostics.probes.stages import WIDEST, ProbedStage, Regions, Shrink
from blindspot.errors import UserError
from blindspot.positions.encoder.attach import table_of
from blindspot.scenes.render import RGB
from blindspot.scenes.solid.depth import Depth
from blindspot.scenes.solid.films import Films
from blindspot.scenes.solid.tasks import TASKS
from blindspot.scenes.solid.world import see
from blindspot.scenes.world import COLOURS, Thing
from tests.diagnostics.known import WIDTH, random_subject
from tests.diagnostics.known import rows as rows_of

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGET = Budget(stimuli=64, batch=56)
Rows = list[dict[str, Any]]
Draw = Callable[..., targets.Set]
LAST = ProbedStage("language 0 (last)", 0, "last", None, Regions.of(1, None))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Callable[[HookedVLM, Draw], dict[str, Rows]]:
    """Tables of the diagnostic on one of its sets."""

    def run(subject: HookedVLM, draw: Draw) -> dict[str, Rows]:
        monkeypatch.setattr(probes, "SETS", (draw,))
        return {table.name: table.rows for table in probes.run(subject, BUDGET, lambda done, of: None).tables}

    return run


def value(rows: Rows, stage: str, readout: str, held_out: bool = False) -> float:
    (row,) = [r for r in rows if (r["stage"], r["readout"], r["held_out"]) == (stage, readout, held_out)]
    return row["value"]


def without_positions() -> HookedVLM:
    subject = random_subject()
    table = table_of(subject.model)
    assert table is not None
    with torch.no_grad():
        table.zero_()
    return subject


def test_without_positions_only_the_order_of_tokens_tells_where(tables: Any) -> None:
    rows = tables(without_positions(), targets.places)["stages"]
    for stage in ("pixels", "encoder 0", "encoder 1", "encoder 2", "connector"):
        for held_out in (False, True):
            for readout in ("mean", "elsewhere"):
                assert value(rows, stage, readout, held_out) < 0.06, (stage, readout)
            assert value(rows, stage, "attention", held_out) < 0.15
        assert value(rows, stage, "all") > 0.1
    assert value(rows, "language 0 (word)", "linear") < 0.02
    labels = {row["order"]: row["stage"] for row in rows}
    image, word, last = ([f"language {layer} ({kind})" for layer in range(3)] for kind in ("image", "word", "last"))
    expected = ["pixels", "encoder 0", "encoder 1", "encoder 2", "connector", *image[1:], *word, *last]
    assert [labels[order] for order in sorted(labels)] == expected
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == (BUDGET.stimuli // 2 if row["held_out"] else BUDGET.stimuli)


def test_an_encoder_that_writes_coordinates_is_read_everywhere_behind(tables: Any) -> None:
    """Its last block writes where the red object is into two channels of every token."""
    subject = without_positions()
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen[:] = [kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]]

    def write(_: nn.Module, __: Any, gave: Any) -> Any:
        states_bnd = gave[0] if isinstance(gave, tuple) else gave
        written_bnd = torch.cat([5 * red_at(seen[0], subject)[:, None].expand(-1, states_bnd.shape[1], -1),
                                 states_bnd[..., 2:]], dim=-1)  # fmt: skip
        return (written_bnd, *gave[1:]) if isinstance(gave, tuple) else written_bnd

    subject.model.register_forward_pre_hook(look, with_kwargs=True)
    subject.roles.tower_blocks[-1].register_forward_hook(write)
    found = tables(subject, targets.places)
    rows = found["stages"]
    for readout in ("mean", "elsewhere", "all"):
        assert value(rows, "encoder 2", readout) > 0.95, readout
    assert value(rows, "encoder 2", "attention") > 0.6, "fitted in a few steps"
    assert value(rows, "encoder 2", "elsewhere", held_out=True) > 0.95
    assert value(rows, "encoder 1", "elsewhere") < 0.06
    (gained,) = [row for row in found["drops"] if row["from"] == "encoder 1"]
    assert gained["high"] < 0
    (row,) = [r for r in rows if (r["stage"], r["readout"], r["held_out"]) == ("encoder 2", "mean", False)]
    assert row["selectivity"] > 0.9 and row["error"] < 0.25


def red_at(pixels_bchw: Tensor, subject: HookedVLM) -> Tensor:
    """Where the red pixels' middle is, in -1..1, shape (pictures, 2)."""
    processor = subject.processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    colour = torch.tensor(RGB[targets.SUBJECT]).view(3, 1, 1) / 255
    near_bhw = ((pixels_bchw * std + mean - colour).norm(dim=1) < 0.1).float()
    line = torch.linspace(-1, 1, near_bhw.shape[-1])
    count_b = near_bhw.sum(dim=(1, 2)).clamp_min(1)
    return torch.stack([(near_bhw.sum(2) * line).sum(1), (near_bhw.sum(1) * line).sum(1)], dim=1) / count_b[:, None]


def test_a_language_model_that_copies_loses_nothing_and_moves_nothing(
    tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "STEPS", 20)
    subject = random_subject()
    with torch.no_grad():
        for layer in subject.model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    found = tables(subject, targets.relations)
    rows = found["stages"]
    for readout in ("all", "mean", "hidden"):
        for layer in (1, 2):
            assert value(rows, f"language {layer} (image)", readout) == value(rows, "connector", readout)
    for row in rows:
        if row["tokens"] != "image":
            assert row["value"] == pytest.approx(row["chance"], abs=0.12) and row["selectivity"] < 0.12
    drops = {(row["from"], row["to"]): row for row in found["drops"]}
    assert drops["connector", "language 1 (image)"]["value"] == 0
    assert drops["connector", "language 1 (image)"]["high"] == 0
    last = drops["language 2 (image)", "language 2 (last)"]
    best = max(r["value"] for r in rows if r["stage"] == "connector" and not r["held_out"])
    assert last["value"] == pytest.approx(best - value(rows, "language 2 (last)", "linear"), abs=0.1)
    assert [row["stage"] for row in found["gap"]] == ["connector", "language 2 (last)"]
    for row in found["gap"]:
        assert row["value"] == pytest.approx(row["probe"] - row["model"])
        assert row["model"] == pytest.approx(0.25, abs=0.2)


def synthetic(seed: int, of_content: bool) -> tuple[np.ndarray, targets.Set]:
    """States that show the content of a picture alone, and a task on them: labels of contents, or real ones."""
    drawn = targets.relations(BUDGET, "words")
    contents = [stimulus.scene.things[0].shape + stimulus.scene.things[1].shape for stimulus in drawn.stimuli]
    known = sorted(set(contents))
    shown_sd = np.eye(len(known))[[known.index(content) for content in contents]]
    (target,) = drawn.targets
    labels = targets.control(target.truth_uk, contents, drawn.part_s == 0, seed) if of_content else target.truth_uk
    control = targets.control(target.truth_uk, contents, drawn.part_s == 0, seed + 1)
    made = targets.Target("relation", "class", labels, control, target.scene_u)
    return shown_sd[:, None], targets.Set(drawn.stimuli, drawn.part_s, (made,), None)


@pytest.mark.parametrize("of_content", [True, False])
def test_a_random_label_task_has_no_selectivity(of_content: bool) -> None:
    """Labels of contents are learned, but random ones as well; and what the states do not show is not learned."""
    for seed in range(3):
        states, drawn = synthetic(seed, of_content)
        (target,) = drawn.targets
        found = list(probes.readouts(LAST, states, target, drawn, seed))
        rows = [row for part in ("test", "new") for row in probes.scored(found, target, drawn, part)]
        assert len(rows) == 4
        for row in rows:
            if not row["held_out"]:
                assert row["value"] > 0.85 if of_content else row["value"] < 0.45
                assert row["control"] > 0.85
            assert row["selectivity"] < 0.15


@pytest.mark.parametrize("speech", ["words", "english"])
def test_what_is_held_out_is_in_no_training_picture(speech: Any) -> None:
    for draw in targets.SETS:
        drawn = draw(BUDGET, speech)
        scenes = [[stimulus.scene for stimulus, at in zip(drawn.stimuli, drawn.part_s, strict=True) if at == part]
                  for part in range(3)]  # fmt: skip
        shown = [{thing.shape for scene in part for thing in scene.things} for part in scenes]
        new = targets.NEW if not drawn.stimuli[0].shots else targets.NEW_SOLID
        assert new not in shown[0] | shown[1]
        assert all(new in {thing.shape for thing in scene.things} for scene in scenes[2])
        assert not set(scenes[0]) & set(scenes[1]) and [len(part) for part in scenes] == [96, 64, 32]
        for target in drawn.targets:
            trained = drawn.part_s[target.scene_u] == 0
            assert {tuple(row) for row in target.control_uk} <= {tuple(row) for row in target.truth_uk[trained]}


@pytest.mark.parametrize("speech", ["words", "english"])
def test_of_solids_shadows_alone_tell_which_is_nearer(speech: Any) -> None:
    rng = Random(0)
    for number in range(12):
        pair = draw_stimuli.twins(TASKS["nearer"], rng, number % 2, speech)
        assert pair[0].answer == ("red", "green")[number % 2] != pair[1].answer
        assert pair[0].scene == pair[1].scene, "silhouettes are the same"
        for stimulus in pair:
            [shot] = stimulus.shots
            seen = [see(solid, shot.camera) for solid in shot.scene.solids]
            assert (seen[0].depth < seen[1].depth) == (stimulus.answer == "red")
            assert [thing.colour for thing in stimulus.scene.things[:2]] == ["red", "green"]
            assert all(words in stimulus.prompt for words in stimulus.mentions.values())
            for (x0, y0, x1, y1), own in zip((thing.box for thing in stimulus.scene.things), seen, strict=True):
                assert x0 <= 16 * (1 + own.u) <= x1 and y0 <= 16 * (1 + own.v) <= y1
        lit, unlit = ([own.image(32) for own in both] for both in (pair, map(without_shadows, pair)))
        assert np.mean(unlit[0] != unlit[1]) < 0.01 < np.mean(lit[0] != lit[1])


def without_shadows(stimulus: draw_stimuli.Stimulus) -> draw_stimuli.Stimulus:
    return replace(
        stimulus, shots=tuple(shot._replace(scene=shot.scene._replace(shadows=False)) for shot in stimulus.shots)
    )


def test_a_model_that_knows_solids_alone_is_probed_for_depth_and_patched_by_its_twins() -> None:
    subject, budget = random_subject(spread=0.5, words=Depth().words()), Budget(stimuli=32, batch=20)
    found = probes.run(subject, budget, lambda done, of: None)
    stages = rows_of(found, "stages")
    assert {row["target"] for row in stages} == {"nearer", "depth"}
    assert "does not know the word" in " ".join(found.tables[0].notes)
    assert 0.3 < next(row["chance"] for row in stages if row["target"] == "nearer") < 0.7
    patched = patching.run(subject, budget, lambda done, of: None)
    assert {row["group"] for row in rows_of(patched, "patching")} > {"all image", "other patches", "last token"}
    whole = [row["value"] for row in rows_of(patched, "patching", group="everything", part="language")]
    assert whole == pytest.approx([1] * len(whole)) and not rows_of(patched, "spatial_id")
    assert rows_of(patched, "dropped") and "of solids" in " ".join(patched.tables[0].notes)


def test_of_films_the_picture_that_tells_is_patched() -> None:
    subject = random_subject(spread=0.5, words=Films().words())
    budget = Budget(stimuli=24, batch=20)
    found = patching.run(subject, budget, lambda done, of: None)
    told = {row["group"]: row for row in rows_of(found, "patching", part="language", layer=0)}
    assert told["picture 2"]["value"] == pytest.approx(1) and told["picture 2"]["tokens"] == 16
    assert told["picture 1"]["value"] == told["picture 3"]["value"] == told["words"]["value"] == 0
    assert {row["from"] for row in rows_of(found, "knockout")} > {"picture 1", "picture 2", "picture 3"}
    assert {row["part"] for row in rows_of(found, "patching")} == {"language"}
    assert found.pictures["pair"].shape == (2, 32, 96, 3)
    with pytest.raises(UserError, match="does not know the word"):
        probes.run(subject, budget, lambda done, of: None)


def test_probes_are_fitted_on_training_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[set[int]] = []
    folds: list[np.ndarray] = []

    def spy(x_nd: np.ndarray, labels: Sequence[np.ndarray], fold_n: np.ndarray) -> list[LinearMap]:
        fitted.append(set(x_nd[:, 0].round().astype(int)))
        folds.append(fold_n)
        return ridge(x_nd, labels, fold_n)

    monkeypatch.setattr(probes, "ridge", spy)
    drawn = targets.relations(BUDGET, "words")
    count = len(drawn.stimuli)
    states = np.concatenate([np.arange(count)[:, None], np.random.default_rng(0).normal(size=(count, 3))], axis=1)
    list(probes.readouts(LAST, states[:, None], drawn.targets[0], drawn, 0))
    assert fitted == [set(np.nonzero(drawn.part_s == 0)[0])]
    answer = drawn.targets[0].truth_uk[drawn.part_s == 0].argmax(axis=1)
    for fold in range(probes.FOLDS):
        assert set(answer[folds[0] == fold]) == set(range(4)), "answers take turns, and folds must not follow them"


def test_binding_is_asked_of_the_cell_of_the_object() -> None:
    drawn = targets.numbers(BUDGET, "words")
    binding = drawn.targets[1]
    assert binding.cell_uv is not None
    for label, scene, cell in zip(binding.truth_uk.argmax(axis=1), binding.scene_u, binding.cell_uv, strict=True):
        there = [thing for thing in drawn.stimuli[scene].scene.things if thing.cell == tuple(cell)]
        assert [COLOURS.index(thing.colour) for thing in there] == ([label] if label < len(COLOURS) else [])
        new = drawn.part_s[scene] == 2
        assert not new or all(thing.shape == targets.NEW for thing in there)


def test_learned_readouts_find_what_linear_ones_cannot() -> None:
    rng = np.random.default_rng(0)
    x_nrd = rng.normal(size=(300, 6, 8)).astype(np.float32)
    marked = rng.integers(0, 6, 300)
    x_nrd[:, :, 0] = 0
    x_nrd[np.arange(300), marked, 0] = 3
    at_mark = x_nrd[np.arange(300), marked, 1:3]
    told, control = learn(AttentionPool, x_nrd[:200], [at_mark[:200], rng.permutation(at_mark[:200])],
                          np.arange(200) % 4, x_nrd[200:], 0)  # fmt: skip
    lost = [np.square(p - at_mark[200:]).sum() / np.square(at_mark[200:]).sum() for p in (told, control)]
    assert lost[0] < 0.35 and 0.9 < lost[1] < 1.3
    x_n1d = rng.normal(size=(400, 1, 4)).astype(np.float32)
    product = x_n1d[:, 0, :1] * x_n1d[:, 0, 1:2]
    (told,) = learn(HiddenLayer, x_n1d[:300], [product[:300]], np.arange(300) % 4, x_n1d[300:], 0)
    assert np.square(told - product[300:]).sum() / np.square(product[300:]).sum() < 0.5


@pytest.mark.parametrize("side", [2, 3, 4, 6, 8])
def test_regions_know_their_places(side: int) -> None:
    regions = Regions.of(side * side, (side, side))
    assert regions.count == min(side, 4) ** 2
    own = np.eye(regions.count)[regions.region_t.numpy()]
    shown_brd = regions.mean(torch.from_numpy(own).float()[None])
    assert torch.allclose(shown_brd[0], torch.eye(regions.count))
    cells = np.array([(0, 0), (0, 3), (3, 0), (3, 3)])
    things = [Thing("red", "square", r, c, 4, 8 * c + 2, 8 * r + 2) for r, c in cells.tolist()]
    touched = regions.touched(things, (side, side))
    assert touched[np.arange(4), regions.at(cells, (side, side))].all()
    assert touched.sum(axis=1).max() <= (1 if side in (2, 4, 8) else 4)


def test_tokens_without_places_are_averaged_in_runs() -> None:
    regions = Regions.of(40, None)
    assert regions.count == 16 and regions.region_t.tolist() == sorted(regions.region_t.tolist())
    assert set(np.bincount(regions.region_t.numpy())) == {2, 3}


def test_wide_states_keep_what_a_line_can_read() -> None:
    """Also where one channel is a thousand times as large as the others."""
    rng = torch.Generator().manual_seed(0)
    states_b1d = torch.randn(300, 1, 400, generator=rng)
    states_b1d[..., :200] = states_b1d[..., :1]
    states_b1d[..., 399] *= 1000
    shrunk = Shrink(0)(states_b1d)
    assert shrunk.shape == (300, 1, WIDEST)
    wanted = states_b1d[:, 0, :1].numpy()
    (fit,) = ridge(shrunk[:200, 0], [wanted[:200]], np.arange(200) % 4)
    lost = np.square(fit(shrunk[200:, 0]) - wanted[200:]).sum() / np.square(wanted[200:]).sum()
    assert lost < 0.2
    narrow = states_b1d[..., :WIDTH]
    assert np.array_equal(Shrink(0)(narrow), narrow.numpy())
