"""Differences of published tables: closed forms, bounds that hold for real answers, and tables that are none."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportions_ztest
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.evaluation.paper import BASELINE, load, report
from blindspot.evaluation.published import INDEPENDENT, NOT, OPEN, SURE, audit_table, difference
from blindspot.evaluation.statistics import mcnemar_exact

TABLE = ",GQA,MyBench,MMVP\nn,,800,\nA,62.0,51%,30.0\nB,63.2,52%,28.7\nC,58.1,60%,-\n"


def _table(folder: Path, text: str = TABLE) -> Path:
    (folder / "table.csv").write_text(text, encoding="utf-8")
    return folder / "table.csv"


def test_no_pairing_of_answers_is_beyond_the_bound() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, shared = int(rng.integers(20, 400)), rng.random()
        a_q = (rng.random(n) < rng.random()).astype(float)
        b_q = np.where(rng.random(n) < shared, a_q, rng.random(n) < rng.random()).astype(float)
        found = difference((a_q.mean(), b_q.mean()), (n, n), 1.0)
        assert mcnemar_exact(a_q, b_q) >= found["p_least"] - 1e-12
        assert found["p_most"] == pytest.approx(found["p"])
        if 0 < a_q.sum() + b_q.sum() < 2 * n:
            assert [found["z"], found["p"]] == pytest.approx(proportions_ztest([a_q.sum(), b_q.sum()], [n, n]))
    nested = difference((0.6, 0.5), (100, 100), 1.0)
    assert nested["p_least"] == pytest.approx(2 * 0.5**10)


def test_questions_of_one_picture_count_as_one_at_the_worst(tmp_path: Path) -> None:
    found = audit_table(_table(tmp_path), {}, design=2)
    columns = {one["name"]: one for one in found["columns"]}
    assert (columns["GQA"]["n"], columns["MMVP"]["n"], columns["MyBench"]["n"]) == (12578, 300, 800)
    assert columns["GQA"]["design"] == pytest.approx(12578 / 398, rel=1e-4)
    assert columns["MyBench"]["basis"] == "a design effect of 2, as stated"
    row = next(row for row in found["differences"] if (row["a"], row["b"], row["column"]) == ("C", "A", "GQA"))
    pooled = (0.581 + 0.62) / 2
    z = 0.039 / (pooled * (1 - pooled) * 2 / 398) ** 0.5
    assert row["p_most"] == pytest.approx(2 * stats.norm.sf(z), rel=1e-4)
    assert row["verdict"] == INDEPENDENT


def test_every_verdict_is_given_and_holm_is_over_the_table(tmp_path: Path) -> None:
    found = audit_table(_table(tmp_path), {})
    verdicts = {(row["a"], row["b"], row["column"]): row["verdict"] for row in found["differences"]}
    assert len(verdicts) == 3 + 3 + 1  # C has no number of MMVP
    assert verdicts["C", "A", "MyBench"] == SURE and verdicts["C", "A", "GQA"] == INDEPENDENT
    assert verdicts["B", "A", "GQA"] == OPEN and verdicts["B", "A", "MMVP"] == NOT
    smallest = min(found["differences"], key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(7 * smallest["p"], rel=1e-4)
    assert {row["b"] for row in audit_table(_table(tmp_path), {}, baseline="B")["differences"]} == {"B"}


def test_the_paper_is_such_a_table(tmp_path: Path) -> None:
    paper = load()
    columns = [one for one in paper.columns if one.metric == "overall" and one.benchmark in ("gqa", "vsr", "mmvp")]
    models = (BASELINE, "LLaVA-SigLIP", "LLaVA-AIMv2")
    lines = [",".join([model, *(paper.printed[(model, *one.key)] for one in columns)]) for model in models]
    text = "\n".join([",".join(["", *(one.benchmark for one in columns)]), *lines])
    rows = {
        (row["a"], row["column"]): row
        for row in audit_table(_table(tmp_path, text), {}, baseline=BASELINE)["differences"]
    }
    for row in report()["differences"]:
        if (own := rows.get((row["variant"], row["benchmark"]))) and row["baseline"] == BASELINE:
            assert [own[key] for key in ("p", "p_most", "p_least")] == [row[key] for key in ("p", "p_most", "p_least")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a line of benchmarks"),
        (",X\nA,50\nB,60\n", "n, or give --n 'X=NUMBER'"),
        (",X\nn,10\nA,50\nB,1510.7\n", "B, X: 1510.7 is no share"),
        (",X\nn,10\nA,50\nB,abc\n", "B, X: abc is no share"),
        (",X\nn,ten\nA,50\nB,60\n", "ten is no number of questions"),
        (",X\nn,10\nA,50\nA,60\n", "row 4"),
        (",X\nn,10\nA,50,60\n", "row 3"),
        (",X,X\nn,10,10\nA,50,60\n", "two columns have one name"),
        (",X\nn,10\nA,50\n", "no two models"),
    ],
)
def test_what_is_no_table_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        audit_table(_table(tmp_path, text), {})


def test_the_command_says_what_exceeds_the_sample(tmp_path: Path) -> None:
    path = str(_table(tmp_path))
    shown = CliRunner().invoke(app, ["audit", path], env={"COLUMNS": "120"}).output
    for expected in (
        "Holm over 7 differences",
        "31.6 questions a picture",
        "+9.0**",
        "-3.9*".replace("-", "\N{MINUS SIGN}"),
    ):
        assert expected in shown
    shown = (
        CliRunner().invoke(app, ["audit", path, "--baseline", "A", "--n", "MyBench=90"], env={"COLUMNS": "120"}).output
    )
    assert "+9.0?" in shown
    found = json.loads(CliRunner().invoke(app, ["audit", path, "--design-effect", "3", "--json"]).stdout)
    assert found["columns"][1]["design"] == 3


@pytest.mark.parametrize("more", [[], ["--baseline", "A"]])
def test_a_page_and_latex_are_written_of_an_audited_table(more: list[str], tmp_path: Path) -> None:
    path, out = _table(tmp_path, TABLE.replace("MyBench", "My<i>_B%")), tmp_path / "out"
    shown = CliRunner().invoke(app, ["audit", str(path), "--out", str(out), *more])
    assert shown.exit_code == 0 and shown.output.endswith(f"The page: {out / 'index.html'}\n"), shown.output
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "My&lt;i&gt;_B%" in page and "<i>_B" not in page
    assert page.count('class="up"') == 1 + (not more) and "+9.0**<small>+" in page and "60.0<small>56.6" in page
    differences, scores = ((out / f"{name}.tex").read_text(encoding="utf-8") for name in ("differences", "scores"))
    assert (
        r"+9.0$^{**}$" in differences and r"$-$3.9$^{*}$" in differences and r"\multicolumn{1}{c}{My<i>\_B\%}" in scores
    )
    assert r"\textbf{63.2}" in scores and "n = 12,578" in scores
    assert differences.count(r"\emph{$-$ ") == (1 if more else 2)
    rows = (out / "differences.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + (5 if more else 7) and rows[0].startswith("a,b,column")
