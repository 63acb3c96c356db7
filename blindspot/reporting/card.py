"""The card of a model on the Hugging Face Hub: how it was made, what it scores and how surely, what it cannot do."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import blindspot
from blindspot.errors import UserError
from blindspot.files import is_hub_id, parse_json
from blindspot.reporting.hub import PublishedModel, is_local
from blindspot.reporting.page import kept_report, render
from blindspot.reporting.results import collect
from blindspot.reporting.tables import columns_of
from blindspot.text import clean

STAGE = "instruct"
AXES = ("encoder", "language_model", "image_size", "drop_first_patch", "connector_from", "encoder_positions",
        "evaluate_with", "language_positions", "connector")  # fmt: skip
"""What a training run's record says of the model; all else there is its recipe."""
MANY_UNREADABLE = 0.05
QUESTION = "What is to the left of the cup?"
Row = dict[str, Any]


def make_card(model: PublishedModel, name: str, licence_of: Callable[[str], str], licence: str | None = None) -> str:
    """The text of ``README.md``, its metadata in the Hub's format first.

    Args:
        model: what it is about.
        name: what it is loaded by: a repository of the Hub, or a folder.
        licence_of: the licence of a released checkpoint by its id; empty where that is not known.
        licence: what the user says that it is.
    """
    plan, record = model.plan, model.records.get(STAGE, {})
    arm = next((arm for arm in plan.arms if arm.id == model.arm), None) if plan else None
    axes = dict(arm.axes) if arm else {key: record[key] for key in AXES if key in record}
    recipe = plan.recipes.get(model.arm, {}) if plan else {}
    stages = recipe.get("stages") or {
        stage: {key: value for key, value in values.items() if key not in ("study", "arm", "stage", *AXES)}
        for stage, values in model.records.items()
    }
    bases = [str(axes[key]) for key in ("encoder", "language_model") if key in axes]
    made = plan is None or plan.scale != "rehearsal"  # which makes checkpoints under the names of released ones
    bases = [base for base in bases if made and is_hub_id(base) and not Path(base).exists()]
    licences = {base: licence_of(base) for base in bases}
    results = _results(model)
    scores = _scores(model, results) if results else []
    metadata = {
        **_licence(licences, licence),
        "library_name": "transformers" if model.plain else "blindspot",
        "base_model": bases or None,
        "datasets": recipe.get("datasets") or None,
        "tags": ["blindspot", "spatial-reasoning", "vision-language-model", *(["llava"] if model.plain else [])],
    }
    meaningful = plan is None or plan.meaningful
    return _front(name, metadata, scores if meaningful else []) + render(
        "card.md.j2",
        name=PurePath(name).name,
        plain=model.plain,
        code=_code(model, name, results),
        version=blindspot.__version__,
        plan=plan,
        arm=arm,
        trained_as=record,
        seed=model.seed if plan else record.get("seed"),
        seeds=results["seeds"] if results else [],
        axes={key.replace("_", " "): _said(value) for key, value in axes.items() if value is not None},
        stages={stage: _listed(values) for stage, values in stages.items()},
        datasets=recipe.get("datasets", []),
        scores=scores,
        chance=[row["name"] for row in scores if row["chance"] is not None and row["low"] <= row["chance"]],
        unreadable=[row["name"] for row in scores if row["parse_failures"] > MANY_UNREADABLE],
        notes=results["notes"] if results else [],
        meaningful=meaningful,
        licence=metadata["license"],
        given=licence is not None,
        licences=licences,
    )


def _results(model: PublishedModel) -> Row | None:
    """What the study measured, made anew where it is not current; None before an evaluation of this model is done."""
    if model.plan is None or model.run is None:
        return None
    own = [one for one in model.plan.evaluations() if (one.arm, one.seed, one.stage) == (model.arm, model.seed, STAGE)]
    if not any((model.run / step.folder / "done.json").is_file() for step in own):
        return None
    return kept_report(model.run) or collect(model.run)


def _scores(model: PublishedModel, results: Row) -> list[Row]:
    """Of every column: its score with interval and chance, the mean over seeds, and how far training alone moves it."""
    rows = {
        (row["column"], row["seed"]): row
        for row in results["scores"]
        if (row["arm"], row["stage"], row["split"]) == (model.arm, STAGE, "iid") and row["score"] is not None
    }
    noise = {row["column"]: row["deviation"] for row in results["noise"] if row["stage"] == STAGE}
    return [
        {**rows[column.id, model.seed], "name": _column_name(column), "asks": column.asks, "metric": column.metric,
         "noise": noise.get(column.id), "mean": rows.get((column.id, None), {}).get("score")}
        for column in columns_of(results)
        if (column.id, model.seed) in rows
    ]  # fmt: skip


def _column_name(column: Any) -> str:
    return f"{column.name} (drawn relative)" if column.relative else column.name


def _licence(licences: Mapping[str, str], given: str | None) -> dict[str, str]:
    """As the Hub's metadata say it; ``other`` where the checkpoints that it starts from have several."""
    if given or not licences or not all(licences.values()):
        return {"license": given or "unknown"}
    if len(set(licences.values())) == 1:
        return {"license": next(iter(licences.values()))}
    return {"license": "other", "license_name": "-and-".join(dict.fromkeys(licences.values()))}


def _front(name: str, metadata: Mapping[str, Any], scores: list[Row]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    found = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=row["asks"],
            dataset_name=row["name"],
            metric_type=row["metric"],
            metric_name=f"{row['metric'].replace('_', ' ')}, %",
            metric_value=round(100 * row["score"], 2),
            metric_args={"interval_95": [round(100 * row[end], 2) for end in ("low", "high")], "questions": row["n"]},
        )
        for row in scores
    ]
    data = ModelCardData(
        pipeline_tag="image-text-to-text",
        model_name=PurePath(name).name if found else None,
        eval_results=found or None,
        **metadata,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _code(model: PublishedModel, name: str, results: Row | None) -> str:
    """Python that opens the model and asks it something about ``picture.png``."""
    from markupsafe import Markup

    quoted, pictures = json.dumps(name), int(model.config.get("images_per_question", 1))
    if model.plain:
        opened = (
            "from PIL import Image\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f"model = AutoModelForImageTextToText.from_pretrained({quoted})\n"
            f"processor = AutoProcessor.from_pretrained({quoted})"
        )
    else:
        opened = f"import blindspot\nfrom PIL import Image\n\nmodel, processor = blindspot.load({quoted})"
    several = f" * {pictures}" if pictures > 1 else ""
    text = json.dumps({"type": "text", "text": _question(model, results)}, ensure_ascii=False)
    image = f'{{"type": "image"}}]{several} + [' if several else '{"type": "image"}, '
    return Markup(f"""{opened}
content = [{image}{text}]
prompt = processor.apply_chat_template([{{"role": "user", "content": content}}], add_generation_prompt=True)
images = [Image.open("picture.png").convert("RGB")]{several}
inputs = processor(images=images, text=[prompt], return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=32, do_sample=False)
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))""")


def _question(model: PublishedModel, results: Row | None) -> str:
    """One that its tokenizer has the words for: those of a miniature know a closed set."""
    try:
        words = parse_json((model.folder / "tokenizer.json").read_bytes())["model"]
        if words["type"] != "WordLevel":
            return QUESTION
        asked = [pick["prompt"] for pick in results["gallery"]] if results else []
        return asked[0] if asked else " ".join([word for word in words["vocab"] if word.isalpha()][:3])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not (model.folder / "tokenizer.model").is_file():
            raise UserError(f"{model.folder / 'tokenizer.json'} is missing or damaged ({error})") from error
        return QUESTION


def _listed(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    said = {key.replace("_", " "): _said(value) for key, value in values.items() if value is not None}
    return [(key, value) for key, value in said.items() if value and key != "recipe"]


def _said(value: Any) -> str:
    """A value as a reader takes it, and of a path on this machine its last part."""
    if isinstance(value, dict):
        named = {**value, "name": _said(value["file"])} if "file" in value else value
        return ", ".join(f"{key} {_said(one)}" for key, one in named.items() if key not in ("file", "images"))
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = clean(str(value), 200)
    return PurePath(text).name if is_local(text) else text
