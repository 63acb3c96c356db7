"""What reports say of studies of real size: the paper's tables, general minus spatial, pictures, half of a run."""

import copy
import csv
import json
from math import hypot, inf
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from blindspot.evaluation.paper import load
from blindspot.reporting import collect, write_report
from blindspot.reporting.page import PICTURES, wanted_pictures
from blindspot.reporting.tables import (
    NOT_YET,
    PaperTable,
    difference_table,
    paper_rows,
    paper_tables,
    rows_at,
    score_table,
)
from blindspot.text import DASH, MINUS
from tests.reporting.checker import Checker, edit_answers, edit_plan, mark_done
from tests.reporting.conftest import write_run

pytestmark = pytest.mark.usefixtures("quick")

SPATIAL, GENERAL = ("mmvp", "gqa", "vsr"), ("mme", "seedbench_img")
COLUMNS: list[dict[str, Any]] = [
    *({"id": f"{name}/overall", "benchmark": name, "label": "overall", "paper": name.upper()} for name in SPATIAL[:1]),
    {"id": "gqa/overall", "benchmark": "gqa", "label": "overall", "paper": "GQA"},
    {"id": "gqa/query", "benchmark": "gqa", "label": "query", "paper": "GQA"},
    {"id": "vsr/overall", "benchmark": "vsr", "label": "overall", "paper": "VSR", "chance": 0.5},
    {"id": "mme/overall", "benchmark": "mme", "label": "overall", "paper": "MME", "chance": 0.375},
    {"id": "seedbench_img/overall", "benchmark": "seedbench_img", "label": "overall", "paper": "SEED", "chance": 0.25},
]
PAPER = {
    "a": "LLaVA-SigLIP",
    "b": "LLaVA-SigLIP-2D-RoPE",
    "c": "LLaVA-SigLIP-2D-RoPE",
    "q": "Qwen2.5-VL",
    "other": None,
}
DIGEST = "0123456789abcdef"
Row = dict[str, Any]


def _write(folder: Path, **smaller: Any) -> Path:
    """Arms of real size, by the letters of `PAPER`; GQA is answered freely, of MMVP two options are told."""
    shape = {"axes": {"family": "siglip", "positions": "learned"}, "block": "Arms"}
    arms = [{"id": name, "label": f"Arm {name}", "paper": row, **shape} for name, row in PAPER.items()]
    arms.append({**arms[0], "id": "replicate", "label": "Arm a (replicate)", "replicate_of": "a", "paper": None})
    asked = {column["benchmark"]: {"chance": 0.3, **column, "id": column["benchmark"]} for column in COLUMNS}
    run = write_run(folder, per_column=24, columns=list(asked.values()), arms=arms, **smaller)
    pairs = [{"a": "b", "b": "a", "label": "b against a", "kind": "x"}]
    edit_plan(run, columns=COLUMNS, pairs=pairs, data={})
    edit_answers(run, lambda number, row: row.update(choices=[]) if row["benchmark"] == "gqa" else None)
    for folder in run.glob("steps/*-evaluate"):
        benchmarks = {name: {"digest": DIGEST} for name in asked}
        (folder / "run.json").write_text(json.dumps({"benchmarks": benchmarks}))
        mark_done(folder)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("real") / "run")


@pytest.fixture(scope="module")
def results(run: Path) -> Row:
    return collect(run)


def _texts(table: PaperTable, name: str) -> list[str]:
    (row,) = [row for _, rows in table.blocks for row in rows if row.label == name]
    return [cell.text for cell in row.cells]


def test_the_papers_tables_have_its_rows_and_columns_with_ours_beside(results: Row) -> None:
    tables = paper_tables(paper_rows(results))
    assert list(tables) == ["1", "2", "5"], "nothing of Table 4 is asked"
    assert tables["1"].header == [("MME", 2), ("SEED", 2)]
    assert tables["2"].header == [("MMVP", 2), ("GQA", 2), ("VSR", 2)] and tables["5"].header == [
        ("GQA", 2),
        ("GQA query", 2),
    ]
    (frontier, first), (variants, second) = tables["2"].blocks
    assert (frontier, variants) == ("Frontier models", "LLaVA variants")
    assert {row.label for row in first} >= {"Qwen2.5-VL (Arm q)", "Molmo"}
    names = [row.label for row in second]
    assert names[2:5] == ["LLaVA-SigLIP (Arm a)", "LLaVA-SigLIP-2D-RoPE (Arm b)", "LLaVA-SigLIP-2D-RoPE (Arm c)"]
    printed, scores = load().row("LLaVA-SigLIP"), rows_at(results["scores"], "instruct")
    score = {name: scores["a", f"{name}/overall"]["score"] for name in SPATIAL}
    ours = [f"{score['mmvp']:.3f}", f"{100 * score['gqa']:.1f}", f"{100 * score['vsr']:.1f}"]  # on the paper's scales
    assert _texts(tables["2"], names[2])[::2] == ours
    assert _texts(tables["2"], names[2])[1::2] == [printed[name, "overall"] for name in SPATIAL]
    assert _texts(tables["2"], "Molmo")[::2] == [DASH] * 3
    for _, rows in tables["2"].blocks:
        best = [
            max(float(row.cells[place].text) for row in rows if row.cells[place].text != DASH) for place in range(6)
        ]
        assert all(cell.best == (cell.text != DASH and float(cell.text) == best[place])
                   for row in rows for place, cell in enumerate(row.cells) if place % 2)  # fmt: skip


def test_they_are_written_as_latex_and_csv_and_shown(run: Path, results: Row) -> None:
    page = Checker(write_report(run)).text
    assert all(f"Table {number}" in page for number in "125") and "Table 4" not in page
    assert {path.name for path in (run / "tables").glob("paper*")} == {
        "paper.csv", *(f"paper_instruct_table{number}.tex" for number in "125")}  # fmt: skip
    said, first = (run / "tables" / "answers.tex").read_text(), results["gallery"][0]
    assert said.startswith(f"% {first['prompt']}") and said.count(r"\\") == 1 + len(first["answers"]) == 1 + 6
    rows = list(csv.DictReader((run / "tables" / "paper.csv").open()))
    assert len(rows) == 16 * (2 + 3 + 2), "the paper's 15 rows, one of which two arms repeat"
    assert {row["arm"] for row in rows} == {"a", "b", "c", "q", ""}, "the replicate repeats no row of the paper"


def test_a_study_that_repeats_nothing_of_the_paper_has_no_such_tables(results: Row) -> None:
    changed = results | {"arms": [arm | {"paper": None} for arm in results["arms"]]}
    assert paper_rows(changed) == []


def test_general_minus_spatial_is_by_hand(results: Row) -> None:
    chance = {column["id"]: column["chance"] for column in results["columns"]}
    assert chance["mmvp/overall"] == 0.5, "of two options"
    assert chance["gqa/overall"] is None, "of open answers"
    own = {(row["arm"], row["column"], row["seed"]): row for row in results["scores"]
           if (row["stage"], row["split"]) == ("instruct", "iid")}  # fmt: skip

    def gap(arm: str, seed: int | None) -> float:
        def mean(names: tuple[str, ...]) -> float:
            ids = [f"{name}/overall" for name in names]
            return fmean((own[arm, one, seed]["score"] - (chance[one] or 0)) / (1 - (chance[one] or 0)) for one in ids)

        return mean(GENERAL) - mean(SPATIAL)

    rows = {row["arm"]: row for row in results["gaps"] if row["stage"] == "instruct"}
    assert rows.keys() == {*PAPER, "replicate"}
    row = rows["a"]
    assert row["difference"] == pytest.approx(gap("a", None), abs=1e-5)
    assert [one["difference"] for one in row["seeds"]] == pytest.approx([gap("a", 0), gap("a", 1)], abs=1e-5)
    parts = [own["a", f"{name}/overall", None]["error"] / (1 - (chance[f"{name}/overall"] or 0)) / len(group)
             for group in (GENERAL, SPATIAL) for name in group]  # fmt: skip
    assert row["error_questions"] == pytest.approx(hypot(*parts), rel=1e-4), "independent benchmarks"
    assert row["noise_included"] and row["error"] > row["error_questions"]
    assert row["low"] < row["difference"] < row["high"]
    half = stats.norm.ppf(0.975) * row["error"]
    assert half < (row["high"] - row["low"]) / 2 < 2 * half, "t with few degrees of freedom is wider"
    assert rows["other"]["paper"] is None and inf > abs(rows["a"]["paper"]) > 0
    table = score_table(results, "instruct")
    assert table and table.columns[-1].name == f"General {MINUS} spatial" and table.header[-1] == ("General", 1)
    assert _texts(table, "Arm a")[-1] == f"{100 * row['difference']:+.1f}".replace("-", MINUS)
    assert all(len(line.cells) == len(table.columns) for _, lines in table.blocks for line in lines)


def test_a_model_at_chance_everywhere_has_no_gap(run: Path) -> None:
    from blindspot.reporting.results import _gaps
    from blindspot.reporting.run import load_plan

    plan = load_plan(run)
    rows = [
        {"arm": "a", "stage": "instruct", "seed": seed, "split": "iid", "column": column.id, "clusters": 9}
        | {"score": column.chance or 0.0, "error": 0.0}
        for column in plan.columns for seed in (None, 0)
    ]  # fmt: skip
    (row,) = _gaps(plan, rows)
    assert (row["difference"], row["general"], row["spatial"]) == (0, 0, 0)
    assert row["low"] is None, "nothing varies, so that nothing is known of the error"
    assert _gaps(plan, rows[:-2]) == [], "not before all of its benchmarks are known"


def test_half_a_run_says_what_is_not_there_yet(tmp_path: Path) -> None:
    run = _write(tmp_path / "run")
    for name in ("b-0-instruct", "b-1-instruct", "replicate-1-instruct"):
        (run / f"steps/{name}-evaluate/done.json").unlink()
    results = collect(run)
    assert [(row["arm"], row["stage"], row["seed"]) for row in results["missing"]] == [
        ("b", "instruct", 0), ("b", "instruct", 1), ("replicate", "instruct", 1)]  # fmt: skip
    table, differences = paper_tables(paper_rows(results))["1"], difference_table(results, "connector")
    assert _texts(table, "LLaVA-SigLIP-2D-RoPE (Arm b)")[::2] == [NOT_YET] * 2
    assert DASH in _texts(table, "Molmo") and NOT_YET not in _texts(table, "LLaVA-SigLIP (Arm a)")
    assert differences and NOT_YET not in _texts(differences, "b against a")
    assert NOT_YET in Checker(write_report(run)).text
    partly = copy.deepcopy(results)  # as if one benchmark had not been asked of the replicate
    partly["scores"] = [row for row in results["scores"] if (row["arm"], row["column"]) != ("replicate", "vsr/overall")]
    scores = score_table(partly, "instruct")
    assert scores and _texts(scores, "Arm a (replicate)")[3] == NOT_YET


def test_a_run_with_stage_1_alone_has_a_page(tmp_path: Path) -> None:
    run = _write(tmp_path / "run", seeds=(0,))
    for path in run.glob("steps/*-instruct-evaluate/done.json"):
        path.unlink()
    results = collect(run)
    assert paper_rows(results) == [] and score_table(results, "instruct") is None
    text = Checker(write_report(run)).text
    assert "Scores after stage 1" in text and "Scores after stage 2" not in text and "Beside the paper" not in text


def test_pictures_come_from_files_that_name_their_data(run: Path, results: Row) -> None:
    wanted = wanted_pictures(run, results)
    assert {name for name, *_ in wanted.values()} == {*SPATIAL, *GENERAL}, "every benchmark in its turn"
    assert {digest for _, digest, _ in wanted.values()} == {DIGEST} and len(wanted) == len(results["gallery"])
    page = write_report(run).read_text()
    assert f"{len(wanted)} pictures are not at hand" in page and "blindspot report RUN --data DATA" in page
    path = next(iter(wanted))
    assert path.parent == run / PICTURES and DIGEST[:12] in path.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a JPEG")
    page = write_report(run).read_text()
    assert page.count('class="photo"') == 1 and f"{len(wanted) - 1} pictures are not at hand" in page


def test_boxes_of_several_conventions_are_drawn_on_pictures_of_any_shape(tmp_path: Path) -> None:
    run = _write(tmp_path / "run", seeds=(0,), stages=("instruct",))
    said = {
        "a": ("llava-normalised", "[0.25, 0.5, 0.5, 1.0]"),
        "b": ("qwen-1000", "(250,500),(500,1000)"),
        "c": ("molmo-points", '<point x="1" y="2">'),
    }

    def ask(number: int, row: Row, convention: str = "", raw: str = "") -> None:
        if row["benchmark"] == "mmvp":
            groups = {"convention": convention, "view": "200x100 at 0.0 0.0 200.0 100.0", "picture": "200x100"}
            row.update(
                kind="boxes", answer="50.0 50.0 100.0 100.0", raw=raw, partial=1.0, groups=row["groups"] | groups
            )

    for path in run.glob("steps/*-evaluate"):
        convention, raw = said.get(path.name[0], said["a"])
        edit_answers(run, lambda number, row, c=convention, r=raw: ask(number, row, c, r), path.name)
    picks = collect(run)["localisation"]
    assert picks and all(pick["units"] == [200, 100] and pick["box"] == [50, 50, 100, 100] for pick in picks)
    boxes = {answer["arm"]: answer["box"] for answer in picks[0]["answers"]}
    assert boxes["a"] == boxes["b"] == [50, 50, 100, 100] and boxes["c"] is None, "a point is no box"
    assert 'viewBox="0 0 100 50.0"' in write_report(run).read_text()
