"""The studies of depth and of films, on a few pictures: from their YAML to their results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blindspot.errors import UserError
from blindspot.reporting import collect
from blindspot.scenes.solid.registry import CUES, FEET
from blindspot.studies.corpus import Corpus
from blindspot.studies.loading import load_study
from blindspot.studies.plan import columns, plan_steps

STUDY = """
name: tiny-depth
title: A tiny study of depth
source: solid
arms: {families: [clip], positions: [axial]}
seeds: 1
data: {train: 20, test: 8, probe: 8}
model: {image: 32, patch: 8, width: 16, heads: 2, mlp: 24, encoder_layers: 1, language_layers: 1, rotary_base: 100}
text: {about: plain, steps: 3, batch: 4, lr: 5e-3}
encoder: {captions: objects, steps: 3, batch: 4, lr: 3e-3}
connector: {steps: 3, batch: 2, lr: 2e-2}
instruct: {encoder: trained, steps: 3, batch: 2, lr: 4e-3}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, run_inline: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    (folder / "tiny.yaml").write_text(STUDY)
    return run_inline(folder / "tiny.yaml", folder / "run", None)


def test_the_corpus_holds_pictures_of_every_split(run: Path) -> None:
    corpus = Corpus(next((run / "steps").glob("data-*")))
    assert corpus.images.shape == (20, 32, 32, 3) and len(corpus.rows) == 20
    assert corpus.pictures("test").shape == corpus.pictures("probe").shape == (64, 1, 32, 32, 3)
    assert len(corpus.questions("test")) == len(corpus.questions("probe")) == 64
    baselines = json.loads((corpus.folder / "baselines.json").read_text())["nearer_shadow"]
    assert baselines["lower in the picture"] == baselines["larger in the picture"] == 0.5


def test_results_tell_each_cue_and_who_has_not_learned(run: Path) -> None:
    results: dict[str, Any] = collect(run)
    columns = {column["id"]: column for column in results["columns"]}
    assert {"nearer_shadow", "nearer_size", "nearer_occlusion", "nearer_none", "nearer_naive"} < columns.keys()
    assert columns["nearer_shadow"]["relative"] and columns["nearer_shadow"]["baselines"]
    row = next(
        row for row in results["scores"]
        if (row["column"], row["stage"], row["seed"]) == ("nearer_shadow", "instruct", None) and row["split"] == "iid"
    )  # fmt: skip
    assert row["n"] == 8 and row["clusters"] == 4
    assert (row["score"], row["learned"]) < (0.95, 1), "below .95 a run has not learned depth"


def test_films_are_rows_of_three_pictures_in_their_order(tmp_path: Path, run_inline: Callable[..., Path]) -> None:
    named = "named: [{id: film, label: Film, family: clip, language_positions: mrope_film}]"
    changes = {"source: solid": "source: motion", "families: [clip], positions: [axial]": named}
    text = STUDY
    for before, after in changes.items():
        text = text.replace(before, after)
    (tmp_path / "tiny.yaml").write_text(text)
    run = run_inline(tmp_path / "tiny.yaml", tmp_path / "run", None)
    corpus = Corpus(next((run / "steps").glob("data-*")))
    assert corpus.images.shape == (60, 32, 32, 3) and corpus.row_images[1].tolist() == [3, 4, 5]
    tokens = corpus.rows.tokens[: corpus.rows.starts[1]]
    assert (tokens == corpus.words.image).nonzero()[0].tolist() == [*range(1, 49)], "no word between frames"
    films = corpus.pictures("test")
    assert films.shape == (40, 3, 32, 32, 3)
    ordered = [one.images[0] for one in corpus.questions("test") if one.benchmark == "first"]
    assert all((films[a][[0, 2]] == films[b][[0, 2]]).all() for a, b in zip(ordered[::2], ordered[1::2], strict=True))
    config = json.loads(next((run / "steps").glob("instruct_*/model/config.json")).read_text())
    assert config["images_per_question"] == 3
    scored = {(row["column"], row["n"]) for row in collect(run)["scores"] if row["stage"] == "instruct"}
    assert {("first", 8), ("first_shuffled", 8), ("moved", 8)} <= scored


@pytest.mark.parametrize("cue", CUES)
def test_columns_and_probes_follow_the_cue_of_training(cue: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY.replace("probe: 8", f"probe: 8, cue: {cue}"))
    study = load_study(tmp_path / "mine.yaml")
    learned = {column["id"]: column.get("learned_at") for column in columns(study)}
    assert {name for name, level in learned.items() if level} - {"foot"} == {f"nearer_{cue}"}
    assert ("foot" in learned) == (cue in FEET)
    (instruct,) = (step for step in plan_steps(study, "code") if step.kind == "instruct")
    assert instruct.config["instruct"]["probes"] == [f"nearer_{cue}"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source: solid": "source: solid\ndiagnose: [probes]"}, "diagnose: is of flat scenes; remove it"),
        ({"about: plain": "about: raster"}, "text.about: is of flat scenes; remove it"),
        ({"probe: 8": "probe: 8, cue: sound"}, 'data.cue: "sound": unknown; one of: shadow, '),
        (
            {"probe: 8": "probe: 8, cue: none", "instruct: {": "instruct: {probes: [foot], "},
            'instruct.probes: no column "foot"',
        ),
        (
            {"source: solid": "source: scenes", "probe: 8": "probe: 8, cue: size"},
            "data.cue: is of pictures with depth (source: solid); remove it",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    text = STUDY
    for before, after in changes.items():
        text = text.replace(before, after)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_study(tmp_path / "mine.yaml")
    assert message in str(refused.value) and "\n" not in str(refused.value)
