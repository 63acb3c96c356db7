"""The sample that the accuracy curves are made of."""

from collections import Counter

from blindspot.scenes.sampling import test_questions as draw_test
from blindspot.studies.steps import PROBED_PER_COLUMN, column_scores, probe_questions


def test_every_column_is_probed_with_more_than_one_answer_and_pairs_stay_together() -> None:
    _, questions = draw_test("iid", 256, 0)
    probed = probe_questions(questions)
    assert probed == probe_questions(questions)
    answers = {
        column: Counter(q.answer for q in probed if q.benchmark == column) for column in {q.benchmark for q in probed}
    }
    assert answers.keys() == {question.benchmark for question in questions}
    for column, counts in answers.items():
        assert max(counts.values()) < 0.8 * counts.total(), (column, counts)
    clusters = Counter(question.groups["cluster"] for question in probed if question.benchmark == "mmvp")
    assert len(clusters) == PROBED_PER_COLUMN and set(clusters.values()) == {2}


def test_a_pair_scores_as_its_worse_half() -> None:
    rows = [
        {"id": f"{column}{number}", "benchmark": column, "groups": {"cluster": f"{number // 2}"}, "score": score}
        for column in ("mmvp", "vsr")
        for number, score in enumerate((1.0, 0.0, 1.0, 1.0))
    ]
    assert column_scores(rows) == {"mmvp": 0.5, "vsr": 0.75}
