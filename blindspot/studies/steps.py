"""What each kind of step does: reads its inputs, calls the rooms below, writes its folder."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from blindspot.benchmarks.exact import score
from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, Encoder, TowerShape, build_tower
from blindspot.errors import UserError
from blindspot.files import write_jsonl
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.config import Parts
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import IMAGE
from blindspot.model.variant import BlindspotForConditionalGeneration, save
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.question import Question
from blindspot.studies.corpus import Corpus, CorpusSize, to_pixels, write_nlvr, write_scenes
from blindspot.studies.diagnosing import diagnose
from blindspot.studies.relatives import PAIRED
from blindspot.studies.step import StepContext, StepFunction
from blindspot.training.fit import Recipe
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.parts import load_weights, save_weights
from blindspot.training.stages import Run, train_encoder, train_text, train_variant

LANGUAGE = "language.safetensors"
TOWER = "tower.safetensors"
CONNECTOR = "connector.safetensors"
MODEL = "model"
PRETRAINED = ("vision_tower", "language_model")
PROBES = 4
PROBED_PER_COLUMN = 16
TOGETHER = 256
"""Questions that are answered at a time."""
LONGEST_ANSWER = 6
"""Tokens."""

Config = Mapping[str, Any]


def data(context: StepContext) -> None:
    """Draw or read everything that is trained and tested on."""
    config = context.step.config
    model = config["model"]
    size = CorpusSize(**config["data"], side=model["image"], image_tokens=(model["image"] // model["patch"]) ** 2)
    if config["source"] == "scenes":
        write_scenes(context.folder, size, context.report)
        return
    if context.data_path is None:
        raise UserError("this study needs real data; name its folder with --data")
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

    def pixels(chosen: np.ndarray) -> Tensor:
        return to_pixels(corpus.images[captioned[chosen]], family)

    tower = train_encoder(family, config["objective"], _tower(config), positions, captions_nl, captions, pixels, run)
    save_weights(tower, context.folder / TOWER)


def connector(context: StepContext) -> None:
    """Stage 1: train what stands between the frozen encoder and language model."""
    model, corpus, family = _pretrained(context)
    rows = corpus.rows_for(model.tokens_per_image)
    train_variant(model, PRETRAINED, rows, _row_pixels(corpus, family), _run(context, "connector"))
    save_weights(model.model, context.folder / CONNECTOR, without=PRETRAINED)


def instruct(context: StepContext) -> None:
    """Stage 2: train projector and language model, and the encoder if the study says so."""
    model, corpus, family = _pretrained(context)
    load_weights(model.model, context.inputs["connector"] / CONNECTOR, without=PRETRAINED)
    frozen = () if context.step.config["instruct"]["encoder"] == "trained" else ("vision_tower",)
    run = _run(context, "instruct")
    probed = probe_questions(corpus.questions)

    def probe() -> dict[str, Any]:
        return {"accuracy": column_scores(_answers(model, corpus, family, probed))}

    rows, every = corpus.rows_for(model.tokens_per_image), max(1, run.recipe.steps // PROBES)
    train_variant(model, frozen, rows, _row_pixels(corpus, family), run, probe, every)
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
    rows = _answers(model, corpus, family, corpus.questions, context.report)
    write_jsonl(context.folder / "answers.jsonl", rows)


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


def _run(context: StepContext, stage: str) -> Run:
    recipe = Recipe(*(context.step.config[stage][key] for key in ("steps", "batch", "lr")))
    return Run(recipe, context.step.config["seed"], context.folder, partial(context.report, phase=stage))


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


def _row_pixels(corpus: Corpus, family: Encoder) -> Callable[[np.ndarray], Tensor]:
    return lambda chosen: to_pixels(corpus.images[corpus.row_images[chosen].reshape(-1)], family)


@torch.no_grad()
def _answers(
    model: Any,
    corpus: Corpus,
    family: Encoder,
    questions: list[Question],
    report: Callable[[int, int], None] = lambda step, steps: None,
) -> list[dict[str, Any]]:
    """Greedy answers and their scores, a row of ``answers.jsonl`` for each question.

    They are asked column by column: answers of one column are equally long, so batches stop early.
    """
    model.eval()
    by_task: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_task[question.groups.get("task", question.benchmark)].append(question)
    rows: list[dict[str, Any]] = []
    for column in by_task.values():
        for start in range(0, len(column), TOGETHER):
            asked = column[start : start + TOGETHER]
            images_nkhwc = corpus.test_images[[question.images[0] for question in asked]]
            image = IMAGE * (model.config.image_seq_length * images_nkhwc.shape[1])
            inputs = corpus.tokenizer([f"{image} {one.prompt}" for one in asked], padding=True, return_tensors="pt")
            generated = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                pixel_values=to_pixels(images_nkhwc.reshape(-1, *images_nkhwc.shape[2:]), family),
                max_new_tokens=LONGEST_ANSWER,
                do_sample=False,
            )
            said = corpus.tokenizer.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for question, raw in zip(asked, said, strict=True):
                rows.append({**question.row(raw, question.prompt, question.images), **score(question, raw).numbers()})
        report(len(rows), len(questions))
    return rows


def probe_questions(questions: Sequence[Question]) -> list[Question]:
    """A small sample of the test, asked on the way through stage 2 for the curves of accuracy against training step.

    Questions of every column, drawn at random but always the same; pairs stay together.
    """
    columns: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        if question.groups["split"] == "iid":
            columns[question.benchmark][_unit(question.benchmark, question.id, question.groups)].append(question)
    drawn: list[Question] = []
    for column, units in columns.items():
        for unit in Random(f"probe/{column}").sample(list(units), min(PROBED_PER_COLUMN, len(units))):
            drawn += units[unit]
    return drawn


def column_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean score of each column; a pair scores what its worse half does."""
    columns: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        unit = _unit(row["benchmark"], row["id"], row["groups"])
        scores = columns[row["benchmark"]]
        scores[unit] = min(scores.get(unit, 1.0), row["score"])
    return {column: round(sum(scores.values()) / len(scores), 6) for column, scores in columns.items()}


def _unit(column: str, own: str, groups: dict[str, Any]) -> str:
    return groups["cluster"] if column in PAIRED else own
