"""What each kind of step does: reads its inputs, calls the rooms below, writes its folder."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from blindspot.benchmarks.exact import score
from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, Encoder, TowerShape, build_tower, features
from blindspot.errors import UserError
from blindspot.files import LOG, write_jsonl
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.config import Parts
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import IMAGE
from blindspot.model.variant import BlindspotForConditionalGeneration, save
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.question import Question
from blindspot.studies.corpus import SOLIDS, Corpus, CorpusSize, EncoderView, write_nlvr, write_scenes, write_solids
from blindspot.studies.diagnosing import diagnose
from blindspot.studies.relatives import SCENES
from blindspot.studies.step import StepContext, StepFunction
from blindspot.studies.tracking import track_scores, tracker_of
from blindspot.training.fit import Probing, Recipe
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.parts import load_weights, save_weights
from blindspot.training.stages import Pixels, Run, train_encoder, train_qformer, train_text, train_variant

LANGUAGE = "language.safetensors"
TOWER = "tower.safetensors"
CONNECTOR = "connector.safetensors"
PRETRAINED_CONNECTOR = "pretrained.safetensors"
MODEL = "model"
PRETRAINED = ("vision_tower", "language_model")
FIRST_PROBE = 30
"""Steps, which are those in which the rate rises."""
TOGETHER = 256
"""Questions that are answered at a time."""
LONGEST_ANSWER = 6
"""Tokens."""
PAIRED = frozenset(column["id"] for column in SCENES if column.get("metric") == "pair_accuracy")
"""Columns in which a pair of questions is right only if both are."""

Config = Mapping[str, Any]


def data(context: StepContext) -> None:
    """Draw or read everything that is trained and tested on."""
    config = context.step.config
    model = config["model"]
    size = CorpusSize(**config["data"], side=model["image"], image_tokens=(model["image"] // model["patch"]) ** 2)
    if config["source"] == "scenes":
        write_scenes(context.folder, size, context.report)
    elif config["source"] in SOLIDS:
        write_solids(context.folder, size, context.report, SOLIDS[config["source"]])
    elif context.data_path is None:
        raise UserError("this study needs real data; name its folder with --data")
    else:
        write_nlvr(context.folder, size, context.report, context.data_path)


def text(context: StepContext) -> None:
    """Pretrain the language model on text."""
    corpus, config = Corpus(context.inputs["data"]), context.step.config
    rows = corpus.text(config["text"]["about"])
    save_weights(train_text(_language(config, corpus), rows, _run(context, "text")), context.folder / LANGUAGE)


def encoder(context: StepContext) -> None:
    """Pretrain an image encoder, or leave it as random as it is built."""
    corpus, config = Corpus(context.inputs["data"]), context.step.config
    family, positions = ENCODERS[config["family"]], EncoderPositions.from_dict(config["positions"])
    if config["objective"] == "none":
        save_weights(build_tower(family, _tower(config), positions), context.folder / TOWER)
        return
    captioned, captions_nl = corpus.captions(config["captions"] or "objects")
    words, run = corpus.words, _run(context, "encoder")
    captions = CaptionShape(words.count, captions_nl.shape[1], words.pad, words.end)

    pixels = _pixels(corpus, captioned, family, _view(config))
    tower = train_encoder(family, config["objective"], _tower(config), positions, captions_nl, captions, pixels, run)
    save_weights(tower, context.folder / TOWER)


def connector(context: StepContext) -> None:
    """Stage 1: train what stands between the frozen encoder and language model, a Q-Former first by BLIP-2's losses."""
    model, corpus, family = _pretrained(context)
    if "connector_objective" in context.step.config:
        _pretrain_connector(context, model, corpus, family)
    rows = corpus.rows_for(model.tokens_per_image)
    pixels = _pixels(corpus, corpus.row_images, family, _view(context.step.config))
    train_variant(model, PRETRAINED, rows, pixels, _run(context, "connector"))
    save_weights(model.model, context.folder / CONNECTOR, without=PRETRAINED)


def instruct(context: StepContext) -> None:
    """Stage 2: train projector and language model, and the encoder if the study says so."""
    model, corpus, family = _pretrained(context)
    load_weights(model.model, context.inputs["connector"] / CONNECTOR, without=PRETRAINED)
    frozen = () if context.step.config["instruct"]["encoder"] == "trained" else ("vision_tower",)
    run = _run(context, "instruct")
    asked = context.step.config["instruct"]["probes"]
    probed = [question for question in corpus.questions("probe") if question.benchmark in asked]
    counts = dict(Counter(question.benchmark for question in probed))
    view = _view(context.step.config)

    def measure() -> dict[str, Any]:
        rows = _answers(model, corpus, family, probed, "probe", view)
        return {"questions": counts, "right": column_scores(rows)}

    rows, probe = corpus.rows_for(model.tokens_per_image), Probing(measure, probe_steps(run.recipe.steps))
    train_variant(model, frozen, rows, _pixels(corpus, corpus.row_images, family, view), run, probe)
    model.config.images_per_question = corpus.row_images.shape[1]
    save(model, context.folder / MODEL)
    build_processor(model.config, corpus.tokenizer).save_pretrained(context.folder / MODEL)


def evaluate(context: StepContext) -> None:
    """Answer every test question and score it."""
    config = context.step.config
    model, corpus, family = _pretrained(context, config["evaluate_with"])
    if context.step.stage == "connector":
        load_weights(model.model, context.inputs["connector"] / CONNECTOR, without=PRETRAINED)
    else:
        model = type(model).from_pretrained(context.inputs["instruct"] / MODEL, attn_implementation="eager")
        if config["evaluate_with"] != config["positions"]:
            if config["encoder_training"] == "frozen":  # what is evaluated is the encoder that was loaded
                _place(model, config["pretrained_with"])
                load_weights(model.model.vision_tower, context.inputs["encoder"] / TOWER)
            _place(model, config["evaluate_with"])
    view = _view(config)
    view = replace(view, side=config.get("evaluate_size", view.side))
    rows = _answers(model, corpus, family, corpus.questions("test"), "test", view, context.report)
    write_jsonl(context.folder / "answers.jsonl", rows)
    track_scores(context, lambda: column_scores([row for row in rows if row["groups"]["split"] == "iid"]))


def _by_recipe(toy: StepFunction, name: str) -> StepFunction:
    """The toy step, or for a study of real size the function of that name in `blindspot.studies.real`."""

    def step(context: StepContext) -> None:
        if context.step.config.get("recipe") != "llava":
            toy(context)
            return
        from blindspot.studies import real  # which no key of a miniature's step holds

        getattr(real, name)(context)

    return step


STEPS: dict[str, StepFunction] = {
    "data": _by_recipe(data, "data_step"),
    "text": text,
    "encoder": encoder,
    "connector": _by_recipe(connector, "train_step"),
    "instruct": _by_recipe(instruct, "train_step"),
    "evaluate": _by_recipe(evaluate, "evaluate_step"),
    "diagnose": diagnose,
}


def _pretrain_connector(
    context: StepContext, model: BlindspotForConditionalGeneration, corpus: Corpus, family: Encoder
) -> None:
    """Once: what it leaves is found again by a step that was killed later."""
    body, done = model.model, context.folder / PRETRAINED_CONNECTOR
    if not done.exists():
        captioned, captions_nl = corpus.captions(context.step.config["encoder"]["captions"])
        words, pixels = corpus.words, _pixels(corpus, captioned, family, _view(context.step.config))
        captions = CaptionShape(words.count, captions_nl.shape[1], words.pad, words.end)

        def patches(chosen: np.ndarray) -> Tensor:
            seen = {"grids_n2" if name == "spatial_shapes" else name: one for name, one in pixels(chosen).items()}
            with torch.no_grad():
                return features(body.vision_tower, family, layer=body.parts.layer, **seen)

        run = _run(context, "encoder")
        train_qformer(body.multi_modal_projector, captions_nl, captions, patches, replace(run, if_falling=None))
        save_weights(body.multi_modal_projector, done)
        (context.folder / LOG).rename(context.folder / "log-qformer.jsonl")
    load_weights(body.multi_modal_projector, done)


def _run(context: StepContext, stage: str) -> Run:
    recipe = Recipe(*(context.step.config[stage][key] for key in ("steps", "batch", "lr")))
    report, if_falling = partial(context.report, phase=stage), context.step.config[stage].get("if_falling")
    return Run(recipe, context.step.config["seed"], context.folder, report, tracker_of(context), if_falling)


def _tower(config: Config) -> TowerShape:
    return TowerShape(*(config["model"][key] for key in ("width", "encoder_layers", "heads", "mlp", "image", "patch")))


def _language(config: Config, corpus: Corpus) -> LlamaConfig:
    words, keys = corpus.words, ("width", "language_layers", "heads", "mlp", "rotary_base")
    shape = LanguageShape(*(config["model"][key] for key in keys), vocabulary=words.count)
    return shape.config(words.pad, words.begin, words.end)


def _pretrained(
    context: StepContext, positions: Config | None = None
) -> tuple[BlindspotForConditionalGeneration, Corpus, Encoder]:
    """The variant as stage 1 finds it: pretrained encoder and language model, random connector.

    The encoder has the positions that it is trained with, unless others are given.
    """
    corpus, config = Corpus(context.inputs["data"]), context.step.config
    family, language = ENCODERS[config["family"]], _language(config, corpus)
    model = build_variant(
        family,
        _tower(config),
        EncoderPositions.from_dict(config["pretrained_with"]),
        language,
        corpus.words.image,
        language_positions=LanguagePositions.from_dict(config["language_positions"]),
        connector=ConnectorSpec.from_dict(config["connector_spec"]),
        drop_first_patch=config["drop_first_patch"],
        layer=config.get("layer", -1),
    )
    text_model = LlamaForCausalLM(language)
    load_weights(text_model, context.inputs["text"] / LANGUAGE)
    model.model.language_model.load_state_dict(text_model.model.state_dict())
    model.lm_head.load_state_dict(text_model.lm_head.state_dict())
    load_weights(model.model.vision_tower, context.inputs["encoder"] / TOWER)
    wanted = positions or config["positions"]
    if wanted != config["pretrained_with"]:
        _place(model, wanted)
    return model, corpus, family


def _place(model: BlindspotForConditionalGeneration, positions: Config) -> None:
    """Swap the positions of a finished encoder."""
    model.config.encoder_positions = EncoderPositions.from_dict(positions).to_dict()
    model.model.parts = Parts(model.config)
    model.model.attach_positions()


def _view(config: Config) -> EncoderView:
    """How an arm sees pictures."""
    return EncoderView(config["model"]["image"], config["model"]["patch"], **config.get("view", {}))


def _pixels(corpus: Corpus, images: np.ndarray, family: Encoder, view: EncoderView) -> Pixels:
    """What an encoder sees of training rows; ``images`` indexes the images of each row."""
    sizes_n2 = corpus.sizes("images")

    def pixels(chosen: np.ndarray) -> dict[str, Tensor]:
        own = images[chosen].reshape(-1)
        return view(corpus.images[own], family, None if sizes_n2 is None else sizes_n2[own])

    return pixels


@torch.no_grad()
def _answers(
    model: Any,
    corpus: Corpus,
    family: Encoder,
    questions: list[Question],
    split: Literal["test", "probe"],
    view: EncoderView,
    report: Callable[[int, int], None] = lambda step, steps: None,
) -> list[dict[str, Any]]:
    """Greedy answers and their scores, a row of ``answers.jsonl`` for each question.

    They are asked column by column: answers of one column are equally long, so batches stop early.
    """
    model.eval()
    pictures_nkhwc, sizes_n2 = corpus.pictures(split), corpus.sizes(split)
    tokens = model.model.parts.image_tokens((view.side // view.patch,) * 2)
    by_task: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_task[question.groups.get("task", question.benchmark)].append(question)
    rows: list[dict[str, Any]] = []
    for column in by_task.values():
        for start in range(0, len(column), TOGETHER):
            asked = column[start : start + TOGETHER]
            own = [question.images[0] for question in asked]
            images_nkhwc, sizes = pictures_nkhwc[own], None if sizes_n2 is None else sizes_n2[own]
            image = IMAGE * (tokens * images_nkhwc.shape[1])
            inputs = corpus.tokenizer([f"{image} {one.prompt}" for one in asked], padding=True, return_tensors="pt")
            generated = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                **view(images_nkhwc.reshape(-1, *images_nkhwc.shape[2:]), family, sizes),
                max_new_tokens=LONGEST_ANSWER,
                do_sample=False,
            )
            said = corpus.tokenizer.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for question, raw in zip(asked, said, strict=True):
                rows.append({**question.row(raw, question.prompt, question.images), **score(question, raw).numbers()})
        report(len(rows), len(questions))
    return rows


def probe_steps(steps: int) -> list[int]:
    """After which of so many steps probes are asked: two for each doubling, because learning is told on that scale."""
    grid = (round(FIRST_PROBE * 2 ** (number / 2)) for number in range(2 * steps.bit_length()))
    return [step for step in grid if step < steps] + [steps]


def column_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean score of each column; a pair scores what its worse half does."""
    columns: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        column = row["benchmark"]
        unit, scores = row["groups"]["cluster"] if column in PAIRED else row["id"], columns[column]
        scores[unit] = min(scores.get(unit, 1.0), row["score"])
    return {column: round(sum(scores.values()) / len(scores), 6) for column, scores in columns.items()}
