"""scores.json, its tables and its page of several models: whole, repeatable, held against what is published, safe."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from statsmodels.stats.multitest import multipletests
from typer.testing import CliRunner

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rules import LMMS_EVAL, OFFICIAL
from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.evaluation.paper import load
from blindspot.evaluation.scores import glance as module
from blindspot.evaluation.scores.glance import MOST_SAMPLES, glance
from blindspot.evaluation.scores.report import score, score_run
from blindspot.evaluation.scores.show import print_scores
from blindspot.evaluation.scores.verify import DATASETS, INSIDE, NOT_COMPARABLE, OUTSIDE, published, verify
from blindspot.reporting.glance import write_glance

from ..test_cli_evaluate import picture, write_tsv
from .score_rows import Row, box, count, mcq, pairs, random_gqa, text, write_run, yes_no

HOSTILE = "\x1b[31mred\x1b]0;x\x07 [bold]b[/bold] \u202egnp \ud800"


def _shown(scores: dict, width: int = 160, profiles_only: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_scores(scores, console, profiles_only)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def _all_columns() -> list[Row]:
    rows = pairs([(True, False), (True, True)]) + random_gqa(50, seed=2)
    rows += [mcq("cvbench_2d", n, "A", "A", source=("coco", "ade20k")[n % 2], task="count") for n in range(4)]
    rows += [count(name, n, "3", "3") for name in ("tallyqa", "countbenchqa") for n in range(3)]
    rows += [yes_no("vsr", n, "Yes", "Yes.") for n in range(3)]
    rows += [mcq(name, n, "A", "A") for name in ("topviewrs", "mmmu_val", "seedbench_img") for n in range(3)]
    rows += [yes_no("mme", n, "Yes", "Yes", category="OCR", set="OCR/0", cluster="OCR/0") for n in range(2)]
    return rows + [mcq("ccbench", n, "A", "A", set="0", cluster="0") for n in range(4)]


def test_every_column_of_the_paper_stands_beside_its_value(tmp_path: Path) -> None:
    scores = score_run(write_run(tmp_path / "run", _all_columns()))
    shown = _shown(scores)
    paper = load()
    for column in paper.columns:
        assert scores["benchmarks"][column.benchmark]["metrics"][column.metric]["value"] is not None
        assert paper.printed["LLaVA-1.5", column.benchmark, column.metric] in shown
    assert "pair_accuracy" in shown and "Not in this run" not in shown


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", _all_columns())
    first = score_run(folder)
    before = (folder / "scores.json").read_bytes()
    assert score_run(folder) == first == json.loads(before)
    assert (folder / "scores.json").read_bytes() == before


def test_likelihoods_are_a_profile_where_every_row_has_them(tmp_path: Path) -> None:
    rows = pairs([(True, True)] * 2)
    for row in rows:
        row["likelihood"] = {"A": -0.1, "B": -3.0}
    scores = score(write_run(tmp_path / "whole", rows), "likelihood")
    assert scores["benchmarks"]["mmvp"]["metrics"]["overall"]["value"] == 0.5
    assert any("every readable answer is A" in note for note in scores["benchmarks"]["mmvp"]["notes"])
    del rows[3]["likelihood"]
    folder = write_run(tmp_path / "partly", rows)
    assert "likelihood" not in score(folder)["benchmarks"]["mmvp"]["profiles"]
    with pytest.raises(UserError, match=r"answers.jsonl:4: no likelihood"):
        score(folder, "likelihood")


def test_a_benchmark_that_a_harness_lacks_is_left_out_and_said(tmp_path: Path) -> None:
    rows = [yes_no("vsr", n, "Yes", "Yes") for n in range(2)]
    folder = write_run(tmp_path / "run", rows + pairs([(True, True)]))
    scores = score(folder, "lmms-eval-0.7.3")
    assert list(scores["benchmarks"]) == ["mmvp"]
    (note,) = scores["notes"]
    assert note.startswith("vsr: left out, as ") and "vsr is not defined in lmms-eval-0.7.3; choose another" in note
    with pytest.raises(UserError, match=r"answers.jsonl:1: vsr is not defined in lmms-eval-0.7.3"):
        score(folder / "vsr" / "answers.jsonl", "lmms-eval-0.7.3")


def test_pairs_are_named_where_a_harness_calls_them_overall(tmp_path: Path) -> None:
    scores = score(write_run(tmp_path / "run", pairs([(True, False), (True, True)])), "vlmevalkit-2026-08")
    entry = scores["benchmarks"]["mmvp"]
    assert entry["profiles"]["vlmevalkit-2026-08"]["headline"] == "pair_accuracy"
    assert (entry["metrics"]["overall"]["value"], entry["metrics"]["pair_accuracy"]["value"]) == (0.75, 0.5)
    assert "vlmevalkit-2026-08 prints pair_accuracy as the score, not overall" in entry["notes"]


def test_too_few_questions_and_missing_benchmarks_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs([(True, True)]), benchmarks={"gqa": {}, "mmvp": {"notes": ["noted"]}})
    scores = score(folder)
    assert scores["benchmarks"]["mmvp"]["notes"][0] == "noted"
    bare = score(folder / "mmvp" / "answers.jsonl")
    assert bare["benchmarks"]["mmvp"]["notes"][0] == "2 questions instead of 300: not the published benchmark"
    assert scores["notes"] == ["gqa: not all questions are answered yet; left out"]
    assert "Not in this run: mmmu_val" in _shown(scores)


def test_what_comes_from_answers_cannot_move_the_cursor(tmp_path: Path) -> None:
    rows = [text("gqa", n, HOSTILE, HOSTILE, type="query", cluster=HOSTILE) for n in range(3)]
    rows += [mcq("mmvp", n, "A", f"A {HOSTILE}", set=HOSTILE) for n in range(2)]
    folder = tmp_path / "run"
    for name in ("gqa", "mmvp"):
        (folder / name).mkdir(parents=True)
        lines = [json.dumps(row) for row in rows if row["benchmark"] == name]
        (folder / name / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"answerer": HOSTILE}), encoding="utf-8")
    scores = score_run(folder)
    stored = (folder / "scores.json").read_text(encoding="utf-8")
    shown = _shown(scores)
    for forbidden in ("\x1b", "\x07", "\u202e", "\\u001b"):
        assert forbidden not in stored and forbidden not in shown
    assert "[bold]b[/bold]" in stored


def _thinking(folder: Path) -> Path:
    """Four boxes, of which two are right in a thought alone, and MMVP without thoughts."""
    right, wrong = "[0.1, 0.2, 0.5, 1.0]", "[0.5, 0.0, 1.0, 0.1]"
    raws = (right, f"<think>{right}</think>{wrong}", f"hm </think>{right}", f"<think>{right}, so")
    return write_run(folder, [*(box(n, raw) for n, raw in enumerate(raws)), *pairs([(True, True)])])


def test_the_score_without_thoughts_stands_beside_and_the_cut_off_ones_are_counted(tmp_path: Path) -> None:
    folder = _thinking(tmp_path / "run")
    before = (folder / "coco_boxes" / "answers.jsonl").read_bytes()
    scores = score_run(folder)
    boxes, plain = (scores["benchmarks"][name] for name in ("coco_boxes", "mmvp"))
    assert boxes["thinking"] == {"answers": 0.75, "cut_off": 0.25}
    assert (boxes["metrics"]["overall"]["value"], boxes["metrics"]["overall"]["stripped"]) == (1.0, 0.5)
    assert boxes["profiles"]["official"]["stripped"]["overall"] == 0.5
    assert plain["thinking"]["answers"] == 0 and "stripped" not in plain["metrics"]["overall"]
    for shown in (_shown(scores), _shown(scores, profiles_only=True)):
        assert len([line for line in shown.splitlines() if "coco_boxes 75.0 % (25.0 % never end)" in line]) == 1
        (line, *_) = [line.split() for line in shown.splitlines() if line.startswith(" coco_boxes")]
        assert line[1].strip("*") == "1.000"
    (line,) = [line.split() for line in _shown(scores).splitlines() if "\N{EN DASH}1.000" in line and "coco" in line]
    assert line[:3] == ["coco_boxes", "1.000", "0.500"]
    assert (folder / "coco_boxes" / "answers.jsonl").read_bytes() == before


def test_what_holds_for_several_benchmarks_is_noted_once(tmp_path: Path) -> None:
    rows = [mcq(name, n, "A", "A") for name in ("mindcube", "blink", "mmsi") for n in range(2)]
    shown = _shown(score(write_run(tmp_path / "run", rows)), width=400)
    (line,) = [line for line in shown.splitlines() if "does not have it" in line]
    assert "blink, mmsi, mindcube: vlmevalkit-2025-09 does not have it; scored as vlmevalkit-2026-08 does" in line


def test_samples_and_answers_cut_off_in_a_thought_stand_apart(tmp_path: Path) -> None:
    said = [{"raw": "B", "stopped": "thought"}, {"raw": "<think>so", "stopped": "thought"}]
    rows = [mcq("mmvp", n, "A", "A", set="0", cluster="0") | {"further": said, "stopped": "end"} for n in range(2)]
    scores = score_run(write_run(tmp_path / "run", rows))
    (entry,) = scores["benchmarks"].values()
    assert entry["habits"]["cut_off"] == entry["habits"]["cut_off_in_thought"] == pytest.approx(2 / 3, abs=1e-6)
    assert entry["thinking"]["cut_off"] == pytest.approx(2 / 3, abs=1e-6)
    assert entry["metrics"]["overall"]["stripped"] == pytest.approx(1 / 3, abs=1e-6)  # "B" is what was thought
    shown = _shown(scores)
    assert "(in a thought)" in shown and "majority" in shown and "@3" in shown
    (line,) = [line.split() for line in shown.splitlines() if line.startswith(" mmvp") and "\N{EN DASH}" in line]
    assert line[1:5] == ["0.333", "0.333", "1.000", "1.000"]


def test_what_a_harness_would_draw_is_told_apart(tmp_path: Path) -> None:
    rows = [mcq("mmmu_val", n, "A", raw) for n, raw in enumerate(("A", "hm"))]
    entry = score(write_run(tmp_path / "run", rows), "official")["benchmarks"]["mmmu_val"]
    assert entry["metrics"]["overall"]["value"] == 0.5 and any("add 0.250" in note for note in entry["notes"])


def test_a_long_answer_is_scored_like_any_other(tmp_path: Path) -> None:
    rows = [mcq("mmvp", n, "A", "the lid " * 150_000 + "A", set="0") for n in range(2)]
    assert score(write_run(tmp_path / "run", rows))["benchmarks"]["mmvp"]["metrics"]["overall"]["value"] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"answers.jsonl:2: not a JSON line"),
        ("[]", r"answers.jsonl:2: an answer is a JSON object"),
        ('{"id": "x"}', r"answers.jsonl:2: no 'kind' column"),
        (json.dumps(pairs([(True, True)])[0]), r"answers.jsonl:2: question 'mmvp-0' is answered twice"),
        (json.dumps(pairs([(True, True)])[1] | {"id": [1]}), r"answers.jsonl:2: 'id' must be a text"),
        (json.dumps(pairs([(True, True)])[1] | {"groups": [1]}), r"answers.jsonl:2: 'groups' must be a JSON object"),
        (json.dumps(pairs([(True, True)])[1] | {"images": 5}), r"answers.jsonl:2: 'images' must be a list"),
        (json.dumps(pairs([(True, True)])[1] | {"answer": "Q"}), r"answers.jsonl:2: the gold letter 'Q'"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = write_run(tmp_path / "run", pairs([(True, True)])[:1]) / "mmvp" / "answers.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        score(path)


def test_a_folder_without_answers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"benchmarks": {"gqa": {}}}')
    with pytest.raises(UserError, match=r"holds no \*/answers.jsonl yet: the evaluation is not finished"):
        score(tmp_path)


SHARED = Path("/work/shared/paper/published_2026.csv")


def _run(folder: Path, right: int, **info: object) -> Path:
    """A run of MindCube-tiny with 400 questions, so many of them right."""
    rows = [mcq("mindcube", n, "A", "A." if n < right else "B.", setting="among", cluster=str(n)) for n in range(400)]
    told = {"answerer": {"model": "Qwen/Qwen2.5-VL-3B-Instruct"}, "prompts": "qwen2_5_vl"}
    return write_run(folder, rows, **told | info)


def _verdicts(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    return {(row["dataset"], row["source"]): (row["verdict"], row["why"]) for row in verify(folder)["rows"]}


def test_a_published_score_is_inside_or_outside_in_the_words_of_its_harness(tmp_path: Path) -> None:
    tiny, easi, other = "MindCubeBench_tiny_raw_qa", "EASI (backend=VLMEvalKit)", "EASI (backend=lmms-eval)"
    near, far = (_verdicts(_run(tmp_path / str(right), right)) for right in (152, 250))
    assert near[tiny, easi] == (INSIDE, "") and far[tiny, easi] == (OUTSIDE, "")  # 38.0 and 62.5 beside 37.88
    assert near[tiny, other][0] == NOT_COMPARABLE and "other prompt" in near[tiny, other][1]
    assert "21,154" in near["MindCubeBench_raw_qa", easi][1]
    of_other = _verdicts(_run(tmp_path / "lmms", 152, prompts=LMMS_EVAL))
    assert of_other[tiny, other][0] == INSIDE and of_other[tiny, easi][0] == NOT_COMPARABLE
    of_authors = _verdicts(_run(tmp_path / "own", 152, prompts=OFFICIAL))
    assert of_authors[tiny, "Paper"][0] == INSIDE


@pytest.mark.parametrize(
    ("info", "why"),
    [
        ({"limit": 400}, "other subset: 400 questions"),
        ({"condition": {"blind": "grey", "swap": False}}, "other question: blind grey"),
        ({"prompts": "plain"}, "other prompt"),
        ({"benchmarks": {"mindcube": {"notes": ["400 questions, published 1,050"]}}}, "published 1,050"),
    ],
)
def test_what_was_asked_otherwise_is_not_compared(info: dict[str, object], why: str, tmp_path: Path) -> None:
    found = _verdicts(_run(tmp_path / "run", 152, **info))
    assert all(verdict == NOT_COMPARABLE for verdict, _ in found.values())
    assert all(why in said for (dataset, _), (_, said) in found.items() if "tiny" in dataset)


def test_who_has_no_published_score_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no published score of mine; of: Qwen2"):
        verify(_run(tmp_path / "run", 1, answerer={"model": "mine"}))
    run = write_run(tmp_path / "other", [mcq("mmvp", 0, "A", "A")], answerer={"model": "Qwen2.5-VL-3B-Instruct"})
    with pytest.raises(UserError, match=r"none of the benchmarks .* mindcube"):
        verify(run)
    with pytest.raises(UserError, match="not a run folder"):
        verify(tmp_path / "absent")


def test_published_scores_are_the_shared_ones_and_their_metrics_exist() -> None:
    for name, dataset in DATASETS.items():
        metrics = [metric.name for metric in BENCHMARKS[dataset.benchmark].metrics]
        assert {dataset.metric, *dict(dataset.of_rules).values()} <= {*metrics}, name
    assert {row["dataset"] for row in published()} == {*DATASETS}
    if not SHARED.is_file():
        pytest.skip("the shared file of published scores is not on this machine")
    shipped = Path(__file__).parents[2] / "blindspot" / "evaluation" / "published_2026.csv"
    assert shipped.read_bytes() == SHARED.read_bytes()


def test_the_command_prints_it(tmp_path: Path) -> None:
    run = str(_run(tmp_path / "run", 152))
    shown = CliRunner().invoke(app, ["benchmarks", "--verify", run], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    for expected in ("37.88", "38.0", "inside", "not comparable", "other prompt"):
        assert expected in shown.output
    assert json.loads(CliRunner().invoke(app, ["benchmarks", "--verify", run, "--json"]).stdout)["rows"][0]["n"] == 400


def _counts(hits: Any) -> list[Row]:
    return [count("countbenchqa", place, "3", "3" if hit else "5") for place, hit in enumerate(hits)]


def _column(found: dict[str, Any], benchmark: str, metric: str = "overall") -> dict[str, Any]:
    return next(one for one in found["columns"] if (one["benchmark"], one["metric"]) == (benchmark, metric))


def test_ties_are_what_mcnemar_and_holm_do_not_tell_from_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits_mq = [rng.random(400) < skill for skill in (0.7, 0.8, 0.77, 0.72, 0.8)]
    runs = [write_run(tmp_path / f"model{place}", _counts(hits)) for place, hits in enumerate(hits_mq)]
    cells = _column(glance(runs, tmp_path), "countbenchqa")["cells"]
    best = int(np.argmax([hits.mean() for hits in hits_mq]))
    others = [place for place in range(5) if place != best]
    p = [stats.binomtest(int((hits_mq[best] & ~hits_mq[one]).sum()), int((hits_mq[best] != hits_mq[one]).sum())).pvalue
         for one in others]  # fmt: skip
    p_holm = np.asarray(multipletests(p, method="holm")[1])
    assert cells[best]["mark"] == "best"
    assert [cells[one]["p_holm"] for one in others] == pytest.approx(p_holm, rel=1e-4)
    assert [cells[one]["mark"] for one in others] == ["tie" if each >= 0.05 else None for each in p_holm]
    assert {cell["mark"] for cell in cells} == {"best", "tie", None}, "the case shows all three"
    assert all(cell["low"] < cell["value"] < cell["high"] for cell in cells)


def test_rows_beside_the_models(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "Qwen2.5-VL-7B", pairs([(True, False)] * 10)),
        write_run(tmp_path / "b", _counts([1, 0])),
    ]
    found = glance(runs, tmp_path)
    mmvp = _column(found, "mmvp")
    assert (mmvp["chance"], mmvp["constant"], mmvp["constant_answer"]) == (0.5, 0.5, "A")
    assert mmvp["paper"] == {"LLaVA-1.5": "0.577", "Qwen2.5-VL": "0.770"}
    assert [cell and cell["mark"] for cell in mmvp["cells"]] == [None, None], "one model alone is no best"
    assert any("only the first run has it" in note for note in found["notes"])


def test_what_a_profile_does_not_have_is_noted_once(tmp_path: Path) -> None:
    rows = [text("whatsup", 0, "On", "on")] + [mcq(name, 1, "A", "A") for name in ("mmsi", "blink")]
    runs = [write_run(tmp_path / name, rows) for name in ("a", "b")]
    notes = [note for note in glance(runs, tmp_path)["notes"] if "not of vlmevalkit-2025-09" in note]
    assert notes == [
        "blink, mmsi: not of vlmevalkit-2025-09; scored as vlmevalkit-2026-08 does",
        "whatsup: not of vlmevalkit-2025-09; scored as official does",
    ]
    page = write_glance(glance(runs, tmp_path), tmp_path / "page.html").read_text()
    assert '<a href="#notes">' in page and 'id="notes"' in page


def test_other_data_and_unknown_benchmarks_are_kept_apart(tmp_path: Path) -> None:
    rows = [text("own", place, "cup", "cup") for place in range(4)]
    runs = [write_run(tmp_path / "a", rows), write_run(tmp_path / "b", rows, benchmarks={"own": {"digest": "other"}})]
    found = glance(runs, tmp_path)
    column = _column(found, "own", "mean")
    assert [cell["mark"] for cell in column["cells"]] == ["best", None] and column["paper"] == {}
    assert all(sample["answers"][1] is None for sample in found["samples"][0]["samples"])
    assert any("made from other data" in note for note in found["notes"])


@given(st.lists(st.tuples(*[st.sampled_from((True, False, None))] * 3), max_size=600))
def test_samples_begin_where_models_differ_and_leave_room_for_what_none_gets_right(patterns: Any) -> None:
    right_of = {str(place): pattern for place, pattern in enumerate(patterns) if {*pattern} != {None}}
    chosen = module._chosen(right_of)
    kinds = [len({*right_of[own]} - {None}) > 1 for own in chosen]
    wrong = {own for own, pattern in right_of.items() if {*pattern} - {None} == {False}}
    assert len({*chosen}) == len(chosen) == min(MOST_SAMPLES, len(right_of))
    assert kinds == sorted(kinds, reverse=True), "those on which models differ come first"
    assert len(wrong & {*chosen}) >= min(len(wrong), MOST_SAMPLES // 4)
    differ = {pattern for pattern in right_of.values() if len({*pattern} - {None}) > 1}
    assert {right_of[own] for own in chosen} >= differ, "each way of differing is shown"


def test_the_page_holds_no_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [{"index": n, "image": picture(n), "question": "<&'>" * 100, "answer": "Yes"} for n in range(40)]
    write_tsv(tmp_path / "VSR-zeroshot.tsv", facts)
    collection = BENCHMARKS["vsr"].read(tmp_path / "VSR-zeroshot.tsv")
    rows = [one.row("No", one.prompt, one.images) for one in collection.questions]
    run = write_run(tmp_path / "a", rows, benchmarks={"vsr": {"digest": collection.digest}})
    found = glance([run], tmp_path)
    assert len(found["samples"][0]["pictures"]) == len(found["samples"][0]["samples"]) == 40
    bare = len(write_glance(found | {"samples": []}, tmp_path / "page.html").read_bytes())
    monkeypatch.setattr(module, "MOST_BYTES", 60_000)
    found = glance([run], tmp_path)
    assert 0 < len(found["samples"][0]["samples"]) < 40 and found["samples"][0]["pictures"]
    assert len(write_glance(found, tmp_path / "page.html").read_bytes()) < bare + 60_000
    write_tsv(tmp_path / "VSR-zeroshot.tsv", facts[1:])
    assert any("is not the data that was asked" in note for note in glance([run], tmp_path)["notes"])
