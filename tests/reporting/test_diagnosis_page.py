"""The page of a diagnosis: from tables and pictures to sentences, figures and one file of HTML."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindspot.diagnostics.counterfactuals import plots as counterfactuals
from blindspot.diagnostics.probes.plots import best_rows, of_arms, stage_of
from blindspot.diagnostics.registry import DIAGNOSTICS, plots_of
from blindspot.errors import UserError
from blindspot.reporting.diagnosis import follows, load_diagnosis, write_diagnosis
from blindspot.reporting.drawing import write_figures
from tests.reporting.checker import Checker

EVIL = "<script>alert('1')</script>\"' onload=x \x00\u202e{{ 7 * 7 }} $\\frac$"
Row = dict[str, Any]
Tables = dict[str, list[Row]]


def _n(value: float | None, half: float = 0.02, n: int = 64, **labels: Any) -> Row:
    low, high = (None, None) if value is None else (value - half, value + half)
    return {**labels, "value": value, "low": low, "high": high, "n": n}


def _probes() -> Tables:
    labels = ["pixels", "encoder 0", "encoder 1", "connector", "language 1 (image)", "language 0 (last)",
              "language 1 (last)"]  # fmt: skip
    scores = {"position": (0.3, 0.6, 0.98, 0.95, 0.94, 0.0, 0.34), "relation": (0.25, 0.3, 0.4, 0.5, 0.6, 0.25, 0.8)}
    rows = []
    for target, values in scores.items():
        chance = 0.0 if target == "position" else 0.25
        for order, (label, value) in enumerate(zip(labels, values, strict=True)):
            tokens = "last" if "last" in label else "image"
            for readout, score in (("mean", value - 0.2), ("all", value)):
                for held_out in (False, True):
                    rows.append(_n(score - 0.1 * held_out, stage=label, order=order, tokens=tokens, target=target,
                                   readout=readout, control=0.1, selectivity=score - 0.25, chance=chance,
                                   held_out=held_out))  # fmt: skip
    drops = [_n(0.6, 0.1) | {"from": "language 1 (image)", "to": "language 1 (last)", "target": "position"},
             _n(0.03) | {"from": "encoder 1", "to": "connector", "target": "position"}]  # fmt: skip
    gap = [_n(0.3, target="relation", stage="language 1 (last)", readout="all", probe=0.8, model=0.5),
           _n(-0.1, target="relation", stage="connector", readout="all", probe=0.5, model=0.6)]  # fmt: skip
    return {"stages": rows, "drops": drops, "gap": gap}


def _counterfactuals() -> Tables:
    follow = {"content": 0.98, "language ids": 0.0, "encoder positions": 0.7}
    moves = ("mirrored or flipped", "mirrored", "flipped")
    shares = [_n(value, factor=factor, move=move, unchanged=1 - value, other=0.0, elsewhere=None)
              for factor, value in follow.items() for move in moves]  # fmt: skip
    arranged = [("original", "original", "original"), ("mirrored", "original", "original"),
                ("original", "mirrored", "original"), ("original", "original", "mirrored")]  # fmt: skip
    said = ("left", "right", "left", "right")
    flips = []
    for (content, ids, encoder), answer in zip(arranged, said, strict=True):
        right, drawn = ("left", 0) if content == "original" else ("right", 1)
        row = _n(float(answer == right), 0, 1, picture=0, drawn=drawn, prompt="red?", answer=answer, right=right)
        flips.append(row | {"content": content, "ids": ids, "encoder": encoder})
    crossed = [_n(0.9 if encoder == "original" else 0.3, content=content, ids=ids, encoder=encoder)
               for content in ("original", "mirrored") for ids in ("original", "constant")
               for encoder in ("original", "zero")]  # fmt: skip
    return {"shares": shares, "factorial": crossed, "flips": flips}


def _consistency() -> Tables:
    names = ("original", "turned 90", "mirrored")
    symmetries = [_n(0.9 - 0.2 * n, symmetry=name, measure="accuracy") for n, name in enumerate(names)]
    symmetries += [_n(0.8 - 0.2 * n, symmetry=name, measure="agreement") for n, name in enumerate(names) if n]
    symmetries.append(_n(0.5, symmetry="all", measure="agreement"))
    together = [
        _n(value, set="four turns", measure=measure, guess=0.1) for measure, value in (("fit", 0.6), ("all right", 0.4))
    ]
    flips = [_n(1.0, 0, 1, picture=0, drawn=n, symmetry=name, prompt="red?", answer="left", right=right)
             for n, (name, right) in enumerate(zip(names, ("left", "below", "right"), strict=True))]  # fmt: skip
    return {"symmetries": symmetries, "together": together, "flips": flips}


def _attention() -> Tables:
    objects = [_n(value + layer, query=query, object=query, measure=measure, layer=layer, heads=heads, head=None)
               for query in ("subject", "reference") for measure, value in (("enrichment", 1.5), ("auroc", -0.4))
               for layer in (0, 1) for heads in ("mean", "best")]  # fmt: skip
    shares = [_n(0.1 + 0.2 * layer, query="last", measure="share", layer=layer, even=0.6) for layer in (0, 1)]
    scaling = [_n(0.5, task="direction", method="none", form=None, alpha=1.0, difference=0.0, difference_low=0.0),
               _n(0.6, task="direction", method="ScalingVis", form="published", alpha=1.5, difference=0.1,
                  difference_low=0.02)]  # fmt: skip
    rollout = [_n(0.2, object="asked", measure="mass", layer=0)]
    return {"objects": objects, "shares": shares, "scaling": scaling, "rollout": rollout}


def _patching() -> Tables:
    groups = {"all image": (1.0, 0.9, 0.0), "last token": (0.0, 0.1, 1.0)}
    patching = [_n(value, part="language", layer=layer, group=group, flipped=0.0, tokens=1.0)
                for group, values in groups.items() for layer, value in enumerate(values)]  # fmt: skip
    patching.append(_n(1.0, part="encoder", layer=0, group="all image", flipped=1.0, tokens=16.0))
    knockout = [_n(value, first=first, last=last) | {"from": "all image", "to": "last token"}
                for first, last, value in ((0, 0, 0.0), (1, 1, 0.6), (0, 1, 0.7))]  # fmt: skip
    ids = [
        _n(None if layer == 0 else 0.9, token="subject word", layer=layer, chance=0.2, share=0.9) for layer in (0, 1)
    ]
    steering = [_n(value, token="subject word", layer=1, direction=direction, strength=1.0)
                for direction, value in (("spatial id", 0.8), ("random", 0.1))]  # fmt: skip
    return {"patching": patching, "knockout": knockout, "spatial_id": ids, "steering": steering}


def _behaviour() -> Tables:
    conditions = [_n(value, task="direction", condition=condition, chance=0.25)
                  for condition, value in (("as it is", 0.9), ("blind", 0.26), ("noise", 0.25))]  # fmt: skip
    cells = [_n(0.9 if row else 0.4, task="direction", object="subject", row=row, column=column, beyond=0.2 * row - 0.3)
             for row in range(2) for column in range(2)]  # fmt: skip
    spread = [{"task": "direction", "object": "subject", "value": 0.5, "low": None, "high": None, "n": 64,
               "cells": 4, "p": 1e-5}]  # fmt: skip
    factors = [_n(value, task="direction", factor="distance", level=level, beyond_low=value - 0.02,
                  beyond_high=value + 0.02) for level, value in ((1, 0.7), (2, 0.95))]  # fmt: skip
    axes = [_n(value, measure=measure, axis=axis)
            for measure, gap in (("of four", 0.0), ("of two", 0.2))
            for axis, value in (("left, right", 0.7 + gap), ("above, below", 0.7), ("difference", gap))]  # fmt: skip
    counts = [_n(0.8 if truth == answer else 0.2, truth=truth, answer=answer) for truth in (2, 3) for answer in (2, 3)]
    return {"conditions": conditions, "cells": cells, "spread": spread, "factors": factors, "axes": axes,
            "counts": counts}  # fmt: skip


def _coherence() -> Tables:
    rows = [_n(0.1, encoder="pixels", layer=None)]
    rows += [_n(value + 0.1 * layer, encoder=name, layer=layer) for name, value in (("trained", 0.4), ("shuffled", 0.0))
             for layer in (0, 1)]  # fmt: skip
    return {"coherence": rows}


def _norms() -> Tables:
    index = [_n(0.4, task="direction", norms="as they are"), _n(None, task="direction", norms="matched")]
    return {"norms": [_n(8.0 - 6 * layer, layer=layer) for layer in (0, 1)], "permutation": index,
            "accuracy": [_n(0.9, task="direction", condition="as it is")]}  # fmt: skip


TABLES: dict[str, Callable[[], Tables]] = {
    "probes": _probes, "counterfactuals": _counterfactuals, "consistency": _consistency, "coherence": _coherence,
    "attention": _attention, "norms": _norms, "patching": _patching, "behaviour": _behaviour,
}  # fmt: skip


def _pictures(name: str) -> dict[str, Any]:
    images = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(1, 3, 8, 8, 3)
    maps = np.full((3, 2, 1, 2, 2), 0.1)
    maps[:, :, 0, 0, 0] = 0.7
    shown = {"images": images[0, :1], "maps": maps, "queries": np.array(["last", "subject", "reference"]),
             "layers": np.array([0, 1]), "boxes": np.array([[[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]]]),
             "prompts": np.array(["red?"]), "answers": np.array(["left"]), "given": np.array(["left"])}  # fmt: skip
    points = np.stack([np.zeros((4, 2)), [[-1, -1], [-1, 1], [1, -1], [1, 1]]])
    return {"counterfactuals": {"examples": images}, "consistency": {"examples": images}, "attention": shown,
            "patching": {"spatial_id": points}}.get(name, {})  # fmt: skip


def _write(folder: Path, names: list[str], tables: Callable[[str], Tables] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = (tables or (lambda name: TABLES[name]()))(name)
        kinds = plots_of(name).ROWS
        listed = [
            {"name": key, "title": f"Title of {key}", "notes": ["A note."],
             "rows": [dict.fromkeys(getattr(kinds.get(key), "__required_keys__", ())) | row for row in rows]}
            for key, rows in found.items()
        ]  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps({"diagnostic": name, "tables": listed}), encoding="utf-8")
        if _pictures(name):
            np.savez(folder / f"{name}.npz", **_pictures(name))
    (folder / "diagnosis.json").write_text(json.dumps({"model": "/models/some-arm", "stimuli": 64, "seed": 0}))
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = _write(tmp_path_factory.mktemp("diagnosis") / "arm", list(TABLES))
    page, sentences = write_diagnosis(folder)
    assert page == folder / "index.html"
    return folder, sentences


def test_it_has_every_section_in_order_and_loads_nothing(whole_run: tuple[Path, list[str]]) -> None:
    checked = Checker(whole_run[0] / "index.html")
    places = [checked.text.index(one.question) for one in DIAGNOSTICS.values()]
    assert places == sorted(places)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(checked.tags)
    policy = [value for name, value in checked.attributes if name == "content" and "default-src" in value]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for name, value in checked.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "href") or value.startswith("data:")
    assert checked.tags.count("details") == checked.tags.count("table") == sum(len(make()) for make in TABLES.values())


def test_every_figure_is_also_a_pdf_and_a_csv(whole_run: tuple[Path, list[str]]) -> None:
    figures = whole_run[0] / "figures"
    names = {path.stem for path in figures.glob("*.svg")}
    assert names == {path.stem for path in figures.glob("*.pdf")} == {path.stem for path in figures.glob("*.csv")}
    assert names == {
        "stages", "stage_controls", "follow", "factorial", "flips", "symmetries", "together", "turned", "coherence",
        "attention", "attention_maps", "attention_share", "attention_scaling", "norms", "patching", "knockout",
        "spatial_id", "steering", "conditions", "cells", "axes", "factors", "counts",
    }  # fmt: skip
    assert Checker(whole_run[0] / "index.html").tags.count("img") == len(names)
    with (figures / "stages.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 14 and {row["readout"] for row in rows} == {"all"}


def test_titles_and_sentences_say_what_the_numbers_say(whole_run: tuple[Path, list[str]]) -> None:
    folder, sentences = whole_run
    text, lead = Checker(folder / "index.html").text, " ".join(sentences)
    assert 3 <= len(sentences) <= 8 and all(sentence.endswith(".") and sentence in text for sentence in sentences)
    for said in (
        "position R² 0.98, then 0.34; relation 80 %, then 80 %",
        "loss is of position, between the image tokens and the last token of language layer 1: 0.60 (0.50 to 0.70)",
        "relation can be read from the last token in 80 % of pictures, the model answers 50 % right",
        "content in 98 % (96 to 100), language-model ids in 0 % (\N{MINUS SIGN}2 to 2)",
        "Answered right: direction 90 % (88 to 92); blind, no task is clearly above chance",
    ):
        assert said in lead
    for title in (
        "R² 0.94 to R² 0.34; relation is there (80 %) but not answered (50 %)",
        "The best read-outs beat random labels by 0.55 (relation) or more",
        "Answers follow the picture's content (98 %) and encoder positions (70 %), not language-model ids (0 %)",
        "90 % with encoder positions as they are, 30 % with encoder positions taken away; language ids change nothing",
        "Of 1 example answers change 1 with content, 0 with language ids and 1 with encoder positions moved",
        "Answers turn with the picture in 50 % of cases; least when it is mirrored (40 %)",
        "Of these 3 versions of 1 pictures, 1 are answered right",
        "Neighbouring patches agree by 0.40 to 0.50 more than distant ones; pixels by 0.10, shuffled weights by 0.10",
        "In layer 1 the subject's word looks at the subject 2.5 times as much as even attention would (AUROC 0.60)",
        "lies on the object in 1 of 1 for the last token, 1 of 1 for the subject's word, 0 of 1 for the reference's",
        "The last token spends 10 % (layer 0) to 30 % (layer 1) of its attention on the picture",
        "helps most by +10 points (direction, ScalingVis, published, alpha 1.5)",
        "enter with 8.0 times the norm of text tokens and leave with 2.0 times; their order matters for direction",
        "carried by the picture's tokens up to layer 1 of the language model, by the last token from layer 2 on",
        "Hiding the picture from the last token costs most in layer 1: 60 points",
        "At layer 1 the state of the subject word forms a map of the picture: 0.90 like a lattice",
        "turns 80 % of answers; a random push as strong turns 10 %",
        "for direction: 30 points less than elsewhere with the subject in row 1, column 1 (p <.0001)",
        "Left and right are answered better than above and below, by 20 points",
        "Distance matters most: direction 70 % right at 1, 95 % at 2",
        "Counts are right in 80 %; the most frequent error takes 2 for 3 (20 %)",
    ):
        assert title in text


def test_what_no_picture_was_asked_with_has_no_column(tmp_path: Path) -> None:
    folder = _write(tmp_path / "arm", ["counterfactuals"])
    drawn = list(counterfactuals.draw(load_diagnosis(folder)["counterfactuals"], _pictures("counterfactuals")))
    (flips,) = (one for one in drawn if one.name == "flips")
    assert len(flips.panels[0]) == 4, "as drawn, content, ids, encoder; never all three"


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    pages = [write_diagnosis(_write(tmp_path / name / "arm", ["coherence"]))[0] for name in "ab"]
    first, second = ({p.relative_to(page.parent): p.read_bytes() for p in page.parent.rglob("*.*")} for page in pages)
    assert first == second and len(first) == 6


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", list(TABLES))
def test_a_gap_in_the_numbers_is_a_gap_in_the_figure(tmp_path: Path, name: str) -> None:
    def empty(name: str) -> Tables:
        gap = {"value": float("nan"), "low": None, "high": float("inf")}
        return {key: [row | gap for row in rows] for key, rows in TABLES[name]().items()}

    page, _ = write_diagnosis(_write(tmp_path / "arm", [name], empty))
    assert "nan" not in Checker(page).text.lower().split()


@pytest.mark.usefixtures("quick")
def test_wide_intervals_prove_no_absence(tmp_path: Path) -> None:
    def vague(name: str) -> Tables:
        wide = {"low": -0.9, "high": 1.9, "difference_low": -0.9}
        return {key: [row | wide for row in rows] for key, rows in TABLES[name]().items()}

    page, _ = write_diagnosis(_write(tmp_path / "arm", ["probes", "attention", "patching", "behaviour"], vague))
    text = Checker(page).text
    for said in (
        "No clear loss of what can be read on the way to the answer",
        "No sign that the last token holds more than is answered.",
        "No clear gain from scaling attention to the picture",
        "No clear cost of hiding any tokens from others",
        "blind, no task is clearly above chance",
        "No clear difference between left and right and above and below",
    ):
        assert said in text


_GUESSED: Row = {"value": 0.25, "low": 0.2, "high": 0.3}
HEEDED: dict[str, tuple[str, str, Callable[[Row], Row], str, str]] = {
    "random labels win at the last token": (
        "probes", "stages", lambda row: {"selectivity": -0.7} if row["stage"] == "language 1 (last)" else {},
        "; at the last token random labels do as well for position (R² 0.34 against R² 1.04)",
        "There but not used"),
    "what is lost was no more than random labels": (
        "probes", "stages", lambda row: {"selectivity": 0.0} if row["stage"] == "language 1 (image)" else {},
        "No clear loss of what can be read", "Most is lost"),
    "random labels win everywhere": (
        "probes", "stages", lambda row: {"selectivity": 0.0},
        "For position and relation, even the best read-outs do no better than with random labels", "read-outs beat"),
    "a model that guesses": (
        "probes", "gap", lambda row: {"model": 0.25}, "The model answers relation no better than by guessing; most is",
        "There but not used"),
    "guessed": ("behaviour", "conditions", lambda row: _GUESSED, "No task is answered better than by guessing:",
                "Answered right:"),
    "followed by luck": ("counterfactuals", "shares", lambda row: {"n": 16, "asked": 64},
                         "25 % are answered right, no better than guessing", "Answers follow"),
    "turned by luck": ("consistency", "symmetries", lambda row: _GUESSED, "no more than by chance (25 %)", "least"),
    "no lattice": ("patching", "spatial_id", lambda row: {"chance": 0.95}, "hardly forms a map", "word forms a map"),
    "any push": ("patching", "steering", lambda row: {"value": 0.8, "low": 0.7}, "turns no more answers (80 %)",
                 "of answers; a random"),
    "any object": ("attention", "objects", lambda row: {"query": "subject"} | (
                       {"object": "other"} if row["query"] == "reference" else {}), "at other objects no less (2.5)",
                   "No layer looks"),
}  # fmt: skip


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("case", list(HEEDED))
def test_titles_heed_guessing_and_controls_where_they_speak(tmp_path: Path, case: str) -> None:
    name, table, change, said, unsaid = HEEDED[case]

    def changed(name: str) -> Tables:
        return {
            key: [row | (change(row) if key == table else {}) for row in rows] for key, rows in TABLES[name]().items()
        }

    page, sentences = write_diagnosis(_write(tmp_path / "arm", [name], changed))
    text = Checker(page).text
    assert said in text and unsaid not in text
    assert "guessing" not in said or "guessing" in sentences[0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", list(TABLES))
def test_any_table_may_be_missing(tmp_path: Path, name: str) -> None:
    for left_out in TABLES[name]():
        folder = _write(
            tmp_path / left_out, [name], lambda n, out=left_out: {k: v for k, v in TABLES[n]().items() if k != out}
        )
        (folder / f"{name}.npz").unlink(missing_ok=True)
        page, _ = write_diagnosis(folder)
        assert f"({left_out})" not in Checker(page).text and "Not done" in Checker(page).text


@pytest.mark.usefixtures("quick")
def test_a_diagnostic_that_the_model_does_not_allow_says_why(tmp_path: Path) -> None:
    folder = _write(tmp_path, ["probes"])
    left_out = {"name": "coherence", "title": "Left out", "notes": ["its tokens are no patches"], "rows": []}
    (folder / "coherence.json").write_text(json.dumps({"diagnostic": "coherence", "tables": [left_out]}))
    page, sentences = write_diagnosis(folder)
    assert sentences[-1] == "coherence is left out: its tokens are no patches"
    assert sentences[-1] in Checker(page).text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", list(TABLES))
def test_hostile_text_stays_text(tmp_path: Path, name: str) -> None:
    def hostile(name: str) -> Tables:
        found = {key: [row | {EVIL: EVIL} for row in rows] for key, rows in TABLES[name]().items()}
        return found | {EVIL: [{"label": EVIL, "value": 1.0}]}

    folder = _write(tmp_path / "arm", [name], hostile)
    (folder / "diagnosis.json").write_text(json.dumps({"model": EVIL, "stimuli": EVIL, "seed": None}))
    checked = Checker(write_diagnosis(folder)[0])
    assert "script" not in checked.tags and not any(key.startswith("on") for key, _ in checked.attributes)
    assert "{{ 7 * 7 }}" in checked.text and "\u202e" not in checked.text and "\x00" not in checked.text


def test_hostile_labels_can_be_drawn(tmp_path: Path) -> None:
    def renamed(name: str) -> Tables:
        return {key: [row | {"task": "a$b_{"} for row in rows] for key, rows in TABLES[name]().items()}

    page, _ = write_diagnosis(_write(tmp_path / "arm", ["norms"], renamed))
    assert "order matters for a$b_{ (0.40)" in Checker(page).text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "the file"),
        ('{"tables": [{"name": "coherence", "title": "y", "rows": [{"value": "much"}]}]}', "value.*valid number"),
        ('{"tables": [{"name": "coherence", "title": "y", "rows": [{"value": true}]}]}', "value.*valid number"),
        ('{"tables": [{"name": "x", "title": "y"}]}', "tables.0.rows"),
        ('{"tables": [{"name": "coherence", "title": "y", "rows": [{"value": 1}]}]}', "required"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "coherence.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said) as error:
        write_diagnosis(tmp_path)
    assert "coherence.json" in str(error.value) and "again" in str(error.value) and "\n" not in str(error.value)


def test_damaged_pictures_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no diagnosis"):
        write_diagnosis(tmp_path)
    folder = _write(tmp_path / "arm", ["counterfactuals"])
    (folder / "counterfactuals.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match=r"counterfactuals\.npz"):
        write_diagnosis(folder)
    (folder / "counterfactuals.npz").unlink()
    (folder / "diagnosis.json").write_text("[")
    (folder / "counterfactuals.json").write_text('{"tables": []}')
    with pytest.raises(UserError, match=r"diagnosis\.json is damaged"):
        write_diagnosis(folder)


def test_arms_are_compared_stage_by_stage(tmp_path: Path) -> None:
    good, bad = (load_diagnosis(_write(tmp_path / name, ["probes"])) for name in ("good", "bad"))
    for row in bad["probes"]["stages"].rows:
        if row["stage"] == "encoder 1" and row["target"] == "position":
            row["value"] = 0.1
    drawn = of_arms([("$A_", good), ("$A_", bad), ("B", bad), ("not probed", {})])
    assert drawn is not None
    assert drawn.title == "Arms differ most in position at encoder 1: $A_ 0.54, B 0.10"
    at = {(row["arm"], row["stage"], row["target"]): row["value"] for row in drawn.rows}
    assert at["$A_", "encoder 1", "position"] == pytest.approx(0.54)
    write_figures([drawn], tmp_path / "figures")
    assert (tmp_path / "figures" / "stages_of_arms.svg").is_file()
    assert of_arms([("A", {})]) is None


def test_what_answers_follow_is_a_mean_over_seeds(tmp_path: Path) -> None:
    one, other = (load_diagnosis(_write(tmp_path / name, ["counterfactuals"])) for name in "ab")
    for row in other["counterfactuals"]["shares"].rows:
        row["value"] = 0.5
    (row,) = follows([("A", one), ("A", other)])
    assert row["seeds"] == 2 and row["shares"]["content"] == pytest.approx((0.98 + 0.5) / 2)


def test_the_best_read_out_of_a_stage_is_taken_from_content_that_was_trained_on(tmp_path: Path) -> None:
    tables = load_diagnosis(_write(tmp_path / "arm", ["probes"]))["probes"]
    for row in tables["stages"].rows:
        if row["held_out"]:
            row["value"] = 0.999
    best = best_rows(tables["stages"], "position")
    assert [stage.label for stage in best] == [
        "pixels", "encoder 0", "encoder 1", "connector", "language 1 (image)", "language 0 (last)", "language 1 (last)",
    ]  # fmt: skip
    assert [row["value"] for row in best.values()][:3] == [0.3, 0.6, 0.98]
    assert stage_of({"stage": "something new", "order": 7}) > stage_of({"stage": "language 9 (last)", "order": 3})
