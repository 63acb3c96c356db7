"""Arms beyond the miniature's, carried out: other objectives, schemes, connectors, and the released defects."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from blindspot.encoders import ENCODERS, TowerShape, build_tower, features
from blindspot.positions import EncoderPositions
from blindspot.positions.encoder.attach import attach
from blindspot.reporting import collect
from blindspot.studies import steps as step_functions
from blindspot.studies.corpus import Corpus, EncoderView

pytestmark = pytest.mark.usefixtures("one_thread")
STUDY = """
name: variants
title: Arms of every kind
source: scenes
arms:
  named:
    - {id: learned, label: A, family: clip}
    - {id: swapped, label: B, family: clip, positions: axial, pretrained_with: learned}
    - {id: published, label: C, family: clip, positions: axial, pretrained_with: learned, evaluate_with: learned}
    - {id: adapted, label: D, family: clip, positions: axial, pretrained_with: learned, encoder_training: trained}
    - {id: dropped, label: E, family: siglip, drop_first_patch: true}
    - {id: breaks, label: F, family: siglip, objective: dinov2, language_positions: row_break}
    - {id: queries, label: G, family: siglip, objective: none, positions: mixed,
       connector: {name: resampler, tokens: 4, depth: 1}}
    - {id: multi, label: H, family: siglip, objective: none, positions: none, language_positions: mhrope}
  compare: {evaluate_with: same}
seeds: 1
data: {train: 30, test: 2}
model: {image: 32, patch: 8, width: 16, heads: 2, mlp: 24, encoder_layers: 1, language_layers: 1, rotary_base: 100}
text: {about: plain, steps: 2, batch: 4, lr: 5e-3}
encoder: {captions: objects, steps: 2, batch: 4, lr: 3e-3}
connector: {steps: 2, batch: 2, lr: 2e-2}
instruct: {encoder: frozen, steps: 1, batch: 2, lr: 4e-2}
"""
SHAPE = TowerShape(width=16, layers=1, heads=2, mlp_width=24, image_size=32, patch_size=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, run_inline: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    (folder / "variants.yaml").write_text(STUDY)
    return run_inline(folder / "variants.yaml", folder / "run")


@pytest.fixture
def evaluated(contexts: Callable[..., Any], run: Path, tmp_path: Path) -> Callable[[str], Any]:
    """The model that an evaluation asks."""

    def ask(name: str) -> Any:
        models: list[Any] = []

        def watch(model: Any, *arguments: Any) -> list[dict[str, Any]]:
            models.append(model)
            return []

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_functions, "_answers", watch)
            step_functions.evaluate(replace(contexts(run)[name], folder=tmp_path))
        return models[0]

    return ask


def features_of(run: Path, model: Any, encoder: str) -> Tensor:
    (data,) = run.glob("steps/data-*")
    pixels = EncoderView(32, 8)(Corpus(data).pictures("test")[:4, 0], ENCODERS[encoder], None)["pixel_values"]
    with torch.no_grad():
        return features(model, ENCODERS[encoder], pixels)


def pretrained_features(run: Path, encoder: str, as_: EncoderPositions) -> Tensor:
    """Of the pretrained CLIP encoder, once its positions are swapped."""
    (path,) = run.glob(f"steps/encoder_{encoder}_*/tower.safetensors")
    tower = build_tower(ENCODERS["clip"], SHAPE, EncoderPositions())
    tower.load_state_dict(load_file(path))
    attach(tower, as_, 4, 1)
    return features_of(run, tower.eval(), "clip")


def test_every_arm_answers_every_question(run: Path) -> None:
    results = collect(run)
    assert {row["arm"] for row in results["scores"]} == {arm["id"] for arm in results["arms"]}
    assert len(results["arms"]) == 8 and not [note for note in results["notes"] if "not done" in note]
    assert {curve["arm"] for curve in results["curves"]} == {arm["id"] for arm in results["arms"]} - {"published"}


def test_a_swapped_encoder_is_the_finished_one_with_other_positions(run: Path, evaluated: Any) -> None:
    axial, learned = EncoderPositions("axial", table="replace"), EncoderPositions()
    for stage in ("connector", "instruct"):
        swapped = evaluated(f"evaluate/{stage}/swapped/seed0")
        ours = features_of(run, swapped.model.vision_tower, "clip")
        assert torch.equal(ours, pretrained_features(run, "clip-learned", axial))
        published = evaluated(f"evaluate/{stage}/published/seed0")
        ours = features_of(run, published.model.vision_tower, "clip")
        assert torch.equal(ours, pretrained_features(run, "clip-learned", learned))
        assert torch.equal(published.lm_head.weight, swapped.lm_head.weight)
        state, other = published.model.multi_modal_projector, swapped.model.multi_modal_projector
        assert all(torch.equal(a, b) for a, b in zip(state.parameters(), other.parameters(), strict=True))


def test_an_adapted_encoder_trains_from_the_swapped_one(run: Path, evaluated: Any) -> None:
    adapted = evaluated("evaluate/instruct/adapted/seed0")
    ours = features_of(run, adapted.model.vision_tower, "clip")
    assert not torch.equal(ours, pretrained_features(run, "clip-learned", EncoderPositions("axial", table="replace")))
    tables = [value for name, value in adapted.state_dict().items() if "position_embedding.weight" in name]
    assert len(tables) == 1 and not tables[0].any()


@pytest.mark.parametrize(("arm", "tokens"), [("learned", 16), ("dropped", 15), ("breaks", 20), ("queries", 4)])
def test_rows_have_as_many_placeholders_as_the_arm_takes(run: Path, evaluated: Any, arm: str, tokens: int) -> None:
    model = evaluated(f"evaluate/connector/{arm}/seed0")
    assert model.tokens_per_image == model.config.image_seq_length == tokens
    (data,) = run.glob("steps/data-*")
    corpus = Corpus(data)
    rows = corpus.rows_for(tokens)
    first = rows.tokens[: rows.starts[1]]
    assert np.count_nonzero(first == corpus.words.image) == tokens
    assert rows.positions[1 + tokens] == 1 + tokens and rows.turns[1 + tokens] == 0


def test_row_breaks_are_trained_and_saved_with_the_connector(run: Path, evaluated: Any) -> None:
    (path,) = run.glob("steps/connector_siglip-dinov2-learned-row_break_*/connector.safetensors")
    saved = load_file(path)
    assert "image_newline" in saved
    assert not [name for name in saved if name.startswith(("vision_tower", "language_model"))]
    model = evaluated("evaluate/connector/breaks/seed0")
    assert torch.equal(model.model.image_newline, saved["image_newline"])


def test_an_encoder_without_pretraining_is_as_random_as_it_was_built(run: Path) -> None:
    (folder,) = run.glob("steps/encoder_siglip-none-mixed_*")
    assert {path.name for path in folder.iterdir()} == {"tower.safetensors", "done.json"}
    torch.manual_seed(json.loads((run / "plan.json").read_text())["seeds"] - 1)
    tower = build_tower(ENCODERS["siglip"], SHAPE, EncoderPositions("mixed", table="replace"))
    state = tower.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(folder / "tower.safetensors").items())
