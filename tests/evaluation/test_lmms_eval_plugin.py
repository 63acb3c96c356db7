"""The plugin in lmms-eval itself, where that is installed (extra ``[lmms-eval]``)."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.serving.lmms_eval import Blindspot, _longest, manifest, question

from .tiny_families import checkpoint

ENTRY_POINT = "[lmms_eval.models]\nblindspot = blindspot.evaluation.serving.lmms_eval:manifest\n"
TASK = """
task: blindspot_toy
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: generate_until
doc_to_visual: !function toy.pictures
doc_to_text: !function toy.text
doc_to_target: answer
process_results: !function toy.results
generation_kwargs: {{max_new_tokens: 5, temperature: 0, do_sample: false, until: ["\\n\\n"]}}
metric_list:
  - {{metric: same, aggregation: mean, higher_is_better: true}}
"""
FUNCTIONS = """
def pictures(doc):
    return [doc["image"].convert("RGB")]

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def results(doc, results):
    return {"same": float(results[0] == doc["answer"])}
"""


class Echo:
    """Says the text that it is asked."""

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        for one in reversed(asked):
            text = "".join(piece for piece in one.prompt.content if piece != PICTURE)
            yield Reply(one.id, text, error="it is broken" if text == "broken" else None)


def picture(side: int = 8, mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((side, side), 60).convert(mode)


def said(*parts: Any, **more: Any) -> list[dict[str, Any]]:
    kinds = {str: "text", Image.Image: "image"}
    content = [{"type": kinds[type(part)], "text" if isinstance(part, str) else "url": part} for part in parts]
    return [*more.get("before", []), {"role": "user", "content": content}]


def test_messages_become_a_question_whose_pictures_keep_their_pixels() -> None:
    shown = picture()
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    asked = question("q", said(shown, "left or ", shown, "right?", before=[system]), 7)
    assert asked.prompt == Prompt((PICTURE, "left or ", PICTURE, "right?"), system="be brief", longest=7)
    assert asked.picture_keys[0] == asked.picture_keys[1]
    with Image.open(io.BytesIO(asked.pictures[0])) as stored:
        assert stored.tobytes() == shown.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_pictures_of_any_mode_are_taken(mode: str) -> None:
    (stored,) = question("q", said(picture(mode=mode)), 7).pictures
    with Image.open(io.BytesIO(stored)) as opened:
        expected = picture(mode=mode)
        assert opened.size == expected.size and opened.format == "PNG"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": []}, {"role": "assistant", "content": []}],
        [{"role": "user", "content": []}, {"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "video", "url": "film.mp4"}]}],
    ],
)
def test_several_turns_and_videos_are_refused(messages: Any) -> None:
    with pytest.raises(UserError):
        question("q", messages, 7)


@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        ({}, 1024),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}, 16),
        ({"do_sample": False, "temperature": 0.7}, 1024),
        ({"do_sample": True, "temperature": 0}, 1024),
        ({"temperature": 0.2}, None),
        ({"do_sample": True}, None),
        ({"num_beams": 4}, None),
    ],
)
def test_settings_that_are_not_greedy_are_refused(settings: dict[str, Any], longest: int | None) -> None:
    if longest is None:
        with pytest.raises(UserError, match="decodes greedily"):
            _longest(settings)
    else:
        assert _longest(settings) == longest


@pytest.fixture
def registry() -> Any:
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (extra [lmms-eval])")
    from lmms_eval.models import registry_v2  # pyright: ignore[reportMissingImports]

    return registry_v2


def test_lmms_eval_finds_the_plugin_by_its_entry_point(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINT)
    monkeypatch.syspath_prepend(str(tmp_path))
    models = registry.ModelRegistryV2()
    models.load_entrypoint_manifests(overwrite=True)
    assert "blindspot" in models.list_canonical_model_ids()
    assert models.resolve("blindspot").model_type == "chat"
    assert models.get_model_class("blindspot") is Blindspot


def test_requests_are_answered_in_their_order_up_to_their_stop(registry: Any) -> None:
    plugin: Any = object.__new__(Blindspot)
    super(Blindspot, plugin).__init__()
    plugin._answerer = Echo()
    texts = [f"answer {number}\n\nmore" for number in range(5)] + ["broken"]
    plugin.task_dict = {"toy": {"test": texts}}
    requests = [_request(number, until) for number, until in enumerate(["\n\n", ["more", "\n\n"], [], "zzz", None])]
    assert plugin.generate_until(requests) == ["answer 0", "answer 1", *texts[2:5]]
    with pytest.raises(UserError, match="toy, document 5: it is broken"):
        plugin.generate_until([_request(5, None)])


def _request(number: int, until: Any) -> Any:
    from lmms_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

    settings = {"max_new_tokens": 5} | ({} if until is None else {"until": until})
    arguments = ("context", lambda doc: said(picture(), doc), settings, number, "toy", "test")
    return Instance("generate_until", arguments, 0, {"task": "toy", "doc_id": number, "repeats": 1})


def test_lmms_eval_evaluates_a_task_with_it(registry: Any, tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("lmms_eval.evaluator", reason="lmms-eval's own dependencies are not all installed")
    datasets = pytest.importorskip("datasets")
    from lmms_eval import evaluator, models  # pyright: ignore[reportMissingImports]
    from lmms_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    from blindspot.evaluation.models.local import LocalAnswerer
    from blindspot.model.load import load

    folder = checkpoint("llava", tmp_path / "model")
    pictures = [picture(60 + number) for number in range(3)]
    asked = [question(f"{number}", said(pictures[number % 3], f"where is {number}?"), 5) for number in range(6)]
    expected = {reply.id: reply.raw for reply in LocalAnswerer(*load(folder)).answer(asked)}
    rows = {
        "image": [pictures[number % 3] for number in range(6)],
        "question": [f"where is {number}?" for number in range(6)],
        "answer": [expected[str(number)].split("\n\n")[0] for number in range(5)] + ["something else"],
    }
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "rows.parquet")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "toy.yaml").write_text(TASK.format(rows=tmp_path / "rows.parquet"))
    (tasks / "toy.py").write_text(FUNCTIONS)
    models.MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)
    result = evaluator.simple_evaluate(
        model="blindspot",
        model_args=f"pretrained={folder}",
        tasks=["blindspot_toy"],
        task_manager=TaskManager(include_path=str(tasks)),
        batch_size=4,
        log_samples=True,
    )
    assert result["results"]["blindspot_toy"]["same,none"] == pytest.approx(5 / 6)
