"""A picture of the user's own, on a model that reads one known patch in one known layer, and on others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.connectors import ConnectorSpec
from blindspot.diagnostics.base import MOST_SIDE, Budget, Findings, Photo
from blindspot.diagnostics.core import hooks
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import Site, attending
from blindspot.diagnostics.photo.plots import ROWS
from blindspot.diagnostics.photo.run import Asked, lens_logits, run
from blindspot.diagnostics.run import claim, diagnose, open_vlm
from blindspot.model.variant import save
from blindspot.reporting.diagnosis import write_diagnosis
from blindspot.scenes.render import render
from blindspot.scenes.world import Scene, Thing
from tests.diagnostics.known import random_subject, rows, weights
from tests.diagnostics.test_attention_truth import chroma
from tests.evaluation.tiny_families import checkpoint
from tests.reporting.checker import Checker

pytestmark = pytest.mark.usefixtures("one_thread")
READ, MIRROR = (1, 2), (1, 1)
"""The patch that is read, and the one that is there in the mirror."""
LAYER = 1
BOX = (16, 8, 24, 16)
QUESTION = "red left-of blue"


@torch.no_grad()
def reader() -> HookedVLM:
    """Head 0 of layer `LAYER` takes the colour of one patch to every token behind it: red says left, blue says right.

    That patch alone has a mark in channel 4, by its position; words have one in channel 5, which asks for it. Its
    colour without grey comes in channels 0 to 2 and goes to channels 10 to 12, which the head reads.
    """
    subject = random_subject(connector=ConnectorSpec(name="linear"), layers=3)
    model: Any = subject.model.model
    for name, parameter in subject.model.named_parameters():
        if "norm" not in name:
            parameter.zero_()
    embeddings = model.vision_tower.embeddings
    embeddings.patch_embedding.weight[:3] = ((torch.eye(3) - 1 / 3) / 8)[..., None, None].expand(3, 3, 8, 8)
    embeddings.position_embedding.weight[4 * READ[0] + READ[1], 4] = 40
    model.multi_modal_projector.linear.weight.copy_(torch.eye(32))
    model.language_model.embed_tokens.weight[:, 5] = 1
    model.language_model.rotary_emb.inv_freq.zero_()
    attention = model.language_model.layers[LAYER].self_attn
    attention.q_proj.weight[0, 5], attention.k_proj.weight[0, 4] = 60, 1
    attention.v_proj.weight[:3, :3] = torch.eye(3)
    attention.o_proj.weight[10:13, :3] = torch.eye(3) / 20  # little, so that norms do not hide how much
    for word, colour in (("left", "red"), ("right", "blue")):
        subject.model.lm_head.weight[subject.tokenizer.convert_tokens_to_ids(word), 10:13] = 20 * chroma(colour)
    return subject


def picture() -> Image.Image:
    """The patch that is read red, blue the one that is there in the mirror, and one so that the mean is grey."""
    pixels = np.full((32, 32, 3), 128, np.uint8)
    for (row, column), colour in ((READ, (255, 0, 0)), (MIRROR, (0, 0, 255)), ((3, 0), (0, 255, 0))):
        pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = colour
    return Image.fromarray(pixels)


def look(subject: HookedVLM, shown: Image.Image, box: tuple[float, ...] | None, question: str = QUESTION) -> Findings:
    told: list[tuple[int, int]] = []
    found = run(subject, Budget(photo=Photo.of("own.png", shown, question, box)), lambda *said: told.append(said))
    assert told == sorted(told) and told[-1][0] <= told[-1][1]
    for table in found.tables:
        assert {key for row in table.rows for key in row} == ROWS[table.name].__annotations__.keys()
    return found


@pytest.fixture(scope="module")
def found() -> Findings:
    return look(reader(), picture(), BOX)


def test_the_answer_turns_with_the_mirror_and_needs_the_picture(found: Findings) -> None:
    said = {row["condition"]: row["said"].split()[:1] for row in rows(found, "answers")}
    assert said["as it is"] == ["left"] and said["mirrored"] == ["right"]
    assert max(row["value"] for row in rows(found, "answers", condition="blind")) < 0.9
    for condition, word, other in (("as it is", "left", "right"), ("mirrored", "right", "left")):
        [right], [wrong] = (rows(found, "answers", condition=condition, token=token) for token in (word, other))
        assert right["value"] > 0.9 > 0.1 > wrong["value"]


@pytest.mark.parametrize("table", ["occlusion", "gradient"])
def test_the_answer_hangs_on_the_patch_that_is_read_alone(found: Findings, table: str) -> None:
    for row in rows(found, table):
        if (row["row"], row["column"]) == READ:
            assert row["value"] > 1
        else:
            assert abs(row["value"]) < 1e-3
    assert np.unravel_index(found.pictures[table].argmax(), (4, 4)) == READ


def test_attention_lies_on_it_in_its_layer_alone(found: Findings) -> None:
    assert found.pictures["layers"].tolist() == [0, 1, 2]
    for layer in range(3):
        [best] = rows(found, "attention", measure="enrichment", layer=layer)[1:]  # behind the mean
        assert best["value"] == pytest.approx(16 if layer == LAYER else 1, rel=1e-3)
        [share] = rows(found, "attention", measure="share", layer=layer)
        assert 0 < share["value"] < 1
    assert found.pictures["best_at"].tolist() == [LAYER, 0]
    for name in ("best", "rollout"):
        assert np.unravel_index(found.pictures[name].argmax(), (4, 4)) == READ
    [before], [after] = (rows(found, "attention", measure="rollout", layer=layer) for layer in (0, LAYER))
    assert before["value"] == pytest.approx(1) and after["value"] > 3


def test_the_lens_shows_it_from_where_it_is_written(found: Findings) -> None:
    for layer in range(4):
        [left] = rows(found, "lens", layer=layer, token="left")
        assert (left["said"] == "left") == (layer > LAYER) == (left["value"] > 0.9)


def test_hiding_it_in_its_layer_changes_the_answer_and_nothing_else_does(found: Findings) -> None:
    needed = {("all image", "words and last token"), ("all image", "last token"), ("box", "last token")}
    for row in rows(found, "knockout"):
        carries = (row["from"], row["to"]) in needed and row["first"] <= LAYER <= row["last"]
        assert (row["said"] != "left") == carries == (row["value"] > 0.5), row
        assert carries or abs(row["odds"]) < 1e-3
    assert not [table for table in found.tables if table.name == "left_out"]


def test_the_picture_can_be_dropped_behind_its_layer(found: Findings) -> None:
    lost = {row["first"]: row["value"] > 0.5 for row in rows(found, "dropped")}
    assert lost == {layer: layer <= LAYER for layer in range(3)}


@torch.no_grad()
def test_of_a_drawn_scene_states_are_patched_from_before_its_objects_were_exchanged() -> None:
    red, blue = Thing("red", "square", *READ, 8, 16, 8), Thing("blue", "square", *MIRROR, 8, 8, 8)
    scene, subject = Scene((red, blue), 128), reader()
    photo = Photo.of("scene.png", Image.fromarray(render(scene)), QUESTION)
    found = run(subject, Budget(photo=replace(photo, scene=scene)), lambda *said: None)
    for layer in range(4):
        [image], [last] = (
            rows(found, "patching", part="language", layer=layer, group=group) for group in ("all image", "last token")
        )
        assert image["value"] == pytest.approx(float(layer <= LAYER), abs=1e-3)
        assert last["value"] == pytest.approx(float(layer > LAYER), abs=1e-3)
        assert image["low"] is None, "of one scene"
    low = red._replace(row=3, y=24), blue._replace(row=3, y=24)
    found = run(subject, Budget(photo=replace(photo, scene=Scene(low, 128))), lambda *said: None)
    assert "alike" in rows(found, "left_out", part="patching")[0]["why"]


def test_the_lens_ends_at_the_model_itself() -> None:
    subject = random_subject(spread=0.5, layers=3)
    asked = Asked(subject, Photo.of("own.png", picture(), QUESTION))
    logits_lv = lens_logits(subject, asked.prepared)
    assert len(logits_lv) == 4 and torch.allclose(logits_lv[-1], asked.last_v, atol=1e-5)
    assert not torch.allclose(logits_lv[-2], asked.last_v, atol=1e-2)


def test_attention_in_chunks_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, logits and gradients, with never more queries at a time than a chunk."""
    subject = random_subject(spread=0.5)
    prepared = Asked(subject, Photo.of("own.png", picture(), QUESTION)).prepared
    whole, plain = weights(subject, prepared), subject.run(prepared).last_bv
    of = lambda last_bv: last_bv[:, 3].sum()  # noqa: E731
    gradient = subject.gradient(prepared, Site("language", 0), of)[1]
    monkeypatch.setattr(hooks, "CHUNK", 4)
    home: Any = hooks._home(next(m for m in subject.roles.layers[0].modules() if hasattr(m, "q_proj")))
    eager, widest = home.eager_attention_forward, []

    def counted(module: Any, query: Tensor, *rest: Any, **more: Any) -> Any:
        widest.append(query.shape[2])
        return eager(module, query, *rest, **more)

    monkeypatch.setattr(home, "eager_attention_forward", counted)
    means: dict[int, Tensor] = {}
    queries_bq = torch.tensor([[2, 19, 7]])
    seen: dict[int, Tensor] = {}

    def see(layer: int, rows_bhqk: Tensor, mean_bqk: Tensor, _: Tensor) -> None:
        seen[layer], means[layer] = rows_bhqk, mean_bqk

    with attending(subject.roles.layers, queries_bq, see):
        chunked = subject.run(prepared).last_bv
    assert torch.allclose(chunked, plain, atol=1e-5)
    for layer, weights_bhtt in whole.items():
        assert torch.allclose(seen[layer], weights_bhtt[:, :, queries_bq[0]], atol=1e-6)
        assert torch.allclose(means[layer], weights_bhtt.mean(dim=1), atol=1e-6)
    with attending(subject.roles.layers):
        again = subject.gradient(prepared, Site("language", 0), of)[1]
    assert torch.allclose(again, gradient, atol=1e-5) and gradient.abs().max() > 1e-3
    assert max(widest) == 4


def test_an_elongated_picture_has_the_grid_of_its_shape(tmp_path: Path) -> None:
    subject = open_vlm(checkpoint("qwen3_vl", tmp_path / "model"))
    for size, grid in (((128, 64), (2, 4)), ((64, 128), (4, 2)), ((96, 96), (3, 3))):
        asked = Asked(subject, Photo.of("own.png", Image.new("RGB", size), "What is it?"))
        assert asked.layout is not None and asked.layout.grid == grid


@pytest.mark.parametrize(
    ("family", "size", "grid", "beside"),
    [
        ("internvl", (96, 64), (2, 4), 4),  # 1 x 2 tiles of 2 x 2 tokens, then the whole picture
        ("smolvlm", (640, 480), (4, 4), 4),
        ("llava_onevision", (640, 480), (6, 8), 16 + 6),  # the whole picture first; every row has an end
    ],
)
def test_maps_of_a_picture_in_tiles_are_of_the_picture(
    family: str, size: tuple[int, int], grid: tuple[int, int], beside: int, tmp_path: Path
) -> None:
    subject = open_vlm(checkpoint(family, tmp_path / "model"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    left = (0, 0, size[0] / 2, size[1])
    asked = Asked(subject, Photo.of("own.png", noise, "What is it?", left))
    assert asked.layout is not None and asked.layout.grid == grid and asked.box_n is not None
    down, across = grid
    assert (
        asked.window == (0, 0, *size)
        and asked.prepared.image_bt.sum() == down * across + beside
        and f"other {beside}" in asked.mapped[0]
    )
    assert asked.map(asked.box_n).tolist() == [[column < across // 2 for column in range(across)]] * down
    found = look(subject, noise, left, "What is it?")
    left_out = {row["part"] for table in found.tables if table.name == "left_out" for row in table.rows}
    assert not {"maps of the picture's tokens", "gradient"} & left_out
    for name in ("attention", "gradient", "rollout"):
        assert found.pictures[name].shape[-2:] == grid


def test_what_a_model_crops_away_is_neither_covered_nor_in_a_box(tmp_path: Path) -> None:
    """LLaVA-1.5 takes the middle square of a picture."""
    subject = open_vlm(checkpoint("llava", tmp_path / "model"))
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8))
    asked = Asked(subject, Photo.of("own.png", wide, "What is it?", (0, 0, 15, 60)))
    assert (
        asked.layout is not None
        and asked.layout.grid == (4, 4)
        and asked.box is None
        and "outside" in asked.left_out["the box"]
    )
    assert asked.window == pytest.approx((20, 0, 80, 60), abs=1)
    covered = [asked.covered(row, column) != np.asarray(wide) for row in range(4) for column in range(4)]
    assert not np.any(covered, axis=0)[:, :19].any() and np.any(covered, axis=(0, 3))[:, 21:79].mean() > 0.99
    asked = Asked(subject, Photo.of("own.png", wide, "What is it?", (20, 0, 50, 60)))
    assert asked.box is not None and asked.box_n is not None
    assert asked.box.tolist() == pytest.approx([0, 0, 0.5, 1], abs=0.02) and asked.box_n.sum() == 8


def test_layers_of_linear_attention_are_left_out_by_name(tmp_path: Path) -> None:
    subject = open_vlm(checkpoint("qwen3_5", tmp_path / "model"))
    found = look(subject, picture().resize((96, 64)), (0, 0, 48, 64), "What is it?")
    left_out = {row["part"]: row["why"] for row in rows(found, "left_out")}
    assert set(left_out) == {"attention in 1 of 2 layers (0)", "rollout", "knockout"}
    assert {row["layer"] for row in rows(found, "attention")} == {1} and "rollout" not in found.pictures
    assert rows(found, "occlusion") and rows(found, "gradient") and rows(found, "lens")


def test_pictures_by_cross_attention_and_tokens_without_places_leave_out_what_needs_them() -> None:
    gated = look(random_subject(connector=ConnectorSpec(name="gated_cross_attention")), picture(), BOX)
    assert {"attention", "gradient", "knockout"} <= {row["part"] for row in rows(gated, "left_out")}
    assert rows(gated, "occlusion") and rows(gated, "lens")
    pooled = look(random_subject(connector=ConnectorSpec(name="resampler", tokens=4)), picture(), BOX)
    assert {"maps of the picture's tokens", "gradient"} <= {row["part"] for row in rows(pooled, "left_out")}
    assert len(rows(pooled, "occlusion")) == 64 and rows(pooled, "knockout")


def test_a_large_picture_is_shown_smaller_and_its_box_with_it() -> None:
    photo = Photo.of("own.png", Image.new("RGB", (3000, 1000)), "What is it?", (0, 0, 1500, 1000))
    assert photo.pixels_hw3.shape == (MOST_SIDE // 3, MOST_SIDE, 3) and photo.box == (0, 0, 0.5, 1)


@pytest.mark.usefixtures("quick")
def test_the_page_says_what_was_found_and_what_was_not(tmp_path: Path) -> None:
    budget = Budget(photo=Photo.of("<b>own</b>.png", picture(), QUESTION, BOX))
    diagnose(reader(), claim(tmp_path, "wired", "w", ["photo"], budget), budget, tmp_path, lambda *_: None)
    page, sentences = write_diagnosis(tmp_path)
    checked, lead = Checker(page), " ".join(sentences)
    for said in (
        "It answers “left",
        "left and right follow the picture",
        "16.0 times from head 0 of layer 1",
        "Covering row 1, column 2 of 4 x 4 costs the answer most",
        "The last token says “left” behind layer 1 and from there on",
        "the last token costs most in layer 1",
    ):
        assert said in lead and said in checked.text
    assert "<b>own</b>.png" in checked.text and "Not done" not in checked.text
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {
        f"photo_{n}" for n in ("answers", "attention", "attention_maps", "needs", "lens", "knockout", "dropped")
    }


@pytest.mark.usefixtures("quick")
def test_the_command_looks_once_at_each_picture_and_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = random_subject(spread=0.5)
    save(subject.model, tmp_path / "model")
    subject.processor.save_pretrained(tmp_path / "model")
    picture().save(tmp_path / "own.png")
    monkeypatch.chdir(tmp_path)
    call = ["diagnose", "model", "--image", "own.png", "--question"]
    first = CliRunner().invoke(app, [*call, QUESTION, "--box", "16,8,24,16"])
    assert first.exit_code == 0 and "- It answers" in first.output, first.output
    [folder] = (tmp_path / "runs" / "diagnose").iterdir()
    assert folder.name.startswith("model-own-") and (folder / "index.html").exists()
    before = (folder / "photo.json").stat().st_mtime_ns
    assert CliRunner().invoke(app, [*call, QUESTION, "--box", "16,8,24,16"]).output == first.output
    assert (folder / "photo.json").stat().st_mtime_ns == before
    other = CliRunner().invoke(app, [*call, "blue left-of red", "--out", str(folder)])
    assert other.exit_code == 2 and "holds a diagnosis with" in " ".join(other.output.split())
    unknown = CliRunner().invoke(app, [*call, "zebra left-of red"])
    assert unknown.exit_code == 2 and "does not know the word 'zebra'" in " ".join(unknown.output.split())
    assert json.loads((folder / "diagnosis.json").read_text())["question"] == QUESTION
