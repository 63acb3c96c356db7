"""Claims of a study become verdicts, on the page, in the files and on the terminal."""

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.reporting import collect, print_tables, write_report
from blindspot.reporting.figures import study_figures
from blindspot.reporting.power import seeds_needed, signs_told
from blindspot.reporting.run import RunClaim
from tests.reporting.checker import edit_plan, mark_done
from tests.reporting.conftest import CLIP_ARMS, all_arms, write_run
from tests.reporting.conftest import COLUMNS as ALL_COLUMNS

pytestmark = pytest.mark.usefixtures("quick")


def claim(
    name: str, predicts: str, column: str = "cvbench_relation", more: Any = None, **contrast: float
) -> dict[str, Any]:
    named = {arm.replace("_", "-"): weight for arm, weight in contrast.items()}
    said = {"id": name, "claim": f"Claim <b>{name}</b>", "test": "one minus the other"}
    return said | {"contrast": named, "predicts": predicts, "column": column, **(more or {})}


COLUMNS, LAST = ALL_COLUMNS[:3], ("instruct",)
ARMS = [arm for arm in all_arms() if arm["axes"]["family"] in ("clip", "aimv2")]
CLAIMS = [
    claim("hurts", "negative", clip_axial=1, clip_learned=-1),
    claim("helps", "positive", clip_axial=1, clip_learned=-1),
    claim("nothing", "zero", clip_axial=1, clip_learned=-1),
    claim("noise", "zero", replicate=1, clip_learned=-1),
    claim("counting", "negative", "cvbench_count", aimv2_axial=1, aimv2_learned=-1),
    claim("pairs", "negative", "mmvp", clip_axial=1, clip_learned=-1),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of six seeds: two hardly decide anything."""
    made = tmp_path_factory.mktemp("claims") / "run"
    run = write_run(made, per_column=120, columns=COLUMNS, arms=ARMS, seeds=tuple(range(6)), stages=LAST)
    edit_plan(run, hypotheses=CLAIMS)
    return run


@pytest.fixture(scope="module")
def results(whole: Path) -> dict[str, Any]:
    return collect(whole)


@pytest.fixture
def small(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run of CLIP's two arms with these claims, probed as `write_probes` does."""

    def make(seeds: int, claims: list[dict[str, Any]], slow: float = 4.0) -> Path:
        of = {"columns": COLUMNS, "arms": CLIP_ARMS, "seeds": tuple(range(seeds)), "stages": LAST}
        run = make_run(per_column=20, **of)
        write_probes(run, slow)
        edit_plan(run, hypotheses=claims)
        return run

    return make


def score_of(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """After the last stage over all seeds, by arm and column."""
    chosen = (
        row for row in results["scores"] if (row["stage"], row["split"], row["seed"]) == ("instruct", "iid", None)
    )
    return {(row["arm"], row["column"]): row["score"] for row in chosen}


def printed(results: dict[str, Any]) -> str:
    console = Console(width=160, record=True, file=StringIO())
    print_tables(results, console)
    return console.export_text()


def test_verdicts_follow_effect_and_prediction(results: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in results["hypotheses"]}
    assert rows["hurts"]["effect"] == pytest.approx(-0.3, abs=0.12)
    assert rows["hurts"]["low"] < rows["hurts"]["effect"] < rows["hurts"]["high"] < 0
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {
        "hurts": "supported",
        "helps": "refuted",
        "nothing": "refuted",
        "noise": "undecided",
        "counting": "undecided",
        "pairs": "supported",
    }
    assert all(row["p_holm"] >= row["p"] for row in rows.values())


def test_the_effect_is_the_difference_of_the_scores(results: dict[str, Any]) -> None:
    scores = score_of(results)
    for row in results["hypotheses"][:-1]:  # of pairs, a run failed to learn
        expected = sum(weight * scores[arm, row["column"]] for arm, weight in row["contrast"].items())
        assert row["effect"] == pytest.approx(expected, abs=1e-5)


def test_only_seeds_that_every_arm_of_a_claim_has_count(small: Callable[..., Path]) -> None:
    run = small(3, CLAIMS[:1])
    (run / "steps" / "clip-axial-0-instruct-evaluate" / "done.json").unlink()
    results = collect(run)
    scores = {
        (row["arm"], row["seed"]): row["score"]
        for row in results["scores"]
        if (row["stage"], row["split"], row["column"]) == ("instruct", "iid", "cvbench_relation")
    }
    effect = fmean(scores["clip-axial", seed] - scores["clip-learned", seed] for seed in results["seeds"][1:])
    (hurts,) = (row for row in results["hypotheses"] if row["id"] == "hurts")
    assert hurts["effect"] == pytest.approx(effect, abs=1e-5)


def test_they_are_on_the_page_in_a_table_and_on_the_terminal(whole: Path, results: dict[str, Any]) -> None:
    page = write_report(whole).read_text(encoding="utf-8")
    head = page[: page.index("How fast, and how well")]
    assert [head.count(f'class="verdict {verdict}"') for verdict in ("supported", "refuted", "undecided")] == [2, 2, 2]
    assert "Claim &lt;b&gt;hurts&lt;/b&gt;" in page and "<b>hurts</b>" not in page
    assert "Of 6 claims on scores: 2 supported, 2 refuted, 2 undecided" in page
    with (whole / "tables" / "hypotheses.csv").open() as lines:
        assert [row["verdict"] for row in csv.DictReader(lines)] == [row["verdict"] for row in results["hypotheses"]]
    assert "supported" in printed(results)


def test_a_study_without_claims_has_no_such_section(small: Callable[..., Path]) -> None:
    run = small(1, [])
    assert collect(run)["hypotheses"] == []
    assert 'class="verdict' not in write_report(run).read_text(encoding="utf-8")


def test_one_seed_is_not_tested(small: Callable[..., Path]) -> None:
    run = small(1, CLAIMS[:1])
    (row,) = collect(run)["hypotheses"]
    assert (row["verdict"], row["p_holm"]) == ("not tested", None)
    write_report(run)


PAIR = {"clip_axial": 1.0, "clip_learned": -1.0}
SLOWER = [
    claim("slower", "positive", more={"outcome": "time"}, **PAIR),
    claim("faster", "negative", more={"outcome": "time"}, **PAIR),
    claim("as fast", "zero", "mmvp", {"outcome": "time", "margin": 2}, **PAIR),
    claim("both", "positive", "relations", {"outcome": "time", "level": 0.5}, **PAIR),
    claim("scores", "negative", "relations", **PAIR),
    claim("alike", "zero", "cvbench_count", {"margin": 60}, aimv2_axial=1, aimv2_learned=-1),
]
MEANS = {"relations": ["cvbench_relation", "mmvp"]}


def write_probes(run: Path, slow: float = 4.0) -> None:
    """Probes every 20 steps up to 600; with 2D-RoPE relations take ``slow`` times the steps, pairs do not."""
    for log in run.glob("steps/*-instruct/log.jsonl"):
        arm, seed = log.parent.name.removesuffix("-instruct").rsplit("-", 1)
        learns = 60 + 5 * int(seed) ** 2
        times = {"cvbench_relation": learns * (slow if "axial" in arm else 1), "mmvp": 100 + 20 * int(seed)}
        rows = [
            {"step": step, "questions": dict.fromkeys(times, 48)}
            | {"right": {name: min(0.95, 0.25 + 0.7 * step / time) for name, time in times.items()}}
            for step in range(20, 601, 20)
        ]
        (log.parent / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        mark_done(log.parent)


def test_claims_on_steps_to_learn_and_on_means_of_columns(make_run: Callable[..., Path]) -> None:
    """Of ten seeds, which swaps of sides can decide over six claims."""
    run = make_run(per_column=60, columns=COLUMNS, arms=ARMS, seeds=tuple(range(10)), stages=LAST)
    write_probes(run)
    edit_plan(run, hypotheses=SLOWER, means=MEANS)
    results = collect(run)
    rows = {row["id"]: row for row in results["hypotheses"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "slower": "supported",
        "faster": "refuted",
        "as fast": "equivalent",
        "both": "supported",
        "scores": "supported",
        "alike": "equivalent",
    }
    assert rows["slower"]["low"] < 4 < rows["slower"]["high"] and rows["slower"]["p"] == pytest.approx(2**-9, rel=1e-5)
    assert rows["both"]["effect"] == pytest.approx(2, rel=0.15), "the geometric mean of 4 and 1"
    scores = score_of(results)
    apart = [scores["clip-axial", name] - scores["clip-learned", name] for name in MEANS["relations"]]
    assert rows["scores"]["effect"] == pytest.approx(fmean(apart), abs=0.02), "but for seeds with a run that failed"
    assert 1 < rows["slower"]["detectable"] < 1.5 and 0 < rows["alike"]["detectable"] < 0.5
    (ratio,) = (
        row for row in results["times"]["pairs"] if (row["a"], row["column"]) == ("clip-axial", "cvbench_relation")
    )
    assert ratio["ratio"] == pytest.approx(4, rel=0.1)
    page = write_report(run).read_text(encoding="utf-8")
    assert "Steps to learn" in page and "steps to 90 % on" in page and "steps to 50 % on" in page
    assert "Of 4 claims on time to learn: 2 supported, 1 refuted, 1 equivalent" in page
    (drawn,) = (one for one in study_figures(results) if one.name == "hypotheses_time")
    assert drawn.panels[0][0].estimates[0].value == pytest.approx(2, abs=0.2), "four times as many steps: two doublings"
    drawn = {one.name: one for one in study_figures(results)}
    assert len(drawn["times"].panels[0]) == 2 and len(drawn["curves"].panels) == 2, "a panel, and a row, a column"
    first = next(row for row in drawn["curves"].rows if row["arm"] == "clip-axial")
    assert first["low"] <= first["score"] <= first["high"] and first["seeds"] == 10
    assert "\N{MULTIPLICATION SIGN}4" in printed(results)
    assert (run / "tables" / "times_pairs.csv").is_file()


def test_an_arm_that_never_learns_gives_a_ratio_with_one_end(small: Callable[..., Path]) -> None:
    run = small(6, SLOWER[:1], slow=1000.0)
    results = collect(run)
    (row,) = results["hypotheses"]
    assert (row["effect"], row["high"], row["verdict"]) == (None, None, "supported") and row["low"] > 2
    assert f"over {row['low']:.2g}" in printed(results)
    write_report(run)


def test_few_seeds_say_that_swaps_cannot_decide(small: Callable[..., Path]) -> None:
    results = collect(small(3, SLOWER[:1]))
    (row,) = results["hypotheses"]
    assert (row["p"], row["verdict"], row["detectable"]) == (0.25, "undecided", None)
    assert "nothing: 3 seeds" in printed(results)


def test_claims_on_time_without_probes_are_not_tested(small: Callable[..., Path]) -> None:
    run = small(2, SLOWER[:1])
    for path in run.glob("steps/*/probes.jsonl"):
        path.unlink()
    results = collect(run)
    assert [row["verdict"] for row in results["hypotheses"]] == ["not tested"]
    assert results["times"] == {"arms": [], "pairs": []}
    write_report(run)


def test_probes_that_are_none_are_named(small: Callable[..., Path]) -> None:
    run = small(1, [])
    folder = run / "steps" / "clip-axial-0-instruct"
    (folder / "probes.jsonl").write_text('{"step": 20, "right": {"mmvp": 1.5}}\n')
    mark_done(folder)
    with pytest.raises(UserError, match=r"probes\.jsonl:1: no probe") as caught:
        collect(run)
    assert "\n" not in str(caught.value)


def test_the_seeds_that_a_study_needs_follow_from_a_pilot(small: Callable[..., Path]) -> None:
    pilot, others = small(5, []), claim("else", "zero", nobody=1, clip_axial=-1)
    claims = [RunClaim.model_validate(claim) for claim in (*SLOWER, others)]
    found = seeds_needed(pilot, claims, MEANS, 8, 2)
    rows = {row["id"]: row for row in found["claims"]}
    assert rows["else"]["seeds"] is None and rows["else"]["why"] == "the pilot has no nobody"
    assert rows["slower"]["seeds"] >= 8, "fewer swaps cannot reach Holm's first step"
    easier = {row["id"]: row["seeds"] for row in seeds_needed(pilot, claims, MEANS, 16, 4)["claims"]}
    assert all(easier[name] <= (row["seeds"] or 999) for name, row in rows.items() if easier[name])
    assert len(found["pairs"]) == len(COLUMNS) and all(row["seeds"] or row["why"] for row in found["pairs"])


def test_the_command_says_the_seeds_and_mistakes_in_a_line(small: Callable[..., Path], tmp_path: Path) -> None:
    run = small(2, [])

    def told(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["power", "miniature", *map(str, arguments)], env={"COLUMNS": "120"})
        assert result.exit_code == code, result.output
        return result.output

    found = json.loads(told("--runs", run, "--points", 10, "--json"))
    assert found["claims"] == [] and {row["column"] for row in found["pairs"]} == {column["id"] for column in COLUMNS}
    assert "Seeds for each pair to find 10 points" in told("--runs", run, "--points", 10)
    said = told("--runs", tmp_path / "absent", code=2)
    assert len(said.splitlines()) == 1 and "plan.json: No such file" in said and "give a run folder" in said


def test_the_signs_of_the_paper_that_seeds_could_tell(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=30, columns=COLUMNS, seeds=(0, 1, 2), stages=LAST)

    def told(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["paper", *map(str, arguments)], env={"COLUMNS": "160"})
        assert result.exit_code == code, result.output
        return result.output

    edit_plan(run, columns=[column | {"relative": True} for column in edit_plan(run)["columns"]])
    found = signs_told(run)
    noise = {row["benchmark"]: row for row in found["noise"]}
    scores = [
        row
        for row in collect(run)["scores"]
        if (row["column"], row["stage"], row["split"]) == ("mmvp", "instruct", "iid")
    ]
    own: dict[str, list[float]] = {}
    for row in scores:
        if row["seed"] is not None:
            own.setdefault("clip-learned" if row["arm"] == "replicate" else row["arm"], []).append(row["score"])
    squares = sum((value - fmean(values)) ** 2 for values in own.values() for value in values)
    df = sum(map(len, own.values())) - len(own)
    assert noise["MMVP"]["deviation"] == pytest.approx((squares / df) ** 0.5, rel=1e-4) and noise["MMVP"]["df"] == df
    assert {row["benchmark"] for row in found["signs"]} == {"mmvp", "cvbench_2d"} and len(found["signs"]) == 14
    assert list(found["told"].values()) == sorted(found["told"].values()), "more seeds tell no less"
    sizes = sorted(found["signs"], key=lambda row: abs(row["difference"]))
    assert sizes[0]["seeds"] is None, "a difference of a point is within the noise of the questions"
    said = told("--runs", run)
    assert "Seeds to tell the paper's differences from noise" in said and "Of 14 differences are told: " in said
    assert json.loads(told("--runs", run, "--json"))["told"] == {
        str(key): value for key, value in found["told"].items()
    }
    plan = edit_plan(run)
    once = [step for step in plan["steps"] if step.get("arm") != "replicate" and step.get("seed", 0) == 0]
    arms = [arm for arm in plan["arms"] if arm["id"] != "replicate"]
    edit_plan(
        run, arms=arms, steps=once, hypotheses=[], pairs=[one for one in plan["pairs"] if one["kind"] != "replicate"]
    )
    assert "no arm of a miniature on drawn scenes ran twice" in told("--runs", run, code=2)
