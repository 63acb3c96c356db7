"""From a run folder to results.json: numbers recomputed by hand, repeatability, and clear refusals."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.reporting import collect, write_report
from blindspot.reporting.results import BOXES, LIMIT, SCENES, read_box
from blindspot.reporting.tables import score_table
from blindspot.scenes.sampling import test_questions as draw_test
from tests.reporting.checker import edit_answers, edit_plan, mark_done
from tests.reporting.conftest import CLIP_ARMS

pytestmark = pytest.mark.usefixtures("quick")

VSR = {"id": "vsr", "label": "Statements", "paper": "VSR", "chance": 0.5}
PAIRS = {"id": "mmvp", "label": "Pairs", "paper": "MMVP", "metric": "pair_accuracy", "chance": 0.25}
Row = dict[str, Any]


def find(rows: list[Row], **wanted: Any) -> Row:
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row


def test_stages_that_ended_before_their_loss_was_level_are_named(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=4, columns=[VSR], arms=CLIP_ARMS, seeds=(0,))
    for name, fell in (("clip-learned", 0.01), ("clip-axial", 0.07)):
        folder = run / f"steps/{name}-0-connector"
        (folder / "levelled.json").write_text(json.dumps({"fell": fell, "level": fell < 0.02}))
        mark_done(folder)
    (note,) = (note for note in collect(run)["notes"] if "level" in note)
    assert note.startswith("1 of 2 runs of the connector stage ended") and "up to 7%" in note
    (run / "steps/clip-axial-0-connector/levelled.json").write_text('{"fell": 0.0, "level": true}')
    with pytest.raises(UserError, match="is not as its step made it"):
        collect(run)


def test_same_answers_same_bytes_without_times(run_folder: Path, results: Row) -> None:
    first = (run_folder / "results.json").read_bytes()
    assert collect(run_folder) == results == json.loads(first)
    assert (run_folder / "results.json").read_bytes() == first


def test_every_row_is_there_and_no_number_is_nan(results: Row) -> None:
    assert len(results["scores"]) == 9 * 14 * 2 * 3 * 3
    assert len(results["differences"]) == 5 * 14 * 2
    assert len(results["noise"]) == 14 * 2
    assert all(math.isfinite(value) for row in results["scores"] for value in row.values() if isinstance(value, float))


def test_a_score_is_the_mean_over_seeds_of_the_answers(run_folder: Path, results: Row) -> None:
    scores, readable = [], []
    for seed in (0, 1):
        lines = (run_folder / f"steps/aimv2-axial-{seed}-instruct-evaluate/answers.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row["benchmark"] == "vsr" and row["groups"]["split"] == "iid"]
        scores.append([row["score"] for row in rows])
        readable.append([row["parsed"] for row in rows])
    row = find(results["scores"], arm="aimv2-axial", column="vsr", stage="instruct", split="iid", seed=None)
    assert row["score"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert row["parse_failures"] == pytest.approx(1 - np.mean(readable), abs=1e-6)
    assert (row["n"], row["clusters"]) == (len(scores[0]), len(scores[0]) // 2)
    assert row["chance_corrected"] == pytest.approx(2 * row["score"] - 1, abs=1e-5)


def test_a_pair_counts_only_when_all_of_it_is_right(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=20, columns=[PAIRS], arms=CLIP_ARMS, seeds=(0,))
    edit_answers(run, lambda number, row: row.update(score=float(number % 2 == 0)), "clip-axial-0-instruct-evaluate")
    edit_answers(run, lambda number, row: row.update(score=float(number < 10)), "clip-learned-0-instruct-evaluate")
    scores = collect(run)["scores"]
    one_of_two = find(scores, arm="clip-axial", stage="instruct", split="all", seed=0)
    first_half = find(scores, arm="clip-learned", stage="instruct", split="all", seed=0)
    assert (one_of_two["score"], one_of_two["n"], one_of_two["interval"]) == (0, 10, "wilson")
    assert first_half["score"] == 0.5


def test_noise_counts_the_replicate_as_further_runs_of_its_original(results: Row) -> None:
    by_configuration: dict[str, list[float]] = {}
    for row in results["scores"]:
        if (row["column"], row["stage"], row["split"]) == ("vsr", "instruct", "iid") and row["seed"] is not None:
            name = "clip-learned" if row["arm"] == "replicate" else row["arm"]
            by_configuration.setdefault(name, []).append(row["score"])
    squares = sum(np.var(runs) * len(runs) for runs in by_configuration.values())
    noise = find(results["noise"], column="vsr", stage="instruct")
    assert noise["df"] == 10 and noise["runs"] == 18
    assert noise["deviation"] == pytest.approx(math.sqrt(squares / 10), rel=1e-4)


def test_a_difference_carries_questions_and_runs(results: Row) -> None:
    row = find(results["differences"], a="clip-axial", column="vsr", stage="instruct")
    own = {arm: [] for arm in ("clip-axial", "clip-learned", "replicate")}
    for score in results["scores"]:
        place = score["column"], score["stage"], score["split"]
        if place == ("vsr", "instruct", "iid") and score["seed"] is not None and score["arm"] in own:
            own[score["arm"]].append(score["score"])
    runs = np.var(own["clip-axial"], ddof=1) / 2 + np.var(own["clip-learned"] + own["replicate"], ddof=1) / 2
    assert row["error"] == pytest.approx(math.sqrt(row["error_questions"] ** 2 + runs), rel=1e-4)
    assert not row["noise_pooled"]
    assert row["noise_included"] and [seed["seed_a"] for seed in row["seeds"]] == [0, 1]
    assert row["difference"] == pytest.approx(np.mean([seed["difference"] for seed in row["seeds"]]), abs=1e-6)


def test_holm_runs_over_families_and_columns_of_a_stage_and_spares_replicates(results: Row) -> None:
    rows = [row for row in results["differences"] if row["stage"] == "instruct"]
    tested = [row for row in rows if row["kind"] == "positions"]
    smallest = min(tested, key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, 56 * smallest["p"]), rel=1e-4)
    assert all(row["p_holm"] is None and not row["significant"] for row in rows if row["kind"] == "replicate")
    count = find(results["findings"]["counts"], stage="instruct")
    assert count["significant"] == sum(row["significant"] for row in tested) > 0
    assert f"{count['significant']} of the 56 differences" in results["findings"]["text"]


def test_one_seed_without_replicate_falls_back_to_questions_and_says_so(make_run: Callable[..., Path]) -> None:
    results = collect(make_run(per_column=60, columns=[VSR], arms=CLIP_ARMS, seeds=(3,)))
    row = find(results["differences"], stage="instruct")
    assert not row["noise_included"] and row["p"] == row["p_questions"] == row["seeds"][0]["p_questions"]
    assert any("training noise is unknown" in note for note in results["notes"])
    assert results["seeds"] == [3] and results["noise"][0]["deviation"] is None


def at_chance(number: int, row: Row) -> None:
    row["score"] = float(number % 2)


def right(number: int, row: Row) -> None:
    row["score"] = float(number % 10 > 0)


def test_runs_that_fail_to_learn_are_counted_apart(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=400, columns=[VSR], arms=CLIP_ARMS, seeds=(0, 1, 2))
    edit_answers(run, right)
    edit_answers(run, at_chance, "clip-axial-1-instruct-evaluate")
    results = collect(run)
    place = {"arm": "clip-axial", "stage": "instruct", "split": "iid"}
    mean, failed = find(results["scores"], seed=None, **place), find(results["scores"], seed=1, **place)
    assert (mean["learned"], mean["runs"], mean["counted"], failed["learned"]) == (2, 3, 2, 0)
    assert (mean["failed_low"], mean["failed_high"]) == (
        pytest.approx(0.0084, abs=1e-4),
        pytest.approx(0.9057, abs=1e-4),
    )
    assert mean["score"] == pytest.approx(0.875, abs=0.01) and failed["score"] == pytest.approx(0.5, abs=0.01)
    row = find(results["differences"], stage="instruct", split="iid")
    assert row["difference"] == pytest.approx(0, abs=0.01) and row["p_failed"] == 1
    assert "1 of 3, 0.8 to 90.6 % of such runs" in results["findings"]["text"]


def test_an_arm_that_never_learns_differs_as_fishers_test_says(make_run: Callable[..., Path]) -> None:
    """Of what a run is worth three runs say little, however far apart they are and however alike."""
    run = make_run(per_column=400, columns=[VSR], arms=CLIP_ARMS, seeds=(0, 1, 2))
    edit_answers(run, right)
    edit_answers(run, at_chance, "clip-axial-*-instruct-evaluate")
    row = find(collect(run)["differences"], stage="instruct", split="iid")
    assert row["difference"] == pytest.approx(-0.375, abs=0.01) and row["high"] < -0.3
    assert row["p"] == row["p_failed"] == pytest.approx(0.1)


def test_few_questions_call_no_run_a_failure(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=[VSR], arms=CLIP_ARMS)
    edit_answers(run, at_chance, "clip-axial-1-instruct-evaluate")
    assert all(row["learned"] == row["runs"] for row in collect(run)["scores"])


def test_arms_that_are_always_right_do_not_differ(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=30, columns=[VSR], arms=CLIP_ARMS)
    edit_answers(run, lambda number, row: row.update(score=1.0))
    results = collect(run)
    row = find(results["differences"], stage="instruct")
    assert (row["difference"], row["p"], row["p_questions"], row["significant"]) == (0, 1, 1, False)
    assert row["low"] < 0 < row["high"]
    assert "none of the 1 differences" in results["findings"]["text"]


def test_a_column_without_questions_is_named(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=[VSR], arms=CLIP_ARMS)
    edit_plan(run, columns=[VSR | {"id": "absent"}, VSR | {"id": "other"}])
    results = collect(run)
    assert results["scores"] == results["differences"] == []
    assert any("No questions for absent, other" in note for note in results["notes"])
    assert any("vsr belong to no column" in note for note in results["notes"])


def test_an_evaluation_that_is_not_done_is_left_out_and_named(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=[VSR], arms=CLIP_ARMS)
    (run / "steps/clip-axial-1-instruct-evaluate/done.json").unlink()
    results = collect(run)
    assert any(note.startswith("1 of 8 evaluations are not done") for note in results["notes"])
    assert [len(row["seeds"]) for row in results["differences"]] == [2, 1]


def split(run: Path, benchmark: str) -> None:
    """Move the answers about a benchmark into steps of their own, behind those that had them."""
    steps = []
    for step in edit_plan(run)["steps"]:
        steps.append(step)
        if step["kind"] == "evaluate":
            folder, own = run / step["folder"], run / f"{step['folder']}-{benchmark}"
            rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
            own.mkdir()
            for place in (folder, own):
                mine = [row for row in rows if (row["benchmark"] == benchmark) == (place == own)]
                (place / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine))
                mark_done(place)
            steps.append(step | {"id": f"{step['id']}-{benchmark}", "folder": f"{step['folder']}-{benchmark}"})
    edit_plan(run, steps=steps)


def test_answers_of_a_model_in_several_steps_are_one_models(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=20, columns=[VSR, PAIRS], arms=CLIP_ARMS)
    collect(run)
    before = (run / "results.json").read_bytes()
    split(run, "vsr")
    collect(run)
    assert (run / "results.json").read_bytes() == before


def test_what_a_model_has_not_reached_is_said_column_by_column(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=20, columns=[VSR, PAIRS], arms=CLIP_ARMS)
    split(run, "vsr")
    whole = collect(run)
    (run / "steps/clip-axial-0-instruct-evaluate-vsr/done.json").unlink()
    results = collect(run)
    assert results["missing"] == [{"arm": "clip-axial", "stage": "instruct", "seed": 0}]
    axial, other = {"column": "vsr", "arm": "clip-axial"}, {"column": "mmvp", "arm": "clip-axial"}
    one = find(results["scores"], **axial, stage="instruct", split="iid", seed=None)
    seed_1 = find(whole["scores"], **axial, stage="instruct", split="iid", seed=1)
    assert one["score"] == seed_1["score"], "the seed that has reached it"
    for key in ("scores", "differences", "noise"):
        unchanged = [[row for row in each[key] if row["column"] == "mmvp"] for each in (results, whole)]
        strip = [
            [{k: v for k, v in row.items() if k not in ("p_holm", "significant")} for row in rows] for rows in unchanged
        ]
        assert strip[0] == strip[1]
    (run / "steps/clip-axial-1-instruct-evaluate-vsr/done.json").unlink()
    results = collect(run)
    assert not [row for row in results["scores"] if row["stage"] == "instruct" and axial.items() <= row.items()]
    assert [row for row in results["scores"] if row["stage"] == "instruct" and other.items() <= row.items()]
    assert any(note.startswith("2 of 16 evaluations are not done") for note in results["notes"])
    table = score_table(results, "instruct")
    assert table
    cells = {row.label: [cell.text for cell in row.cells] for _, rows in table.blocks for row in rows}
    assert cells["LLaVA-CLIP-2D-RoPE"][0] == "not yet" != cells["LLaVA-CLIP-2D-RoPE"][1]
    assert "not yet" not in cells["LLaVA-CLIP"]
    assert all(answer["arm"] == "clip-learned" for pick in results["gallery"] for answer in pick["answers"])
    assert "not yet" in write_report(run).read_text()


def test_two_steps_with_answers_to_the_same_questions_are_refused(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=[VSR, PAIRS], arms=CLIP_ARMS, seeds=(0,))
    steps = edit_plan(run)["steps"]
    twice = next(step for step in steps if step["kind"] == "evaluate")
    edit_plan(run, steps=[*steps, twice | {"id": "again"}])
    with pytest.raises(UserError, match="another step has answers of this model"):
        collect(run)


@pytest.mark.parametrize("cut", [0, 19, 20, 39])
def test_a_benchmark_of_which_a_question_is_gone_is_refused(make_run: Callable[..., Path], cut: int) -> None:
    run = make_run(per_column=20, columns=[VSR, PAIRS], arms=CLIP_ARMS, seeds=(0,))
    path = run / "steps/clip-axial-0-connector-evaluate/answers.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:cut] + lines[cut + 1 :]) + "\n")
    mark_done(path.parent)
    with pytest.raises(UserError, match="its questions are not those of the other evaluations"):
        collect(run)


def test_order_of_answers_does_not_matter(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=[VSR], arms=CLIP_ARMS)
    before = collect(run)["differences"]
    path = run / "steps/clip-axial-0-instruct-evaluate/answers.jsonl"
    path.write_text("".join(line + "\n" for line in reversed(path.read_text().splitlines())))
    mark_done(path.parent)
    assert collect(run)["differences"] == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda number, row: row.update(id=f"other-{number}"), "its questions are not those"),
        (lambda number, row: row.update(score=1.5), "a score is outside 0..1"),
        (lambda number, row: row.pop("raw"), "no 'raw' in this row"),
    ],
)
def test_damaged_answers_are_refused_in_one_line(
    make_run: Callable[..., Path], damage: Callable[[int, Row], None], message: str
) -> None:
    run = make_run(per_column=10, columns=[VSR], arms=CLIP_ARMS, seeds=(0,))
    edit_answers(run, damage, "clip-axial-0-instruct-evaluate")
    with pytest.raises(UserError, match=message) as caught:
        collect(run)
    assert "clip-axial-0-instruct-evaluate" in str(caught.value) and "\n" not in str(caught.value)
    assert not (run / "results.json").exists()


def test_a_folder_without_results_is_refused(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"cannot read .*plan\.json"):
        collect(tmp_path)
    run = make_run(per_column=4, columns=[VSR], arms=CLIP_ARMS, seeds=(0,))
    for done in run.glob("steps/*/done.json"):
        done.unlink()
    with pytest.raises(UserError, match="no evaluation is finished"):
        collect(run)
    (run / "plan.json").write_text('{"study": 3}')
    with pytest.raises(UserError, match=r"plan\.json: study: .*string"):
        collect(run)


def test_a_seed_whose_language_model_did_not_learn_is_named(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=4, columns=[VSR], arms=CLIP_ARMS)
    steps = edit_plan(run)["steps"]
    for seed, loss in ((0, 0.02), (1, 0.298)):
        folder = run / f"steps/text-{seed}"
        folder.mkdir()
        (folder / "log.jsonl").write_text(f'{{"loss": 3.0}}\n{{"loss": {loss}}}\n')
        mark_done(folder)
        steps.append({"id": f"text/seed{seed}", "kind": "text", "folder": f"steps/text-{seed}", "seed": seed})
    edit_plan(run, steps=steps)
    (note,) = [note for note in collect(run)["notes"] if "language model of seed" in note]
    assert "seed 1 ended its text at loss 0.298, another at 0.02" in note


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1 2 3 4", [1, 2, 3, 4]),
        ("x 1.5 0 -2 9", None),
        ("[1, 2, 3, 4.5]", [1, 2, 3, 4.5]),
        ("1 2 3", None),
        ("1 2 3 4 5", None),
        ("3 2 1 4", None),
        ("", None),
    ],
)
def test_read_box(text: str, box: list[float] | None) -> None:
    assert read_box(text) == box


@given(st.lists(st.integers(0, 99), min_size=2, max_size=2), st.integers(0, 50), st.integers(0, 50))
def test_read_box_reads_what_was_written(corner: list[int], width: int, height: int) -> None:
    box = [*corner, corner[0] + width, corner[1] + height]
    assert read_box(" ".join(map(str, box))) == box


def test_scenes_cover_the_columns_with_every_arms_answer(results: dict[str, Any]) -> None:
    picks = results["gallery"]
    assert len(picks) == SCENES == len({pick["image"] for pick in picks})
    assert {pick["column"] for pick in picks} == {column["id"] for column in results["columns"]} - {"mmvp", "boxes"}
    for pick in picks:
        assert [answer["arm"] for answer in pick["answers"]] == [arm["id"] for arm in results["arms"]]
        assert len({answer["score"] for answer in pick["answers"]}) > 1, "the arms agree on this one"
        assert all(len(answer["raw"]) <= LIMIT and "\x00" not in answer["raw"] for answer in pick["answers"])


def test_boxes_go_from_the_hardest_question_to_the_easiest(results: dict[str, Any]) -> None:
    picks = results["localisation"]
    means = [sum(answer["score"] for answer in pick["answers"]) for pick in picks]
    assert len(picks) == BOXES and means == sorted(means) and means[0] < means[-1]
    assert all(len(pick["box"]) == 4 and pick["units"] == [16, 16] for pick in picks)


def test_of_pairs_as_the_scenes_write_them_always_yes_gets_none_right(make_run: Callable[..., Path]) -> None:
    _, questions = draw_test("iid", 40, 0)
    asked = [asdict(question) for question in questions if question.benchmark in ("mmvp", "vsr")]
    run = make_run(per_column=4, columns=[PAIRS, VSR], arms=CLIP_ARMS[:1], seeds=(0,))
    for path in run.glob("steps/*-evaluate/answers.jsonl"):
        said = {"raw": "yes", "parsed": True}
        rows = [question | said | {"score": float(question["answer"] == "yes")} for question in asked]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        mark_done(path.parent)
    scores = collect(run)["scores"]
    pairs, single = (find(scores, column=name, stage="instruct", split="iid", seed=None) for name in ("mmvp", "vsr"))
    assert (pairs["score"], pairs["n"], single["score"], single["n"]) == (0, 20, 0.5, 40)
