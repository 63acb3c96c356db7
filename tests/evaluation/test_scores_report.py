"""scores.json and its tables: whole, repeatable, and safe to look at."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from blindspot.errors import UserError
from blindspot.evaluation.paper import load
from blindspot.evaluation.scores.report import score, score_run
from blindspot.evaluation.scores.show import print_scores

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
    with pytest.raises(UserError, match=r"holds no \*/answers.jsonl"):
        score(tmp_path)
    (tmp_path / "run.json").write_text('{"benchmarks": {"gqa": {}}}')
    with pytest.raises(UserError, match=r"holds no \*/answers.jsonl yet: the evaluation is not finished"):
        score(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        score(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match='did you mean "official"'):
        score(write_run(tmp_path / "run", pairs([(True, True)])), "offical")
