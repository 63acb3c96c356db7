"""Several models at a glance: ties by a test made anew here, samples by their rule, and a page that stays small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.evaluation.scores import glance as module
from blindspot.evaluation.scores.glance import MOST_SAMPLES, glance
from blindspot.reporting.glance import write_glance

from ..test_cli_evaluate import picture, write_tsv
from .score_rows import Row, count, mcq, pairs, text, write_run


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
