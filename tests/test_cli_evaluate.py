"""``blindspot evaluate`` as a user meets it."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from blindspot.cli import app
from blindspot.evaluation.base import Asked, Reply
from blindspot.files import locked, write_jsonl

from .reporting.checker import Checker

Command = Callable[..., Result]


def picture(number: int) -> str:
    file = io.BytesIO()
    noise_hwc = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise_hwc).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MMVP and VSR as VLMEvalKit's files: 6 questions about 6 pictures, 12 questions about 3."""
    root = tmp_path_factory.mktemp("data")
    pairs = [
        {"index": n, "image": picture(n), "question": "Open?", "A": "Open", "B": "Closed", "answer": "AB"[n % 2]}
        for n in range(1, 7)
    ]
    write_tsv(root / "MMVP.tsv", pairs)
    facts = [
        {"index": n, "image": picture(50 + n % 3), "question": f"The cup is left of plate {n}.", "answer": "Yes"}
        for n in range(12)
    ]
    write_tsv(root / "VSR-zeroshot.tsv", facts)
    return root


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Recorded answers to VSR, half of them right."""
    path = tmp_path / "said.jsonl"
    write_jsonl(path, ({"id": str(n), "raw": ["Yes.", "No, it is not."][n % 2]} for n in range(12)))
    return path


@pytest.fixture
def command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in an empty folder, over the data above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no cache"))

    def call(*arguments: Any) -> Result:
        given = [] if "--data" in arguments else ["--data", data]
        return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in (*arguments, *given))])

    return call


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA with random weights."""
    from .evaluation.tiny_families import checkpoint

    return checkpoint("llava", tmp_path_factory.mktemp("models") / "llava")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.json*"))}


def test_recorded_answers_are_scored_beside_the_paper(command: Command, answers: Path) -> None:
    result = command(answers, "--recorded", "--benchmarks", "vsr")
    assert result.exit_code == 0, result.output
    for said in ("said.jsonl", "VSR-zeroshot.tsv", "vsr: 12 of 12 answered", "50.0", "55.810"):
        assert said in result.output
    (folder,) = Path("runs/eval").iterdir()
    assert set(files(folder)) == {"run.json", "scores.json", "vsr/answers.jsonl"}
    before = files(folder)
    again = command(answers, "--recorded", "--benchmarks", "vsr", "--json", "--thinking", "strip")
    assert json.loads(again.stdout)["thinking"] == "strip"
    again = command(answers, "--recorded", "--benchmarks", "vsr", "--json")
    assert json.loads(again.stdout)["benchmarks"]["vsr"]["metrics"]["overall"]["value"] == 0.5
    assert files(folder) == before


def test_an_answer_that_is_missing_is_said_and_the_rest_is_kept(
    command: Command, answers: Path, tmp_path: Path
) -> None:
    lines = answers.read_text().splitlines(keepends=True)
    few = tmp_path / "few" / "said.jsonl"
    few.parent.mkdir()
    few.write_text("".join(lines[:10]))
    result = command(few, "--recorded", "--benchmarks", "vsr", "--out", "run")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: 2 questions have no answer (vsr: 10, 11: said.jsonl has no answer to it). All others are kept; the "
        "same command asks these again. They are listed in run/vsr/errors.jsonl\n"
    )
    assert len(Path("run/vsr/answers.part.jsonl").read_text().splitlines()) == 10
    other = command(answers, "--recorded", "--benchmarks", "vsr", "--out", "run")
    assert other.exit_code == 2
    assert "run holds another run (answerer.sha256 is" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://localhost:8000/v1", "--benchmarks", "vsr"], "may serve several models; name one with --model"),
        (["./nowhere", "--benchmarks", "vsr"], "not a model folder"),
        (["./nowhere", "--benchmarks", "vsr", "--dtype", "float8"], '--dtype: unknown type of weights "float8"'),
        (["said.txt", "--recorded", "--benchmarks", "vsr"], "recorded answers are read from .jsonl, .tsv, .xlsx files"),
        (["--benchmarks", "vsr,gqa,mme"], "gqa, mme not found in {data}/gqa, {data} or the caches of Hugging Face; "),
        (
            ["--benchmarks", "vsr", "--thinking", "of"],
            'unknown treatment of thoughts "of"; one of: harness, strip, keep',
        ),
        (["--benchmarks", "vsr", "--profile", "lmms-eval-0.7.3"], "none of --benchmarks vsr is defined in lmms-eval"),
        (["--benchmarks", " , "], "no benchmark is named; name some of spatial, general, paper, "),
        (["--benchmarks", "vsr,mmvp"], "recorded answers are to one benchmark; say to which with --benchmarks"),
        (["--benchmarks", "vsr", "--check-batch"], "a server makes its own batches"),
        (["--benchmarks", "vsr", "--think", "yes"], '--think: unknown setting "yes"; one of: on, off'),
        (["./nowhere", "--benchmarks", "vsr", "--samples", "2"], "say at which --temperature, as 0.7"),
        (["--benchmarks", "vsr", "--likelihood", "--samples", "2"], "--likelihood asks for no answer"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    command: Command, answers: Path, data: Path, arguments: list[str], said: str
) -> None:
    recorded = [answers, "--recorded"] if arguments[0] == "--benchmarks" else []
    result = command(*recorded, *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert said.format(data=data) in result.stderr


def test_data_that_is_still_being_downloaded_is_not_taken_for_whole(
    command: Command, answers: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "half" / "vsr"
    folder.mkdir(parents=True)
    (folder / ".downloading").touch()
    (folder / "VSR-zeroshot.tsv").symlink_to(data / "VSR-zeroshot.tsv")
    result = command(answers, "--recorded", "--benchmarks", "vsr", "--data", tmp_path / "half")
    assert result.exit_code == 2
    assert "half/vsr is not whole; go on with `blindspot data get vsr`" in result.stderr


def test_a_folder_in_use_is_one_line(command: Command, answers: Path) -> None:
    with locked(Path("run")):
        result = command(answers, "--recorded", "--benchmarks", "vsr", "--out", "run")
    assert result.exit_code == 2
    assert "run is in use by another blindspot" in result.stderr


def test_prompts_are_shown_as_the_model_gets_them_and_nothing_is_asked(command: Command, llava: Path) -> None:
    result = command(llava, "--benchmarks", "mmvp,vsr", "--prompts", "paper", "--show-prompts", "2", "--swap-options")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("<end of prompt>") == 4
    assert (
        "human's questions. USER:  <image> Open?\nA. Closed\nB. Open\nAnswer with the option's letter" in result.stdout
    )
    assert "directly. ASSISTANT: <end of prompt>" in result.stdout
    assert not Path("runs").exists()


def test_batches_are_compared_with_one_by_one(command: Command, llava: Path) -> None:
    result = command(llava, "--benchmarks", "mmvp", "--check-batch")
    assert result.exit_code == 0, result.output
    assert result.stdout == "6 questions: none answered otherwise one by one\n"


def test_a_model_stopped_again_and_again_leaves_the_same_files(
    command: Command, llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blindspot.evaluation.models.local import LocalAnswerer

    drawn = ("--temperature", "1.2", "--top-p", "0.95", "--samples", "3", "--max-tokens", "6")
    arguments = (llava, "--benchmarks", "mmvp,vsr", "--batch", "4", *drawn, "--out")
    assert command(*arguments, "whole").exit_code == 0
    full = LocalAnswerer.answer
    left = 0

    def answer(self: LocalAnswerer, asked: Sequence[Asked]) -> Iterator[Reply]:
        nonlocal left
        for reply in full(self, asked):
            if not left:
                raise KeyboardInterrupt
            left -= 1
            yield reply

    monkeypatch.setattr(LocalAnswerer, "answer", answer)
    for left in (10, 1, 9):  # noqa: B007  (what `answer` counts down)
        result = command(*arguments, "stopped")
        assert (result.exit_code, result.stderr) == (130, "interrupted; the same command continues\n")
    assert len(Path("stopped/mmvp/answers.jsonl").read_text().splitlines()) == 6
    assert len(Path("stopped/vsr/answers.part.jsonl").read_text().splitlines()) == 2
    left = 99
    assert command(*arguments, "stopped").exit_code == 0
    whole, stopped = files(Path("whole")), files(Path("stopped"))
    assert {name: content for name, content in stopped.items() if name != "scores.json"} == {
        name: content for name, content in whole.items() if name != "scores.json"
    }
    told = json.loads(whole["run.json"])
    assert len(told["answerer"]["weights_sha256"]) == 64
    assert told["prompts"] == "llava"


def test_blind_swapped_and_likely_runs_have_their_own_folders(command: Command, llava: Path) -> None:
    arguments = (llava, "--benchmarks", "mmvp,vsr", "--batch", "16")
    assert command(*arguments, "--blind", "shuffled", "--limit", "4").exit_code == 0
    likely = command(*arguments, "--blind", "none", "--swap-options", "--likelihood", "--profile", "likelihood")
    assert likely.exit_code == 0, likely.output
    assert {path.name.split("llava-")[-1] for path in Path("runs/eval").iterdir()} == {
        "blind-shuffled-limit-4",
        "blind-none-swap-likelihood",
    }
    (row, *_) = map(json.loads, next(Path("runs/eval").glob("*none*/mmvp/answers.jsonl")).open())
    assert (row["choices"], row["images"], set(row["likelihood"])) == ({"A": "Closed", "B": "Open"}, [], {"A", "B"})


def test_what_data_say_cannot_move_the_cursor(command: Command, llava: Path, tmp_path: Path) -> None:
    row = {"index": "[/red]\x1b[2J", "image": picture(0), "question": "A\x1b[2J\u202eB?", "answer": "Yes"}
    write_tsv(tmp_path / "VSR-zeroshot.tsv", [row])
    shown = command(llava, "--benchmarks", "vsr", "--show-prompts", "1", "--data", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "question [/red]\ufffd[2J" in shown.stdout and "A\ufffd[2J\ufffdB?" in shown.stdout
    write_tsv(tmp_path / "VSR-zeroshot.tsv", [row, row | {"index": "2", "image": "\x1b[2J"}])
    refused = command(llava, "--benchmarks", "vsr", "--data", tmp_path)
    assert refused.exit_code == 2
    assert "\x1b" not in refused.stderr and refused.stderr.count("\n") == 1


def test_a_folder_may_be_named_like_markup(command: Command, answers: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[/red]"
    folder.mkdir(parents=True)
    (folder / "VSR-zeroshot.tsv").symlink_to(data / "VSR-zeroshot.tsv")
    result = command(answers, "--recorded", "--benchmarks", "vsr", "--data", folder)
    assert result.exit_code == 0, result.output
    assert "[/red]/VSR-zeroshot.tsv" in result.stdout


def test_boxes_in_a_convention_that_is_not_known_are_refused_until_it_is_told(command: Command, tmp_path: Path) -> None:
    coco = tmp_path / "data" / "coco_boxes"
    (coco / "photos").mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(coco / "photos" / "1.png")
    shown = [{"id": 1, "file_name": "1.png", "width": 200, "height": 100}]
    gold = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 100, 50]}]
    held = {"images": shown, "categories": [{"id": 1, "name": "cup"}], "annotations": gold}
    (coco / "instances.json").write_text(json.dumps(held))
    write_jsonl(tmp_path / "said.jsonl", [{"id": "1", "raw": "<box>[[100, 100, 600, 600]]</box>"}])
    arguments = ("said.jsonl", "--recorded", "--benchmarks", "coco_boxes", "--data", tmp_path / "data")
    for more, said in (
        ((), "coco_boxes asks for boxes, and how this model writes them is not known: say it with --boxes (one of"),
        (("--boxes", "qwen1000"), '--boxes: unknown convention "qwen1000"; did you mean "qwen-1000"?'),
        (("--boxes", "qwen-pixels-json"), "count the input's pixels, and its size is not known"),
    ):
        refused = command(*arguments, *more)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1), refused.output
        assert said in refused.stderr
    told = command(*arguments, "--boxes", "qwen-1000", "--json", "--out", "run")
    assert json.loads(told.stdout)["benchmarks"]["coco_boxes"]["metrics"]["overall"]["value"] == 1.0, told.output
    other = command(*arguments, "--boxes", "llava-normalised", "--out", "run")
    assert 'coco_boxes.boxes is "qwen-1000" there' in other.stderr


def test_how_a_server_s_model_is_asked_is_told_and_may_be_chosen(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blindspot.evaluation.models.api import ApiAnswerer

    monkeypatch.setattr(ApiAnswerer, "answer", lambda self, asked: (Reply(one.id, "Yes") for one in asked))
    arguments = ("http://localhost:1/v1", "--benchmarks", "vsr", "--out", "run", "--model", "Qwen2.5-VL-72B-Instruct")
    known = "qwen2_5_vl, by its name Qwen2.5-VL-72B-Instruct"
    assert known in command(*arguments).stdout
    told = json.loads(Path("run/run.json").read_text())
    assert (told["answerer"]["adapter"], told["prompts"]) == (known, "qwen2_5_vl")
    again = command(*arguments, "--adapter", "qwen2_5_vl")
    assert "qwen2_5_vl, as --adapter says" in again.stdout and again.exit_code == 0, "it is the same run"
    other = command(*arguments, "--adapter", "gemma3")
    assert 'prompts is "qwen2_5_vl" there, "gemma3" now' in other.stderr
    wrong = command(*arguments, "--adapter", "qwen2_5_v")
    assert '--adapter: unknown adapter "qwen2_5_v"; did you mean "qwen2_5_vl"?' in wrong.stderr


def test_an_adapter_says_how_a_model_on_this_machine_is_asked(command: Command, llava: Path) -> None:
    arguments = (llava, "--benchmarks", "vsr", "--show-prompts", "1", "--adapter")
    assert "A chat between a curious" in command(*arguments, "llava").stdout
    shown = command(*arguments, "generic")
    assert shown.exit_code == 0 and "A chat between a curious" not in shown.stdout, shown.output


def test_report_shows_several_models_at_a_glance(command: Command, answers: Path, data: Path) -> None:
    said = [{"id": str(n), "raw": "</script><script>alert(1)</script>" if n else "Yes\nline"} for n in range(12)]
    write_jsonl(answers.with_name("evil.jsonl"), said)
    for file, out in ((answers, "one"), (answers.with_name("evil.jsonl"), "two")):
        assert command(file, "--recorded", "--benchmarks", "vsr", "--out", out).exit_code == 0
    shown = CliRunner().invoke(app, ["report", "one", "two", "--data", str(data)])
    assert shown.exit_code == 0 and "The page: one/glance.html" in shown.stdout, shown.output
    page = Path("one/glance.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1 and page.count("<script") == 2 and "alert(1)" in page
    checksum = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{checksum}'" in page
    assert re.findall(r"\b(?:src|href)=\"(?!data:)", page) == []
    (held,) = re.findall(r'<script type="application/json" id="samples">(.*?)</script>', page)
    found = json.loads(held)["benchmarks"][0]
    assert found["questions"] == len(found["samples"]) == 12 and len(found["pictures"]) == 3
    assert (found["differ"], found["wrong"]) == (5, 6)
    assert all(key in found["pictures"] for sample in found["samples"] for key in sample["pictures"])
    first = next(sample for sample in found["samples"] if sample["id"] == "0")
    assert [answer["score"] for answer in first["answers"]] == [1, 1] and first["answers"][1]["raw"] == "Yes\nline"
    assert Checker(Path("one/glance.html")).text.count("LLaVA-1.5, as the paper prints it") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere"), "nowhere is not a run folder of blindspot evaluate"),
        (("study", "--profile", "official"), "study: --out and --profile are for run folders of"),
        (("run", "--profile", "offical"), "official"),
    ],
)
def test_what_makes_no_page_of_models_is_one_line(
    command: Command, answers: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert command(answers, "--recorded", "--benchmarks", "vsr", "--out", "run").exit_code == 0
    said = CliRunner().invoke(app, ["report", *arguments])
    assert said.exit_code == 2 and message in said.stderr and said.stderr.count("\n") == 1
