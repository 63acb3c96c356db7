"""Our benchmarks in inspect_ai itself, where that is installed (``make check-inspect``)."""

import base64
import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blindspot.benchmarks.registry import BENCHMARKS, select
from blindspot.errors import UserError
from blindspot.evaluation.models.recorded import RecordedAnswerer
from blindspot.evaluation.run.opening import Opened
from blindspot.evaluation.run.runner import prepare
from blindspot.evaluation.scores.report import score
from blindspot.files import write_jsonl

inspect_ai = pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra [inspect])")

ENTRY_POINT = "[inspect_ai]\nblindspot = blindspot.evaluation.serving.inspect_tasks\n"
SAID = {"1": "A", "2": "The answer is B", "3": "A", "4": "A", "5": "Open", "6": "nothing"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pairs of MMVP as VLMEvalKit's file, the same questions as a user's own, and recorded answers."""
    lines, rows = ["index\timage\tquestion\tA\tB\tanswer"], []
    for number in range(1, 7):
        file = io.BytesIO()
        Image.new("RGB", (20, 20), (number, 0, 0)).save(file, "PNG")
        (tmp_path / f"{number}.png").write_bytes(file.getvalue())
        picture, answer = base64.b64encode(file.getvalue()).decode(), "AB"[number % 2 == 0]
        lines.append(f"{number}\t{picture}\tIs it open?\tOpen\tClosed\t{answer}")
        rows.append({"image": f"{number}.png", "question": "Open?", "options": ["Open", "Closed"], "answer": answer})
    (tmp_path / "MMVP.tsv").write_text("\n".join(lines) + "\n")
    write_jsonl(tmp_path / "my.jsonl", rows)
    write_jsonl(tmp_path / "said.jsonl", ({"id": own, "raw": raw} for own, raw in SAID.items()))
    return tmp_path


def evaluated(task: Any, folder: Path, **more: Any) -> Any:
    """The log of a task whose model gives the recorded answers in turn."""
    from inspect_ai.model import ModelOutput, ModelUsage, get_model  # pyright: ignore[reportMissingImports]

    outputs = [ModelOutput.from_content("mockllm/model", text) for text in SAID.values()]
    for output in outputs:  # else its tokens are counted with a file from the network
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    model = get_model("mockllm/model", custom_outputs=outputs)
    one = {"max_samples": 1, "max_connections": 1, "display": "none", "log_dir": str(folder / "logs")}
    (log,) = inspect_ai.eval(task, model=model, **one, **more)
    assert log.status == "success", log.error
    return log


@pytest.mark.parametrize("name", ["mmvp", "my.jsonl"])
def test_a_task_has_the_scores_of_our_own_run(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blindspot.evaluation.serving import inspect_tasks

    monkeypatch.chdir(data)
    (benchmark,) = select(name)
    opened: Any = partial(Opened, RecordedAnswerer(Path("said.jsonl"), benchmark.name), "plain")
    assert not prepare([benchmark], data, opened).run(data / "run")
    (ours,) = score(data / "run")["benchmarks"].values()
    first = next(iter(ours["metrics"].values()))
    log = evaluated(inspect_tasks.benchmark_task(name, str(data)), data)
    (found,) = log.results.scores
    assert found.metrics["overall"].value == pytest.approx(first["value"])
    assert found.metrics["standard_error"].value == pytest.approx(first["error"], abs=1e-6)
    sample = next(one for one in log.samples if one.id == "2")
    assert sample.scores["rules"].answer == "B" and "Open" in sample.input[0].text


def test_inspect_ai_finds_a_task_per_benchmark_by_its_entry_point(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_ai._util.entrypoints import clear_entry_points_state  # pyright: ignore[reportMissingImports]

    from blindspot.evaluation.serving import inspect_tasks

    info = data / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINT)
    monkeypatch.syspath_prepend(str(data))
    clear_entry_points_state()
    log = evaluated("blindspot/mmvp", data, task_args={"data": str(data)}, limit=2)
    assert log.eval.task == "blindspot/mmvp" and len(log.samples) == 2
    assert inspect_tasks.TASKS.keys() == BENCHMARKS.keys()


def test_what_cannot_be_asked_is_one_line(data: Path) -> None:
    from blindspot.evaluation.serving import inspect_tasks

    with pytest.raises(UserError, match="bring a model's whole text, and inspect_ai puts a template around it"):
        inspect_tasks.benchmark_task("mmvp", str(data), prompts="paper")
