"""Every benchmark from every form that it is published in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blindspot import files
from blindspot.benchmarks.base import Collection
from blindspot.benchmarks.registry import find
from blindspot.benchmarks.vsr import CATEGORIES
from blindspot.question import Question

from . import published
from .published import picture, row

VSR = Path("/work/shared/data/vsr")


def read(name: str, path: Path) -> Collection:
    return find(name).read(path)


def seen(collection: Collection, question: Question) -> list[bytes]:
    return [collection.images.read(key) for key in question.images]


def labels(collection: Collection, name: str) -> list[Any]:
    return [question.groups[name] for question in collection.questions]


def noted(collection: Collection, text: str) -> bool:
    return any(text in note for note in collection.notes)


class TestMmvp:
    def columns(self, n: int) -> dict[str, Any]:
        options = "(a) Open (b) Closed, or (nearly) so"
        return {"Index": n, "Question": "Are they?", "Options": options, "Correct Answer": "(a)" if n % 2 else "(b)"}

    def test_tsv(self, tmp_path: Path) -> None:
        rows = [row(n, A="Open", B="Closed", answer="AB"[n % 2]) for n in range(4)]
        got = read("mmvp", published.tsv(tmp_path / "MMVP.tsv", rows).parent)
        first = got.questions[0]
        assert (got.form, first.id, first.kind, first.answer) == ("tsv", "0", "mcq", "A")
        assert first.choices == ("Open", "Closed")
        assert labels(got, "set") == ["1", "1", "2", "2"]
        assert seen(got, got.questions[3]) == [picture(3)]
        assert noted(got, "4 questions, published 300") and noted(got, "2 sets, published 150")

    def test_original(self, tmp_path: Path) -> None:
        published.csv(tmp_path / "Questions.csv", [self.columns(n) for n in range(97, 103)])
        made = published.pictures(tmp_path / "MMVP Images", [f"{n}.jpg" for n in range(97, 103)])
        got = read("mmvp", tmp_path)
        assert got.form == "original"
        assert [q.id for q in got.questions if "known_issue" in q.groups] == ["99", "100"]
        assert noted(got, "(99, 100) and (279, 280) are exchanged")
        assert got.questions[2].choices == ("Open", "Closed, or (nearly) so")
        assert [q.answer for q in got.questions[:2]] == ["A", "B"]
        assert labels(got, "set")[:2] == ["49", "49"]
        assert seen(got, got.questions[5]) == [made["102.jpg"]]

    def test_hub(self, tmp_path: Path) -> None:
        rows = [{**self.columns(n), "image": picture(n)} for n in (1, 2)]
        got = read("mmvp", published.parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows).parents[1])
        assert [q.answer for q in got.questions] == ["A", "B"]
        assert seen(got, got.questions[1]) == [picture(2)]
        assert not any("known_issue" in q.groups for q in got.questions)

    def test_missing_pictures_are_counted(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        published.csv(tmp_path / "Questions.csv", [self.columns(n) for n in (1, 2, 3)])
        published.pictures(tmp_path / "MMVP Images", ["1.jpg"])
        message = refused(read, "mmvp", tmp_path)
        for part in ("2 of 3 pictures are not below", "MMVP Images/2.jpg", "huggingface.co/datasets/MMVP/MMVP"):
            assert part in message


class TestCvbench:
    def test_tsv(self, tmp_path: Path) -> None:
        plain = row(0, A="1", B="2", C="11", D=None, answer="C", prompt="p", hint="Look.", source="COCO", task="Count")
        other = {**plain, "index": 1, "image": 0, "source": "ADE20K", "task": "Relation", "C": None, "answer": "A"}
        got = read("cvbench_2d", published.tsv(tmp_path / "CV-Bench-2D.tsv", [plain, other]))
        assert got.questions[0].choices == ("1", "2", "11")
        assert labels(got, "source") == ["coco", "ade20k"]
        assert labels(got, "task") == ["count", "relation"]
        assert (got.questions[0].prompt, got.questions[0].groups["prompt"]) == ("Look.\nq", "p")
        assert got.questions[0].images == got.questions[1].images

    def test_hub_leaves_the_other_half_out(self, tmp_path: Path) -> None:
        one = {"idx": 0, "type": "2D", "task": "Count", "image": picture(1), "question": "How many?"}
        one |= {"choices": ["3", "2", "1"], "answer": "(B)", "source": "ADE20K", "bbox": [1.0]}
        published.parquet(tmp_path / "hub" / "test_2d.parquet", [one])
        published.parquet(tmp_path / "hub" / "test_3d.parquet", [{**one, "idx": 1, "type": "3D", "source": "Omni3D"}])
        got = read("cvbench_2d", tmp_path)
        assert [(q.id, q.answer, q.choices) for q in got.questions] == [("0", "B", ("3", "2", "1"))]


class TestTallyqa:
    rows = (
        {"question": "How many dogs?", "answer": 2, "issimple": True},
        {"question": "How many dogs lie?", "answer": 1, "issimple": False},
        {"question": "How many dogs?", "answer": 2, "issimple": True},
    )

    def original(self, folder: Path) -> None:
        rows = [
            {**one, "image": f"VG_100K/{n}.jpg", "question_id": 10 + n, "data_source": "amt"}
            for n, one in enumerate(self.rows)
        ]
        published.json(folder / "test.json", rows)

    def tsv(self, folder: Path, rows: Any) -> Path:
        made = [row(n, question=one["question"], answer=one["answer"]) for n, one in enumerate(rows)]
        return published.tsv(folder / "tallyqa_data.tsv", made)

    def test_original(self, tmp_path: Path) -> None:
        self.original(tmp_path)
        made = published.pictures(tmp_path, [f"VG_100K/{n}.jpg" for n in range(3)])
        got = read("tallyqa", tmp_path)
        assert [(q.id, q.kind, q.answer) for q in got.questions] == [(f"1{n}", "count", "212"[n]) for n in range(3)]
        assert labels(got, "complexity") == ["simple", "complex", "simple"]
        assert seen(got, got.questions[1]) == [made["VG_100K/1.jpg"]]

    def test_tsv_alone_has_no_complexity_and_says_so(self, tmp_path: Path) -> None:
        got = read("tallyqa", self.tsv(tmp_path, self.rows))
        assert "complexity" not in got.questions[0].groups
        assert noted(got, "no question of this form has a label 'complexity': simple and the like are not reported")

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1)])
    def test_tsv_takes_complexity_from_the_original_beside_it(self, tmp_path: Path, order: tuple[int, ...]) -> None:
        self.original(tmp_path)
        got = read("tallyqa", self.tsv(tmp_path, [self.rows[n] for n in order]))
        assert labels(got, "complexity") == ["simple" if self.rows[n]["issimple"] else "complex" for n in order]

    def test_ambiguous_questions_stay_without_a_label(self, tmp_path: Path) -> None:
        published.json(tmp_path / "test.json", [{**self.rows[0], "issimple": simple} for simple in (True, False)])
        got = read("tallyqa", self.tsv(tmp_path, [self.rows[0]]))
        assert "complexity" not in got.questions[0].groups


class TestGqa:
    types = {"structural": "verify", "semantic": "rel", "detailed": "existRelS"}  # noqa: RUF012
    folders = ("testdev_balanced_instructions", "testdev_balanced_images")

    def hub(self, root: Path, number: int, rows: list[dict[str, Any]]) -> None:
        path = root / self.folders[number] / "testdev-00000-of-00001.parquet"
        published.parquet(path, rows, images=("image",) if number else ())

    def test_hub(self, tmp_path: Path) -> None:
        asked = [("n2", "rel", "existRelS"), ("n1", "obj", "positionVerify"), ("n2", "attr", "materialVerify")]
        rows = [
            {"id": str(n), "imageId": image, "question": f"q{n}", "answer": "yes", "types": {**self.types, **types}}
            for n, (image, *two) in enumerate(asked)
            for types in [dict(zip(("semantic", "detailed"), two, strict=True))]
        ]
        self.hub(tmp_path, 0, rows)
        self.hub(tmp_path, 1, [{"id": name, "image": picture(n)} for n, name in enumerate(["n1", "n2"])])
        got = read("gqa", tmp_path)
        assert [seen(got, q) for q in got.questions] == [[picture(n)] for n in (1, 0, 1)]
        assert labels(got, "spatial") == ["yes", "yes", "no"]
        assert labels(got, "cluster") == ["n2", "n1", "n2"]
        assert labels(got, "type") == ["verify"] * 3

    def test_hub_with_a_picture_missing(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        self.hub(tmp_path, 0, [{"id": "1", "imageId": "n9", "question": "q", "answer": "a", "types": self.types}])
        assert "testdev_balanced_images, are not there" in refused(read, "gqa", tmp_path)
        self.hub(tmp_path, 1, [{"id": "n1", "image": picture(0)}])
        assert "1 pictures are not in testdev_balanced_images, for example n9" in refused(read, "gqa", tmp_path)

    def test_original(self, tmp_path: Path) -> None:
        value = {"201": {"imageId": "n5", "question": "Is it?", "answer": "no", "types": self.types}}
        published.json(tmp_path / "testdev_balanced_questions.json", value)
        made = published.pictures(tmp_path / "images", ["n5.jpg"])
        (question,) = (got := read("gqa", tmp_path)).questions
        assert (question.id, question.answer, question.kind) == ("201", "no", "text")
        assert seen(got, question) == [made["n5.jpg"]]

    def test_tsv(self, tmp_path: Path) -> None:
        rows = [row(7, answer="left", category="choose"), row(8, image=7, answer="left", category="choose")]
        got = read("gqa", published.tsv(tmp_path / "GQA_TestDev_Balanced.tsv", rows))
        assert labels(got, "type") == ["choose", "choose"]
        assert noted(got, "has a label 'spatial'") and noted(got, "2 questions, published 12,578")


class TestVsr:
    rows = (
        {"image": "1.jpg", "caption": "The car is behind the suitcase.", "label": 1, "relation": "behind"},
        {"image": "2.jpg", "caption": "The cat is at the edge of the bed.", "label": 0, "relation": "at the edge of"},
    )

    def test_original_finds_pictures_wherever_coco_lies(self, tmp_path: Path) -> None:
        files.write_jsonl(tmp_path / "test.jsonl", self.rows)
        made = published.pictures(tmp_path / "coco", ["train2017/1.jpg", "val2017/2.jpg"])
        got = read("vsr", tmp_path)
        assert [(q.kind, q.answer) for q in got.questions] == [("yes_no", "Yes"), ("yes_no", "No")]
        assert labels(got, "relation") == ["behind", "at the edge of"]
        assert labels(got, "category") == ["projective", "adjacency"]
        assert "The car is behind the suitcase." in got.questions[0].prompt
        assert [seen(got, q) for q in got.questions] == [[content] for content in made.values()]

    def test_tsv_takes_relations_from_the_original_beside_it(self, tmp_path: Path) -> None:
        asked = [f"Statement: {one['caption']} Please strictly answer Yes or No." for one in self.rows]
        path = tmp_path / "vsr_zeroshot_dataset_yn_strict.tsv"
        published.tsv(path, [row(n, answer=["Yes", "No"][n], question=asked[n]) for n in range(2)])
        alone = read("vsr", path)
        assert noted(alone, "has a label 'relation'")
        assert [q.prompt for q in alone.questions] == asked
        files.write_jsonl(tmp_path / "test.jsonl", self.rows)
        assert labels(read("vsr", path), "relation") == ["behind", "at the edge of"]

    @pytest.mark.skipif(not VSR.is_dir(), reason=f"the published rows are not at {VSR}")
    def test_the_published_rows(self, tmp_path: Path) -> None:
        content = (VSR / "zeroshot" / "test.jsonl").read_text(encoding="utf-8")
        (tmp_path / "test.jsonl").write_text(content, encoding="utf-8")
        for number, name in enumerate(sorted({json.loads(line)["image"] for line in content.splitlines()})):
            (tmp_path / name).write_bytes(picture(number))
        got = read("vsr", tmp_path)
        assert not got.notes
        assert (len(got.questions), len(got.images)) == (1222, 715)
        assert len(set(labels(got, "relation"))) == 53
        known = {term.where["relation"] for m in got.benchmark.metrics for term in m.terms if "relation" in term.where}
        assert set(labels(got, "relation")) <= known

    @pytest.mark.skipif(not VSR.is_dir(), reason=f"the published table is not at {VSR}")
    def test_the_kinds_of_relations_are_the_authors(self) -> None:
        for line in (VSR / "rel_meta_category_dict.txt").read_text(encoding="utf-8").splitlines():
            category, _, relations = line.partition(": ")
            theirs = {name.strip() for name in relations.split(",")}
            assert theirs - set(CATEGORIES[category.lower()]) <= {"among"}


class TestTopviewrs:
    def test_tsv(self, tmp_path: Path) -> None:
        one = row(0, A="chair", B="bed", C="sofa", D="lamp", answer="D", category="object_recognition")
        one |= {"l2-category": "top_view_recognition", "split": "realistic"}
        other = {"index": 1, "image": 0, "category": "Scene Counting", "l2-category": "Static Spatial Reasoning"}
        got = read("topviewrs", published.tsv(tmp_path / "TopViewRS.tsv", [one, {**one, **other}]))
        assert labels(got, "task") == ["top_view_recognition", "static_spatial_reasoning"]
        assert labels(got, "subtask") == ["object_recognition", "scene_counting"]
        assert labels(got, "map") == ["realistic"] * 2
        assert len(got.images) == 1

    def original(self, tmp_path: Path, gold: list[str]) -> None:
        one = {"question": "q", "choices": ["top left", "top", "left", "right"], "labels": gold}
        one |= {"map_path": "data/realistic/s.png", "question_ability": "object_localization"}
        for kind in ("realistic", "semantic"):
            published.json(tmp_path / f"released_{kind}_datasets.json", {"top_view_localization": [one]})
        published.pictures(tmp_path, ["data/realistic/s.png"])

    def test_original(self, tmp_path: Path) -> None:
        self.original(tmp_path, ["left"])
        got = read("topviewrs", tmp_path)
        assert [(q.id, q.answer) for q in got.questions] == [("1", "C"), ("2", "C")]
        assert labels(got, "map") == ["realistic", "semantic"]
        assert labels(got, "subtask") == ["object_localization"] * 2
        assert noted(got, "field names are unverified")

    def test_a_gold_text_that_is_no_option(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        self.original(tmp_path, ["bottom"])
        assert "row 1: labels ['bottom'] are not one of the choices" in refused(read, "topviewrs", tmp_path)


class TestCountbenchqa:
    def test_tsv_and_hub(self, tmp_path: Path) -> None:
        tsv = published.tsv(tmp_path / "CountBenchQA.tsv", [row(0, answer=4)])
        one = {"image": picture(0), "text": "four cats", "question": "q", "number": 4}
        for path in (tsv, published.parquet(tmp_path / "test-00000-of-00001.parquet", [one])):
            (question,) = (got := read("countbenchqa", path)).questions
            assert (question.kind, question.answer, question.groups["number"]) == ("count", "4", "4")
            assert "four cats" not in question.prompt
            assert seen(got, question) == [picture(0)]

    def test_original_leaves_out_dead_links(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        published.json(tmp_path / "CountBench.json", [{"text": "t", "number": n + 2} for n in range(3)])
        published.json(tmp_path / "countbench_paired_questions.json", [{"question": f"q{n}"} for n in range(3)])
        assert "no pictures in images/" in refused(read, "countbenchqa", tmp_path)
        made = published.pictures(tmp_path / "images", ["2.jpg", "0.jpg"])
        got = read("countbenchqa", tmp_path)
        assert [(q.id, q.prompt, q.answer) for q in got.questions] == [("0", "q0", "2"), ("2", "q2", "4")]
        assert seen(got, got.questions[1]) == [made["2.jpg"]]
        assert noted(got, "2 questions, published 540")


class TestMmmu:
    def test_hub(self, tmp_path: Path) -> None:
        names = [f"image_{n}" for n in range(1, 8)]
        pictures = {name: picture(n) if n in (1, 3) else None for n, name in enumerate(names, start=1)}
        one = {"question": "<image 1> or <image 3>?", "explanation": "", "subfield": "x", **pictures}
        shut = {"id": "validation_Art_Theory_1", "options": "['it\\'s', 'not']", "answer": "B"}
        free = {"id": "validation_Math_2", "options": "[]", "answer": "['24', '24.0']"}
        for subject, cells, kind in (("Art_Theory", shut, "multiple-choice"), ("Math", free, "open")):
            for split in ("validation", "test"):
                path = tmp_path / subject / f"{split}-00000-of-00001.parquet"
                published.parquet(path, [{**one, **cells, "question_type": kind}], images=names)
        got = read("mmmu_val", tmp_path)
        art, math = got.questions
        assert (art.kind, art.choices, art.answer) == ("mcq", ("it's", "not"), "B")
        assert (math.kind, math.choices, math.answer) == ("text", (), "['24', '24.0']")
        assert seen(got, art) == [picture(1), picture(3)]
        assert labels(got, "subject") == ["art_theory", "math"]
        assert labels(got, "discipline") == ["art_and_design", "science"]

    def test_tsv_leaves_dev_out(self, tmp_path: Path) -> None:
        both = repr([published.text64(n) for n in (0, 1)])
        dev = row(1, id="dev_Art_1", image=both, A="x", B="y", split="dev", category="Art")
        val = {**dev, "index": 2, "id": "validation_Art_1", "split": "validation"}
        free = {**val, "index": 3, "id": "validation_Music_2", "A": None, "B": None, "answer": "24"}
        got = read("mmmu_val", published.tsv(tmp_path / "MMMU_DEV_VAL.tsv", [dev, val, free]))
        assert [(q.id, q.kind, len(q.images)) for q in got.questions] == [
            ("validation_Art_1", "mcq", 2),
            ("validation_Music_2", "text", 2),
        ]


class TestMme:
    def test_tsv_and_hub(self, tmp_path: Path) -> None:
        asked = [(n, said, f"artwork/{n}.jpg") for n in (1, 2) for said in ("Yes", "No")]
        hub = [
            {
                "image": picture(n),
                "question": f"{n} {said}?",
                "answer": said,
                "category": "artwork",
                "question_id": name,
            }
            for n, said, name in asked
        ]
        tsv = [
            row(n, index=place, answer=said, category="artwork", image_path=name)
            for place, (n, said, name) in enumerate(asked)
        ]
        folder = published.parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", hub).parents[1]
        for path in (published.tsv(tmp_path / "MME.tsv", tsv), folder):
            got = read("mme", path)
            assert [q.answer for q in got.questions] == ["Yes", "No", "Yes", "No"]
            assert labels(got, "set") == ["artwork/artwork/1.jpg"] * 2 + ["artwork/artwork/2.jpg"] * 2
            assert labels(got, "part") == ["perception"] * 4
            assert len(got.images) == 2

    def test_an_unknown_category(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        path = published.tsv(tmp_path / "MME.tsv", [row(0, answer="Yes", category="x")])
        assert "row 1: unknown category 'x'" in refused(read, "mme", path)


class TestCcbench:
    def test_tsv_and_hub(self, tmp_path: Path) -> None:
        options = ["清明上河图", "兰亭序", "富春山居图", "千里江山图"]
        rows = [
            row(0, index=1_000_000 * turn + 7, answer="ADCB"[turn], category="calligraphy_painting")
            | {letter: options[(n + turn) % 4] for n, letter in enumerate("ABCD")}
            for turn in range(4)
        ]
        tsv = published.tsv(tmp_path / "CCBench.tsv", rows)
        hub = tmp_path / "hub" / "cc" / "test-00000-of-00001.parquet"
        published.parquet(hub, [{**one, "image": picture(0)} for one in rows])
        for path in (tsv, hub.parents[1]):
            got = read("ccbench", path)
            assert labels(got, "set") == ["7"] * 4
            assert labels(got, "pass") == ["0", "1", "2", "3"]
            assert {q.choices["ABCD".index(q.answer)] for q in got.questions} == {"清明上河图"}
            assert not noted(got, "category")


class TestSeedbench:
    one = {f"choice_{letter}": letter * 2 for letter in "abcd"}  # noqa: RUF012
    one |= {"answer": "C", "data_type": "image", "question": "q", "question_id": "1"}

    def hub(self, folder: Path, rows: list[dict[str, Any]]) -> Path:
        return published.parquet(folder / "test-00000-of-00001.parquet", rows, images=(), lists=("image",))

    @pytest.mark.parametrize(("number", "dimension"), [(3, "instance_location"), (4, "instance_attributes")])
    def test_the_two_numbers_that_the_authors_once_exchanged(self, tmp_path: Path, number: int, dimension: str) -> None:
        got = read(
            "seedbench_img", self.hub(tmp_path, [{**self.one, "question_type_id": number, "image": [picture(0)]}])
        )
        assert labels(got, "dimension") == [dimension]
        assert any(note.startswith(f"1 dimension={dimension}, published") for note in got.notes)

    def test_hub_leaves_videos_out(self, tmp_path: Path) -> None:
        shown = {**self.one, "question_type_id": 6, "image": [picture(0)]}
        video = {"data_type": "video", "question_id": "2", "question_type_id": 10, "image": [picture(1)] * 2}
        (question,) = (got := read("seedbench_img", self.hub(tmp_path, [shown, {**shown, **video}]))).questions
        assert (question.answer, question.choices) == ("C", ("aa", "bb", "cc", "dd"))
        assert question.groups["dimension"] == "spatial_relation"
        assert len(got.images) == 1

    def test_tsv_and_original(self, tmp_path: Path) -> None:
        rows = [row(0, A="a", B="b", C="c", D="d", answer="C", category="Instances Counting")]
        image = {**self.one, "data_id": "9_99", "question_type_id": 5}
        value = {"questions": [image, {**image, "data_type": "video", "question_id": "102"}], "question_type": {}}
        published.json(tmp_path / "original" / "SEED-Bench.json", value)
        (tmp_path / "original" / "9_99").write_bytes(picture(0))
        for path in (published.tsv(tmp_path / "SEEDBench_IMG.tsv", rows), tmp_path / "original"):
            (question,) = (got := read("seedbench_img", path)).questions
            assert (question.answer, question.groups["dimension"]) == ("C", "instances_counting")
            assert seen(got, question) == [picture(0)]


@pytest.mark.parametrize("layout", ["flat", "official"])
def test_nlvr_asks_yes_or_no_of_the_test_split(tmp_path: Path, layout: str) -> None:
    one = {"sentence": "There is a box.", "label": "true", "identifier": "3-0"}
    if layout == "flat":
        names = [f"images/{n}.png" for n in range(6)]
        rows = [{**one, "image": name, "permutation": n} for n, name in enumerate(names)]
        files.write_jsonl(tmp_path / "test.jsonl", rows)
    else:
        names = [f"test/images/7/test-3-0-{n}.png" for n in range(6)]
        files.write_jsonl(tmp_path / "test" / "test.json", [{**one, "directory": "7"}])
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"test" if number == 0 else f"{number // 2}".encode())
    got = read("nlvr", tmp_path)
    assert got.notes == ("6 questions, published 5,940", "1 sets, published 990")
    assert [q.images for q in got.questions] == [(n,) for n in (0, 1, 2, 2, 3, 3)]
    assert {(q.kind, q.answer, q.groups["set"], q.groups["cluster"]) for q in got.questions} == {
        ("yes_no", "Yes", "3-0", "3")
    }
    assert "There is a box." in got.questions[0].prompt
    assert seen(got, got.questions[0]) == [b"test"]
