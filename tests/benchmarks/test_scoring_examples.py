"""Scoring profiles on examples: the specification's, those that the harnesses themselves scored, and MMMU's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from blindspot.benchmarks.scoring import DEFAULT, PROFILES, Scored, profile
from blindspot.errors import UserError

DATA = Path(__file__).parents[3] / "shared" / "data"
OPEN = ["Open", "Closed"]
PLACES = {"A": "top left", "B": "top right", "C": "bottom left", "D": "center"}
COUNTS = ["1", "2", "3", "11"]
FORK, UP, LMMS, OFFICIAL, LIKELIHOOD, _ = PROFILES


def score(name: str, benchmark: str, kind: str, answer: Any, raw: Any, choices: Any = None, **more: Any) -> Scored:
    row = {"benchmark": benchmark, "kind": kind, "answer": answer, "raw": raw, **more}
    return profile(name).score(row if choices is None else {**row, "choices": choices})


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_example_scores_as_its_harness_scored_it() -> None:
    wrong, compared = [], 0
    for number, row in enumerate(rows(DATA / "scored_answers.jsonl"), start=1):
        for name, expected in row["expected"].items():
            scored = profile(name).score(row)
            compared += 1
            if any(getattr(scored, key) != value for key, value in expected.items()):
                wrong.append((number, name, expected, scored))
    assert not wrong
    assert compared == 130


@pytest.mark.parametrize(("model", "accuracy"), [("llava1.5_13b", 0.367), ("qwen_vl", 0.361)])
def test_mmmu_predictions_get_the_accuracy_of_the_authors_script(model: str, accuracy: float) -> None:
    folder = DATA / "mmmu"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    gold = json.loads((folder / "answer_dict_val.json").read_text(encoding="utf-8"))
    given = json.loads((folder / "example_outputs" / model / "total_val_output.json").read_text(encoding="utf-8"))
    options = [f"option {letter}" for letter in "ABCDEFGHI"]
    kinds = {"multiple-choice": "mcq", "short-answer": "text"}
    scored = [
        score(OFFICIAL, "mmmu_val", kinds[entry["question_type"]], entry["ground_truth"], given[name], options)
        for name, entry in gold.items()
    ]
    assert len(scored) == 900
    assert round(sum(each.score for each in scored) / 900, 3) == accuracy


# Raw answer, and what FORK, UP and LMMS find in it, of A Open, B Closed (specification, section 3).
MMVP = [
    ("(A)", "A", "A", "A"),
    ("(a)", "Z", "Z", "A"),
    ("The eyes are open.", "A", "A", ""),
    ("The door is unopened", "A", "A", ""),
    ("Both open and closed", "Z", "Z", "B"),
    ("I think the correct answer is A because the eyes look wide open in this picture", "Z", "A", "A"),
    ("no idea", "Z", "Z", "A"),
    ('"A"', "Z", "Z", ""),
    ("Option A/B", "Z", "Z", "A"),
    ("A dog is open", "A", "A", "A"),
    ("Cannot determine the answer, open", "Z", "Z", ""),
    ("The answer is **b**, most surely, as all of it is to be seen", "Z", "B", ""),
    ("A is it, I think", "Z", "Z", "A"),
    ("So A is it now", "A", "A", "A"),
    ("A B", "Z", "Z", "A"),
    ("Z, open", "Z", "Z", ""),
    ("B.open a", "B", "B", "B"),
]


@pytest.mark.parametrize(("raw", "fork", "up", "lmms"), MMVP)
def test_mmvp(raw: str, fork: str, up: str, lmms: str) -> None:
    for name, letter in ((FORK, fork), (UP, up), (LMMS, lmms)):
        scored = score(name, "mmvp", "mcq", "A", raw, OPEN)
        assert (scored.extracted, scored.score, scored.parsed) == (letter, letter == "A", letter in ("A", "B")), name


@pytest.mark.parametrize(
    ("name", "benchmark", "kind", "answer", "raw", "choices", "extracted", "right"),
    [
        (FORK, "cvbench_2d", "mcq", "C", "There are 3", COUNTS, "Z", 0),
        (FORK, "cvbench_2d", "mcq", "C", "11", COUNTS, "Z", 0),
        (FORK, "cvbench_2d", "mcq", "A", "The lamp is to the left of the bright window", ["left", "right"], "Z", 0),
        (FORK, "vsr", "yes_no", "Yes", "Yes, the cat is under the table.", None, "Yes", 1),
        (FORK, "vsr", "yes_no", "Yes", "Yes.It is", None, "Unknown", 0),
        (FORK, "vsr", "yes_no", "Yes", "yes/no", None, "Unknown", 0),
        (FORK, "vsr", "yes_no", "Yes", "yes,1,000", None, "Unknown", 0),
        (FORK, "mme", "yes_no", "No", "nothing suggests it", None, "Unknown", 0),
        (FORK, "mme", "yes_no", "No", "The answer is no", None, "No", 1),
        (LMMS, "mme", "yes_no", "No", "nothing suggests it", None, "no", 1),
        (LMMS, "mme", "yes_no", "No", "The answer is no", None, "other", 0),
        (LMMS, "mme", "yes_no", "Yes", "a yes", None, "other", 0),
        (FORK, "tallyqa", "count", 3, "There are two or three", None, 2, 0),
        (FORK, "tallyqa", "count", 20, "20 of 21", None, 20, 1),
        (FORK, "tallyqa", "count", "1", "1.5", None, 1, 1),
        (FORK, "tallyqa", "count", 20, "Twenty!", None, 20, 1),
        (FORK, "tallyqa", "count", 2, "a couple", None, None, 0),
        (FORK, "countbenchqa", "count", "3", "13", None, "13", 1),
        (LMMS, "countbenchqa", "count", "3", "13", None, "13", 0),
        (FORK, "gqa", "text", "yes", "Yes.", None, "yes.", 0),
        (LMMS, "gqa", "text", "yes", "Yes.", None, "yes", 1),
        (LMMS, "gqa", "text", "left", "Left!\0", None, "left", 1),
        (OFFICIAL, "gqa", "text", "yes", "Yes.", None, "yes", 1),
        (OFFICIAL, "gqa", "text", "left", "on the left", None, "on the left", 0),
        (FORK, "mmmu_val", "text", "24", "other answers", None, "B", 0),
        (OFFICIAL, "mmmu_val", "text", "24", "the result is 240", None, "240", 0),
        (OFFICIAL, "mmmu_val", "text", "24", "So the result is 24.0.", None, "24.0", 1),
        (OFFICIAL, "mmmu_val", "text", "24", "24 is ,", None, "24 is ,", 1),
        (OFFICIAL, "mmmu_val", "text", "3.42", "3.44", None, "3.44", 0),
        (OFFICIAL, "mmmu_val", "text", "3.42", "3.424", None, "3.424", 1),
        (OFFICIAL, "mmmu_val", "text", "B", "orb", None, "orb", 0),
        (OFFICIAL, "mmmu_val", "text", "['24/7', '3.429']", "= 3.4286", None, "3.4286", 1),
        (LMMS, "mmmu_val", "text", "['24/7', '3.429']", "= 3.4286", None, "3.4286", 0),
        (OFFICIAL, "mmmu_val", "text", ["$MgS$", "MgS"], "It is mgs", None, "mgs", 1),
        (OFFICIAL, "mmmu_val", "text", "[broken", "[Broken", None, "[broken", 1),
        (OFFICIAL, "mmmu_val", "text", "B", "because b is", None, "because b is", 1),
        (OFFICIAL, "mmmu_val", "mcq", "B", "(A) or rather (B)", OPEN, "B", 1),
        (OFFICIAL, "mmmu_val", "mcq", "B", "A is wrong, B is right", OPEN, "B", 1),
        (OFFICIAL, "mmmu_val", "mcq", "A", "after all that I would say open", OPEN, "A", 1),
        (OFFICIAL, "mmmu_val", "mcq", "A", "all that I say: open", OPEN, None, 0),
        (LMMS, "mmmu_val", "mcq", "A", "BANANA split", OPEN, "A", 1),
        (OFFICIAL, "mmvp", "mcq", "A", "The answer is: (A).", OPEN, None, 0),
        (OFFICIAL, "mmvp", "mcq", "A", "(A)", OPEN, "A", 1),
        (OFFICIAL, "mmvp", "mcq", "A", "Answer: open.", OPEN, "A", 1),
        (OFFICIAL, "mmvp", "mcq", "B", "a", ["x", "A"], "B", 1),
        (OFFICIAL, "cvbench_2d", "mcq", "A", "The answer is (A) left", ["left", "right"], "A", 1),
        (OFFICIAL, "cvbench_2d", "mcq", "A", "left", ["left", "right"], "L", 0),
        (OFFICIAL, "vsr", "yes_no", "Yes", "True, it is.", None, "Yes", 1),
        (OFFICIAL, "nlvr", "yes_no", "No", "false", None, "No", 1),
        (OFFICIAL, "vsr", "yes_no", "No", "It is not", None, None, 0),
        (OFFICIAL, "mme", "yes_no", "No", " no", None, "no", 1),
        (OFFICIAL, "mme", "yes_no", "No", "n", None, "other", 0),
        (OFFICIAL, "tallyqa", "count", 0, "None", None, "0", 1),
        (OFFICIAL, "tallyqa", "count", 3, "3 dogs", None, "3 dogs", 0),
        (OFFICIAL, "countbenchqa", "count", 3, "three", None, "3", 1),
        (OFFICIAL, "seedbench_img", "mcq", "A", "A.", OPEN, "A.", 0),
        (LMMS, "seedbench_img", "mcq", "A", "The answer is A", OPEN, "T", 0),
        (LMMS, "seedbench_img", "mcq", "A", "a.", OPEN, "a", 1),
        (OFFICIAL, "ccbench", "mcq", "A", "A。", OPEN, None, 0),
        (LMMS, "ccbench", "mcq", "B", "(B).", OPEN, "B", 1),
        (LMMS, "ccbench", "mcq", "A", "A is a fine answer", OPEN, "", 0),
    ],
)
def test_a_rule_finds_and_scores(
    name: str, benchmark: str, kind: str, answer: Any, raw: str, choices: Any, extracted: Any, right: int
) -> None:
    scored = score(name, benchmark, kind, answer, raw, choices)
    assert (scored.extracted, scored.score) == (extracted, right)


@pytest.mark.parametrize(
    ("raw", "fork", "official"),
    [
        ("A", 1.0, 1.0),
        ("A.", 1.0, 1.0),
        ("The answer is A", 1.0, 1.0),
        ("A. top left", 0.0, 1.0),  # the harness's log ends in "left", no option
        ("(A)", 0.0, 1.0),
        ("[A]", 1.0, 1.0),
        ("][ A", 0.0, 1.0),
        ("B", 0.5, 0.5),
        ("D", 0.0, 0.0),
        ("top left", 0.0, 1.0),
        ("no idea", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_partial_match_of_topviewrs(raw: str, fork: float, official: float) -> None:
    for name, partial in ((FORK, fork), (UP, fork), (OFFICIAL, official)):
        assert score(name, "topviewrs", "mcq", "A", raw, PLACES).partial == partial, name
    assert score(FORK, "cvbench_2d", "mcq", "A", raw, PLACES).partial is None


def test_partial_match_is_by_the_longer_text() -> None:
    for gold, raw in (("A", "B"), ("B", "A")):
        assert score(OFFICIAL, "topviewrs", "mcq", gold, raw, ["left", "top left"]).partial == 0.5


def test_only_32_full_stops_are_dropped_before_yes_is_looked_for() -> None:
    assert score(FORK, "vsr", "yes_no", "Yes", "." * 31 + "yes.").score == 1
    assert score(FORK, "vsr", "yes_no", "Yes", "." * 32 + "yes.").extracted == "Unknown"


def test_circular_groups_need_every_pass() -> None:
    cats = [["cat", "dog", "owl", "fox"], ["fox", "cat", "dog", "owl"]]
    assert score(FORK, "ccbench", "circular_group", ["A", "B"], ["cat", "Cat."], cats).score == 1
    assert score(FORK, "ccbench", "circular_group", ["A", "B"], ["cat", "???"], cats) == Scored("A Z", 0, False)
    drawn = score(LMMS, "ccbench", "circular_group", ["A", "B"], ["cat", "???"], cats)
    assert (drawn.extracted, drawn.score, drawn.parsed, drawn.guess) == ("A -", 0, False, pytest.approx(1 / 5))
    assert score(LMMS, "ccbench", "circular_group", ["A", "B"], ["dog", "???"], cats).guess == 0


def test_nothing_is_drawn_where_the_harness_draws() -> None:
    for name in (LMMS, OFFICIAL):
        scored = score(name, "mmmu_val", "mcq", "A", "hm", ["w", "x", "y", "z"])
        assert (scored.score, scored.parsed, scored.guess) == (0, False, 1 / 4)
    assert score(FORK, "mmmu_val", "mcq", "A", "hm", ["w", "x", "y", "z"]).guess == 0


def test_likelihood_takes_the_likeliest_label() -> None:
    mcq = score(LIKELIHOOD, "topviewrs", "mcq", "A", "", PLACES, likelihood={"A": -2.0, "B": -1.5, "C": -9})
    assert (mcq.extracted, mcq.score, mcq.parsed, mcq.partial) == ("B", 0, True, 0.5)
    yes = score(LIKELIHOOD, "vsr", "yes_no", "yes", "", likelihood={"No": float("-inf"), "Yes": -50.0})
    assert (yes.extracted, yes.score, yes.partial) == ("Yes", 1, None)
    assert score(LIKELIHOOD, "tallyqa", "count", 3, "", likelihood={"2": -1, "3": -1}).extracted == "2"


def test_profiles_are_found_by_name_and_the_papers_is_the_default() -> None:
    assert [profile(name).name for name in PROFILES] == list(PROFILES)
    assert DEFAULT == "vlmevalkit-2025-09"
    with pytest.raises(UserError, match='did you mean "official"'):
        profile("offical")
