"""The paper's numbers: shipped as they are, and what follows from them checked against closed forms."""

import csv
from pathlib import Path

import pytest
from scipy import stats

from blindspot.benchmarks.registry import SETS
from blindspot.evaluation.paper import (
    BASELINE,
    FINDINGS,
    MME_PICTURES,
    PaperColumn,
    basis,
    fits,
    interval,
    load,
    report,
)

SHARED = Path("/work/shared/paper/results.csv")


def _column(benchmark: str, metric: str = "overall") -> PaperColumn:
    return next(column for column in load().columns if column.key == (benchmark, metric))


def test_they_are_those_of_the_shared_file() -> None:
    if not SHARED.is_file():
        pytest.skip("the shared file with the paper's numbers is not on this machine")
    paper = load()
    columns = {column.key: column for column in paper.columns}
    with SHARED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        key = row["benchmark"], row["metric"]
        assert paper.printed[(row["model"], *key)] == row["value"]
        assert (columns[key].table, columns[key].scale) == (row["table"], 100 if row["scale"] == "percent" else 1)
        assert paper.roles[row["model"]] == row["role"]
    assert len(rows) == len(paper.printed) == 15 * 18


def test_a_row_by_name() -> None:
    paper = load()
    assert paper.row(BASELINE)["gqa", "overall"] == "33.225"
    assert paper.value(BASELINE, _column("gqa")) == pytest.approx(0.33225)
    assert {column.benchmark for column in paper.columns} == set(SETS["paper"])


@pytest.mark.parametrize(
    ("benchmark", "half"),
    [
        ("mmvp", 0.056),
        ("cvbench_2d", 0.026),
        ("vsr", 0.028),
        ("countbenchqa", 0.044),
        ("mmmu_val", 0.031),
        ("ccbench", 0.024),
        ("topviewrs", 0.009),
        ("gqa", 0.008),
        ("seedbench_img", 0.008),
        ("tallyqa", 0.0045),
    ],
)
def test_half_widths_are_those_of_the_specification(benchmark: str, half: float) -> None:
    found = interval(BASELINE, _column(benchmark))
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_means_of_several_shares_have_the_variance_of_their_sum() -> None:
    column = _column("cvbench_2d")
    coco, ade20k = 0.525, 0.455
    variance = 0.25 * (coco * (1 - coco) / 805 + ade20k * (1 - ade20k) / 633)
    assert basis(BASELINE, column)[1] == pytest.approx(0.49 * 0.51 / variance)
    categories = sum(1 / pictures for pictures in MME_PICTURES.values()) / 14**2
    assert basis(BASELINE, _column("mme"))[1] == pytest.approx(1 / categories)
    assert sum(MME_PICTURES.values()) == 1187


@pytest.mark.parametrize(
    ("model", "benchmark", "metric", "found"),
    [
        ("LLaVA-1.5", "mmvp", "overall", "yes"),
        ("LLaVA-1.5", "vsr", "overall", "yes"),
        ("LLaVA-1.5", "gqa", "overall", "yes"),
        ("LLaVA-1.5", "ccbench", "overall", "yes"),
        ("LLaVA-1.5", "tallyqa", "overall", None),
        ("LLaVA-1.5", "mme", "overall", None),
        ("Gemma3-4b-it", "mmvp", "overall", "nearly"),
        ("LLaVA-SigLIP2", "vsr", "overall", "nearly"),
        ("SmolVLM2", "gqa", "choose", "no"),
    ],
)
def test_which_values_are_k_of_n(model: str, benchmark: str, metric: str, found: str | None) -> None:
    assert fits(model, _column(benchmark, metric)) == found


def test_only_one_split_of_cvbench_gives_the_published_numbers() -> None:
    paper = load()
    coco, ade20k, overall = _column("cvbench_2d", "coco"), _column("cvbench_2d", "ade20k"), _column("cvbench_2d")

    def shares(value: float, n: int) -> list[float]:
        return [k / n for k in range(n + 1) if abs(k / n - value) <= 0.0005 + 1e-9]

    def possible(n: int) -> bool:
        for model, role in paper.roles.items():
            first, second = shares(paper.value(model, coco), n), shares(paper.value(model, ade20k), 1438 - n)
            means = [(a + b) / 2 for a in first for b in second]
            whole = paper.value(model, overall)
            if not means or (role == "variant" and min(abs(mean - whole) for mean in means) > 0.0005 + 1e-9):
                return False
        return True

    assert [n for n in range(400, 1038) if possible(n)] == [805]


def test_differences_are_tested_by_two_proportions() -> None:
    found = report()
    row = next(
        row
        for row in found["differences"]
        if (row["variant"], row["baseline"], row["benchmark"]) == ("LLaVA-SigLIP2", BASELINE, "mmvp")
    )
    pooled = (0.427 + 0.577) / 2
    z = (0.427 - 0.577) / (pooled * (1 - pooled) * 2 / 300) ** 0.5
    assert row["z"] == pytest.approx(z, rel=1e-5)
    assert row["p"] == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-4)
    half = 1.959964 * (0.427 * 0.573 / 300 + 0.577 * 0.423 / 300) ** 0.5
    assert (row["low"], row["high"]) == pytest.approx((-0.15 - half, -0.15 + half), rel=1e-4)
    assert len(found["differences"]) == 7 * 11
    smallest = min(found["differences"], key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(77 * smallest["p"], rel=1e-4)
    assert all(row["p"] <= row["p_holm"] for row in found["differences"])


def test_what_the_findings_say_is_so() -> None:
    found = report()
    rows = [row for row in found["scores"] if row["role"] == "variant" and row["benchmark"] == "mmvp"]
    assert sum(row["low"] > 0.5 for row in rows) == 2 and sum(row["high"] < 0.5 for row in rows) == 2
    assert "two are above it beyond the noise, two are below it, four are not" in FINDINGS[0]
    for moves, tests in (("2D-RoPE", 44), ("encoder", 33)):
        beyond = [row for row in found["differences"] if row["moves"] == moves and row["significant"]]
        gains = sum(row["difference"] > 0 for row in beyond)
        line = next(line for line in found["findings"] if line.startswith(f"{moves} against"))
        assert f"of {tests} differences {gains} are gains and {len(beyond) - gains} losses" in line


def test_chance_corrected_scores_are_those_of_the_specification() -> None:
    wanted = {"mmvp": 0.154, "vsr": 0.116, "topviewrs": 0.179, "countbenchqa": 0.40, "seedbench_img": 0.47}
    rows = {
        row["benchmark"]: row for row in report()["scores"] if (row["model"], row["metric"]) == (BASELINE, "overall")
    }
    for benchmark, value in wanted.items():
        assert rows[benchmark]["chance_corrected"] == pytest.approx(value, abs=0.005)
    assert rows["gqa"]["chance_corrected"] is None
