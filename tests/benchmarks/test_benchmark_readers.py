"""Every benchmark from every form that it is published in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blindspot.benchmarks.base import Collection
from blindspot.benchmarks.registry import find
from blindspot.question import Question

VSR = Path("/work/shared/data/vsr")


def read(name: str, path: Path) -> Collection:
    return find(name).read(path)


def seen(collection: Collection, question: Question) -> list[bytes]:
    return [collection.images.read(key) for key in question.images]


def noted(collection: Collection, text: str) -> bool:
    return any(text in note for note in collection.notes)


class TestMmvp:
    def test_tsv(self, tmp_path: Path, published: Any) -> None:
        rows = [
            {"index": n, "image": published.text64(published.picture(n)), "question": f"q{n // 2}", "A": "Open",
             "B": "Closed", "answer": "AB"[n % 2]}
            for n in range(4)
        ]  # fmt: skip
        got = read("mmvp", published.tsv(tmp_path / "MMVP.tsv", rows).parent)
        first = got.questions[0]
        assert (got.form, first.id, first.kind, first.choices, first.answer) == (
            "tsv",
            "0",
            "mcq",
            ("Open", "Closed"),
            "A",
        )
        assert [question.groups["set"] for question in got.questions] == ["1", "1", "2", "2"]
        assert seen(got, got.questions[3]) == [published.picture(3)]
        assert noted(got, "4 questions, published 300")
        assert noted(got, "2 sets, published 150")

    def columns(self, n: int) -> dict[str, Any]:
        options = "(a) Open (b) Closed, or (nearly) so"
        return {"Index": n, "Question": "Are they?", "Options": options, "Correct Answer": "(a)" if n % 2 else "(b)"}

    def test_original(self, tmp_path: Path, published: Any) -> None:
        import pandas as pd

        pd.DataFrame([self.columns(n) for n in range(97, 103)]).to_csv(tmp_path / "Questions.csv", index=False)
        made = published.pictures(tmp_path / "MMVP Images", [f"{n}.jpg" for n in range(97, 103)])
        got = read("mmvp", tmp_path)
        assert got.form == "original"
        assert [q.id for q in got.questions if "known_issue" in q.groups] == ["99", "100"]
        assert noted(got, "(99, 100) and (279, 280) are exchanged")
        assert got.questions[2].choices == ("Open", "Closed, or (nearly) so")
        assert [q.answer for q in got.questions[:2]] == ["A", "B"]
        assert got.questions[0].groups["set"] == got.questions[1].groups["set"] == "49"
        assert seen(got, got.questions[5]) == [made["102.jpg"]]

    def test_hub(self, tmp_path: Path, published: Any) -> None:
        rows = [{**self.columns(n), "image": published.picture(n)} for n in (1, 2)]
        got = read("mmvp", published.parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows).parents[1])
        assert [q.answer for q in got.questions] == ["A", "B"]
        assert seen(got, got.questions[1]) == [published.picture(2)]
        assert not any("known_issue" in q.groups for q in got.questions)

    def test_missing_pictures_are_counted(self, tmp_path: Path, published: Any, refused: Callable[..., str]) -> None:
        import pandas as pd

        pd.DataFrame([self.columns(n) for n in (1, 2, 3)]).to_csv(tmp_path / "Questions.csv", index=False)
        published.pictures(tmp_path / "MMVP Images", ["1.jpg"])
        message = refused(read, "mmvp", tmp_path)
        assert "2 of 3 pictures are not below" in message
        assert "for example MMVP Images/2.jpg" in message
        assert "huggingface.co/datasets/MMVP/MMVP" in message


class TestCvbench:
    def test_tsv(self, tmp_path: Path, published: Any) -> None:
        image = published.text64(published.picture(0))
        plain = {"index": 0, "image": image, "question": "How many?", "A": "1", "B": "2", "C": "11",
                 "D": None, "answer": "C", "prompt": "How many? …", "hint": "Look.",
                 "split": "2D", "source": "COCO", "task": "Count"}  # fmt: skip
        other = {**plain, "index": 1, "image": 0, "source": "ADE20K", "task": "Relation", "C": None, "answer": "A"}
        got = read("cvbench_2d", published.tsv(tmp_path / "CV-Bench-2D.tsv", [plain, other]))
        assert got.questions[0].choices == ("1", "2", "11")
        assert [q.groups["source"] for q in got.questions] == ["coco", "ade20k"]
        assert [q.groups["task"] for q in got.questions] == ["count", "relation"]
        assert (got.questions[0].prompt, got.questions[0].groups["prompt"]) == ("Look.\nHow many?", "How many? …")
        assert got.questions[0].images == got.questions[1].images

    def test_hub_leaves_the_other_half_out(self, tmp_path: Path, published: Any) -> None:
        row = {"idx": 0, "type": "2D", "task": "Count", "image": published.picture(1), "question": "How many?",
               "choices": ["3", "2", "1"], "answer": "(B)", "source": "ADE20K", "bbox": [1.0]}  # fmt: skip
        rows = [row, {**row, "idx": 1, "type": "3D", "task": "Depth", "source": "Omni3D"}]
        published.parquet(tmp_path / "hub" / "test_2d.parquet", rows[:1])
        published.parquet(tmp_path / "hub" / "test_3d.parquet", rows[1:])
        got = read("cvbench_2d", tmp_path)
        assert [(q.id, q.answer, q.choices) for q in got.questions] == [("0", "B", ("3", "2", "1"))]


class TestTallyqa:
    rows = (
        {"question": "How many dogs?", "answer": 2, "issimple": True},
        {"question": "How many dogs lie?", "answer": 1, "issimple": False},
        {"question": "How many dogs?", "answer": 2, "issimple": True},
    )

    def original(self, folder: Path, published: Any) -> Path:
        rows = [
            {**row, "image": f"VG_100K/{n}.jpg", "image_id": n, "question_id": 10 + n, "data_source": "amt"}
            for n, row in enumerate(self.rows)
        ]
        return published.json(folder / "test.json", rows)

    def test_original(self, tmp_path: Path, published: Any) -> None:
        self.original(tmp_path, published)
        made = published.pictures(tmp_path, [f"VG_100K/{n}.jpg" for n in range(3)])
        got = read("tallyqa", tmp_path)
        assert [(q.id, q.kind, q.answer) for q in got.questions] == [
            ("10", "count", "2"),
            ("11", "count", "1"),
            ("12", "count", "2"),
        ]
        assert [q.groups["complexity"] for q in got.questions] == ["simple", "complex", "simple"]
        assert seen(got, got.questions[1]) == [made["VG_100K/1.jpg"]]

    def tsv(self, folder: Path, published: Any, rows: Any) -> Path:
        made = [
            {"index": n, "image": published.text64(published.picture(n)), "question": row["question"],
             "answer": row["answer"]}
            for n, row in enumerate(rows)
        ]  # fmt: skip
        return published.tsv(folder / "tallyqa_data.tsv", made)

    def test_tsv_alone_has_no_complexity_and_says_so(self, tmp_path: Path, published: Any) -> None:
        got = read("tallyqa", self.tsv(tmp_path, published, self.rows))
        assert "complexity" not in got.questions[0].groups
        assert noted(got, "no question of this form has a label 'complexity': simple and the like are not reported")

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1)])
    def test_tsv_takes_complexity_from_the_original_beside_it(
        self, tmp_path: Path, published: Any, order: tuple[int, ...]
    ) -> None:
        self.original(tmp_path, published)
        got = read("tallyqa", self.tsv(tmp_path, published, [self.rows[n] for n in order]))
        expected = ["simple" if self.rows[n]["issimple"] else "complex" for n in order]
        assert [q.groups["complexity"] for q in got.questions] == expected

    def test_ambiguous_questions_stay_without_a_label(self, tmp_path: Path, published: Any) -> None:
        twice = [{**self.rows[0], "issimple": simple} for simple in (True, False)]
        published.json(tmp_path / "test.json", twice)
        got = read("tallyqa", self.tsv(tmp_path, published, [self.rows[0]]))
        assert "complexity" not in got.questions[0].groups


class TestGqa:
    types = {"structural": "verify", "semantic": "rel", "detailed": "existRelS"}  # noqa: RUF012

    def test_hub(self, tmp_path: Path, published: Any) -> None:
        rows = [
            {"id": str(n), "imageId": image, "question": f"q{n}", "answer": "yes", "fullAnswer": "Yes.",
             "types": {**self.types, "semantic": semantic, "detailed": detailed}}
            for n, (image, semantic, detailed) in enumerate(
                [("n2", "rel", "existRelS"), ("n1", "obj", "positionVerify"), ("n2", "attr", "materialVerify")]
            )
        ]  # fmt: skip
        images = [{"id": name, "image": published.picture(n)} for n, name in enumerate(["n1", "n2"])]
        published.parquet(
            tmp_path / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet", rows, images=()
        )
        published.parquet(tmp_path / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", images)
        got = read("gqa", tmp_path)
        assert [seen(got, q) for q in got.questions] == [[published.picture(n)] for n in (1, 0, 1)]
        assert [q.groups["spatial"] for q in got.questions] == ["yes", "yes", "no"]
        assert [q.groups["cluster"] for q in got.questions] == ["n2", "n1", "n2"]
        assert got.questions[0].groups["type"] == "verify"

    def test_hub_with_a_picture_missing(self, tmp_path: Path, published: Any, refused: Callable[..., str]) -> None:
        row = {"id": "1", "imageId": "n9", "question": "q", "answer": "a", "types": self.types}
        published.parquet(tmp_path / "testdev_balanced_instructions" / "testdev.parquet", [row], images=())
        assert "testdev_balanced_images, are not there" in refused(read, "gqa", tmp_path)
        images = [{"id": "n1", "image": published.picture(0)}]
        published.parquet(tmp_path / "testdev_balanced_images" / "testdev.parquet", images)
        assert "1 pictures are not in testdev_balanced_images, for example n9" in refused(read, "gqa", tmp_path)

    def test_original(self, tmp_path: Path, published: Any) -> None:
        value = {
            "201": {"imageId": "n5", "question": "Is it?", "answer": "no", "types": self.types, "isBalanced": True}
        }
        published.json(tmp_path / "testdev_balanced_questions.json", value)
        made = published.pictures(tmp_path / "images", ["n5.jpg"])
        got = read("gqa", tmp_path)
        assert (got.questions[0].id, got.questions[0].answer, got.questions[0].kind) == ("201", "no", "text")
        assert seen(got, got.questions[0]) == [made["n5.jpg"]]

    def test_tsv(self, tmp_path: Path, published: Any) -> None:
        image = published.text64(published.picture(0))
        row = {"index": 7, "image": image, "question": "q", "answer": "left", "category": "choose"}
        got = read("gqa", published.tsv(tmp_path / "GQA_TestDev_Balanced.tsv", [row, {**row, "index": 8, "image": 7}]))
        assert [q.groups["type"] for q in got.questions] == ["choose", "choose"]
        assert noted(got, "has a label 'spatial'") and noted(got, "2 questions, published 12,578")


class TestVsr:
    rows = (
        {"image": "000000000001.jpg", "image_link": "http://images.cocodataset.org/train2017/000000000001.jpg",
         "caption": "The car is behind the suitcase.", "label": 1, "relation": "behind"},
        {"image": "000000000002.jpg", "image_link": "http://images.cocodataset.org/val2017/000000000002.jpg",
         "caption": "The cat is at the edge of the bed.", "label": 0, "relation": "at the edge of"},
    )  # fmt: skip

    def original(self, folder: Path) -> None:
        from blindspot import files

        files.write_jsonl(folder / "test.jsonl", self.rows)

    def test_original_finds_pictures_wherever_coco_lies(self, tmp_path: Path, published: Any) -> None:
        self.original(tmp_path)
        made = published.pictures(tmp_path / "coco", ["train2017/000000000001.jpg", "val2017/000000000002.jpg"])
        got = read("vsr", tmp_path)
        assert [(q.kind, q.answer, q.groups["relation"], q.groups["category"]) for q in got.questions] == [
            ("yes_no", "Yes", "behind", "projective"),
            ("yes_no", "No", "at the edge of", "adjacency"),
        ]
        assert "The car is behind the suitcase." in got.questions[0].prompt
        assert [seen(got, q) for q in got.questions] == [[content] for content in made.values()]

    def tsv(self, folder: Path, published: Any) -> Path:
        rows = [
            {"index": n, "image": published.text64(published.picture(n)), "answer": "Yes" if row["label"] else "No",
             "question": f"Statement: {row['caption']} Please strictly answer Yes or No."}
            for n, row in enumerate(self.rows)
        ]  # fmt: skip
        return published.tsv(folder / "vsr_zeroshot_dataset_yn_strict.tsv", rows)

    def test_tsv_takes_relations_from_the_original_beside_it(self, tmp_path: Path, published: Any) -> None:
        path = self.tsv(tmp_path, published)
        alone = read("vsr", path)
        assert noted(alone, "has a label 'relation'")
        assert alone.questions[0].prompt.endswith("Please strictly answer Yes or No.")
        self.original(tmp_path)
        assert [q.groups["relation"] for q in read("vsr", path).questions] == ["behind", "at the edge of"]

    @pytest.mark.skipif(not VSR.is_dir(), reason=f"the published rows are not at {VSR}")
    def test_the_published_rows(self, tmp_path: Path, published: Any) -> None:
        import json

        content = (VSR / "zeroshot" / "test.jsonl").read_text(encoding="utf-8")
        (tmp_path / "test.jsonl").write_text(content, encoding="utf-8")
        names = sorted({json.loads(line)["image"] for line in content.splitlines()})
        for number, name in enumerate(names):
            (tmp_path / name).write_bytes(published.picture(number))
        got = read("vsr", tmp_path)
        assert not got.notes
        assert (len(got.questions), len(got.images)) == (1222, 715)
        assert len({q.groups["relation"] for q in got.questions}) == 53
        known = {term.where["relation"] for m in got.benchmark.metrics for term in m.terms if "relation" in term.where}
        assert {q.groups["relation"] for q in got.questions} <= known

    @pytest.mark.skipif(not VSR.is_dir(), reason=f"the published table is not at {VSR}")
    def test_the_kinds_of_relations_are_the_authors(self) -> None:
        from blindspot.benchmarks.vsr import CATEGORIES

        for line in (VSR / "rel_meta_category_dict.txt").read_text(encoding="utf-8").splitlines():
            category, _, relations = line.partition(": ")
            theirs = {name.strip() for name in relations.split(",")}
            assert theirs - set(CATEGORIES[category.lower()]) <= {"among"}


class TestTopviewrs:
    def test_tsv(self, tmp_path: Path, published: Any) -> None:
        row = {"index": 0, "image": published.text64(published.picture(0)), "question": "q", "A": "chair", "B": "bed",
               "C": "sofa", "D": "lamp", "answer": "D", "category": "object_recognition",
               "l2-category": "top_view_recognition", "split": "realistic"}  # fmt: skip
        rows = [
            row,
            {**row, "index": 1, "image": 0, "category": "Scene Counting", "l2-category": "Static Spatial Reasoning"},
        ]
        got = read("topviewrs", published.tsv(tmp_path / "TopViewRS.tsv", rows))
        found = [{name: q.groups[name] for name in ("task", "subtask", "map")} for q in got.questions]
        assert found == [
            {"task": "top_view_recognition", "subtask": "object_recognition", "map": "realistic"},
            {"task": "static_spatial_reasoning", "subtask": "scene_counting", "map": "realistic"},
        ]
        assert len(got.images) == 1

    def original(self, tmp_path: Path, published: Any, labels: list[str]) -> None:
        row = {"scene_id": "s", "question": "q", "choices": ["top left", "top", "left", "right"], "labels": labels,
               "map_path": "data/realistic/s.png", "question_ability": "object_localization"}  # fmt: skip
        value = {"top_view_localization": [row]}
        published.json(tmp_path / "released_realistic_datasets.json", value)
        published.json(tmp_path / "released_semantic_datasets.json", value)
        published.pictures(tmp_path, ["data/realistic/s.png"])

    def test_original(self, tmp_path: Path, published: Any) -> None:
        self.original(tmp_path, published, ["left"])
        got = read("topviewrs", tmp_path)
        assert [(q.id, q.answer, q.groups["map"]) for q in got.questions] == [
            ("1", "C", "realistic"),
            ("2", "C", "semantic"),
        ]
        assert got.questions[0].groups["subtask"] == "object_localization"
        assert noted(got, "field names are unverified")

    def test_a_gold_text_that_is_no_option(self, tmp_path: Path, published: Any, refused: Callable[..., str]) -> None:
        self.original(tmp_path, published, ["bottom"])
        assert "row 1: labels ['bottom'] are not one of the choices" in refused(read, "topviewrs", tmp_path)


class TestCountbenchqa:
    def test_tsv_and_hub(self, tmp_path: Path, published: Any) -> None:
        image = published.picture(0)
        row = {"index": 3, "image": published.text64(image), "question": "How many cats?", "answer": 4}
        tsv = read("countbenchqa", published.tsv(tmp_path / "CountBenchQA.tsv", [row]))
        row = {"image": image, "text": "four cats", "question": "How many cats?", "number": 4}
        hub = read("countbenchqa", published.parquet(tmp_path / "test-00000-of-00001.parquet", [row]))
        for got in (tsv, hub):
            (question,) = got.questions
            assert (question.kind, question.answer, question.groups["number"]) == ("count", "4", "4")
            assert "four cats" not in question.prompt
            assert seen(got, question) == [image]

    def test_original_leaves_out_dead_links(self, tmp_path: Path, published: Any, refused: Callable[..., str]) -> None:
        counts = [{"image_url": f"http://x/{n}.jpg", "text": "t", "number": n + 2} for n in range(3)]
        published.json(tmp_path / "CountBench.json", counts)
        published.json(tmp_path / "countbench_paired_questions.json", [{"question": f"q{n}"} for n in range(3)])
        assert "no pictures in images/" in refused(read, "countbenchqa", tmp_path)
        made = published.pictures(tmp_path / "images", ["2.jpg", "0.jpg"])
        got = read("countbenchqa", tmp_path)
        assert [(q.id, q.prompt, q.answer) for q in got.questions] == [("0", "q0", "2"), ("2", "q2", "4")]
        assert seen(got, got.questions[1]) == [made["2.jpg"]]
        assert noted(got, "2 questions, published 540")


class TestMmmu:
    def test_hub(self, tmp_path: Path, published: Any) -> None:
        row = {"id": "validation_Art_Theory_1", "question": "<image 1> or <image 3>?", "options": "['it\\'s', 'not']",
               "explanation": "", "answer": "B", "question_type": "multiple-choice", "subfield": "x"}  # fmt: skip
        pictures = {f"image_{n}": published.picture(n) if n in (1, 3) else None for n in range(1, 8)}
        open_row = {
            **row,
            "id": "validation_Math_2",
            "options": "[]",
            "answer": "['24', '24.0']",
            "question_type": "open",
        }
        names = [f"image_{n}" for n in range(1, 8)]
        for subject, each in (("Art_Theory", row), ("Math", open_row)):
            path = tmp_path / subject / "validation-00000-of-00001.parquet"
            published.parquet(path, [{**each, **pictures}], images=names)
            published.parquet(tmp_path / subject / "test-00000-of-00001.parquet", [{**each, **pictures}], images=names)
        got = read("mmmu_val", tmp_path)
        art, math = got.questions
        assert (art.kind, art.choices, art.answer) == ("mcq", ("it's", "not"), "B")
        assert (math.kind, math.choices, math.answer) == ("text", (), "['24', '24.0']")
        assert seen(got, art) == [published.picture(1), published.picture(3)]
        assert (art.groups["subject"], art.groups["discipline"]) == ("art_theory", "art_and_design")
        assert math.groups["discipline"] == "science"

    def test_tsv_leaves_dev_out(self, tmp_path: Path, published: Any) -> None:
        both = repr([published.text64(published.picture(n)) for n in (0, 1)])
        row = {"index": 1, "id": "dev_Art_1", "image": both, "question": "q", "A": "x", "B": "y", "answer": "A",
               "split": "dev", "category": "Art", "l2-category": "Art & Design"}  # fmt: skip
        val = {**row, "index": 2, "id": "validation_Art_1", "split": "validation"}
        free = {
            **val,
            "index": 3,
            "id": "validation_Music_2",
            "A": None,
            "B": None,
            "answer": "24",
            "category": "Music",
        }
        got = read("mmmu_val", published.tsv(tmp_path / "MMMU_DEV_VAL.tsv", [row, val, free]))
        assert [(q.id, q.kind, len(q.images)) for q in got.questions] == [
            ("validation_Art_1", "mcq", 2),
            ("validation_Music_2", "text", 2),
        ]


class TestMme:
    def test_tsv_and_hub(self, tmp_path: Path, published: Any) -> None:
        names = ["artwork/1.jpg", "artwork/2.jpg"]
        rows = [
            {"image": published.picture(n), "question": f"{n} {said}? Please answer yes or no.", "answer": said,
             "category": "artwork", "question_id": name}
            for n, name in enumerate(names)
            for said in ("Yes", "No")
        ]  # fmt: skip
        hub = read("mme", published.parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", rows).parents[1])
        for n, row in enumerate(rows):
            row |= {"index": n, "image_path": row.pop("question_id"), "image": published.text64(row["image"])}
        tsv = read("mme", published.tsv(tmp_path / "MME.tsv", rows))
        for got in (tsv, hub):
            assert [q.answer for q in got.questions] == ["Yes", "No", "Yes", "No"]
            sets = [q.groups["set"] for q in got.questions]
            assert sets == ["artwork/artwork/1.jpg"] * 2 + ["artwork/artwork/2.jpg"] * 2
            assert len(got.images) == 2
            assert got.questions[0].groups["part"] == "perception"

    def test_an_unknown_category(self, tmp_path: Path, published: Any, refused: Callable[..., str]) -> None:
        row = {
            "index": 0,
            "image": published.text64(published.picture(0)),
            "question": "q",
            "answer": "Yes",
            "category": "x",
        }
        assert "row 1: unknown category 'x'" in refused(read, "mme", published.tsv(tmp_path / "MME.tsv", [row]))


class TestCcbench:
    def rows(self, published: Any, as_text: bool) -> list[dict[str, Any]]:
        image = published.picture(0)
        options = ["清明上河图", "兰亭序", "富春山居图", "千里江山图"]
        return [
            {"index": 1_000_000 * turn + 7, "image": published.text64(image) if as_text else image, "question": "这是",
             **{letter: options[(n + turn) % 4] for n, letter in enumerate("ABCD")}, "answer": "ADCB"[turn],
             "category": "calligraphy_painting"}
            for turn in range(4)
        ]  # fmt: skip

    def test_tsv_and_hub(self, tmp_path: Path, published: Any) -> None:
        tsv = read("ccbench", published.tsv(tmp_path / "CCBench.tsv", self.rows(published, True)))
        path = tmp_path / "hub" / "cc" / "test-00000-of-00001.parquet"
        hub = read("ccbench", published.parquet(path, self.rows(published, False)).parents[1])
        for got in (tsv, hub):
            assert {q.groups["set"] for q in got.questions} == {"7"}
            assert [q.groups["pass"] for q in got.questions] == ["0", "1", "2", "3"]
            assert {q.choices["ABCD".index(q.answer)] for q in got.questions} == {"清明上河图"}
            assert not noted(got, "category")


class TestSeedbench:
    choices = {f"choice_{letter}": letter * 2 for letter in "abcd"}  # noqa: RUF012

    @pytest.mark.parametrize(("number", "dimension"), [(3, "instance_location"), (4, "instance_attributes")])
    def test_the_two_numbers_that_the_authors_once_exchanged(
        self, tmp_path: Path, published: Any, number: int, dimension: str
    ) -> None:
        row = {**self.choices, "answer": "C", "data_type": "image", "question": "q", "question_id": "1",
               "question_type_id": number, "image": [published.picture(0)]}  # fmt: skip
        path = tmp_path / "data" / "test-00000-of-00001.parquet"
        got = read("seedbench_img", published.parquet(path, [row], images=(), lists=("image",)))
        assert got.questions[0].groups["dimension"] == dimension
        assert any(note.startswith(f"1 dimension={dimension}, published") for note in got.notes)

    def test_hub_leaves_videos_out(self, tmp_path: Path, published: Any) -> None:
        row = {**self.choices, "answer": "C", "data_type": "image", "question": "q", "question_id": "1",
               "question_type_id": 6, "image": [published.picture(0)]}  # fmt: skip
        video = {
            **row,
            "data_type": "video",
            "question_id": "2",
            "question_type_id": 10,
            "image": [published.picture(1)] * 2,
        }
        path = tmp_path / "data" / "test-00000-of-00001.parquet"
        got = read("seedbench_img", published.parquet(path, [row, video], images=(), lists=("image",)))
        (question,) = got.questions
        assert (question.answer, question.choices, question.groups["dimension"]) == (
            "C", ("aa", "bb", "cc", "dd"), "spatial_relation",
        )  # fmt: skip
        assert len(got.images) == 1

    def test_tsv_and_original(self, tmp_path: Path, published: Any) -> None:
        row = {"index": 0, "image": published.text64(published.picture(0)), "question": "q", "A": "a", "B": "b",
               "C": "c", "D": "d", "answer": "D", "category": "Instances Counting"}  # fmt: skip
        tsv = read("seedbench_img", published.tsv(tmp_path / "SEEDBench_IMG.tsv", [row]))
        image = {**self.choices, "answer": "D", "data_id": "9_99", "data_type": "image", "question": "q",
                 "question_id": "101", "question_type_id": 5}  # fmt: skip
        value = {"questions": [image, {**image, "data_type": "video", "question_id": "102"}], "question_type": {}}
        published.json(tmp_path / "original" / "SEED-Bench.json", value)
        (tmp_path / "original" / "9_99").write_bytes(published.picture(0))
        original = read("seedbench_img", tmp_path / "original")
        for got in (tsv, original):
            (question,) = got.questions
            assert (question.answer, question.groups["dimension"]) == ("D", "instances_counting")
            assert seen(got, question) == [published.picture(0)]


@pytest.mark.parametrize("layout", ["flat", "official"])
def test_nlvr_asks_yes_or_no_of_the_test_split(tmp_path: Path, layout: str) -> None:
    from blindspot import files

    row = {"sentence": "There is a box.", "label": "true", "identifier": "3-0"}
    if layout == "flat":
        rows = [{**row, "image": f"images/{n}.png", "permutation": n} for n in range(6)]
        pictures = [tmp_path / each["image"] for each in rows]
        files.write_jsonl(tmp_path / "test.jsonl", rows)
    else:
        pictures = [tmp_path / "test" / "images" / "7" / f"test-3-0-{n}.png" for n in range(6)]
        files.write_jsonl(tmp_path / "test" / "test.json", [{**row, "directory": "7"}])
    for number, path in enumerate(pictures):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"test" if number == 0 else f"{number // 2}".encode())
    got = read("nlvr", tmp_path)
    assert got.notes == ("6 questions, published 5,940", "1 sets, published 990")
    assert [q.images for q in got.questions] == [(n,) for n in (0, 1, 2, 2, 3, 3)]
    assert [(q.kind, q.answer, q.groups["set"], q.groups["cluster"]) for q in got.questions] == [
        ("yes_no", "Yes", "3-0", "3")
    ] * 6
    assert "There is a box." in got.questions[0].prompt
    assert seen(got, got.questions[0]) == [b"test"]
