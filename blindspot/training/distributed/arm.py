"""One stage of one arm, from files to files."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blindspot.errors import UserError
from blindspot.files import new_folder
from blindspot.model import conversation
from blindspot.model.chat_template import from_chat_template
from blindspot.model.load import load
from blindspot.model.variant import BlindspotForConditionalGeneration, save
from blindspot.training.data import LlavaRows, index_rows
from blindspot.training.distributed.config import Stage, stage_config
from blindspot.training.distributed.connector_file import CONNECTOR, load_connector, save_connector
from blindspot.training.distributed.llava import LlavaSamples, Template
from blindspot.training.distributed.loop import train
from blindspot.training.distributed.parallel import DTYPES
from blindspot.training.distributed.ranks import joined
from blindspot.training.loop import Report

MODEL = "model"


def train_arm(
    model: Path | tuple[Any, Any],
    json: Path,
    images: Path,
    out: Path,
    stage: Stage,
    connector: Path | None = None,
    template: str | None = None,
    max_length: int = 2048,
    report: Report = lambda step, steps, loss=None, phase="": None,
    **overrides: Any,
) -> Path:
    """Train a stage of an arm, or go on where it was stopped. Under ``torchrun`` all its processes call this.

    Args:
        model: what to start from: a folder that `blindspot.load` opens, or a variant and its processor.
        json: rows in LLaVA's form.
        images: the folder that their paths are relative to.
        out: folder of the run, on a disk that all ranks see.
        stage: ``connector`` (LLaVA's first) or ``instruct`` (its second); says the recipe.
        connector: a file of stage 1 to start the connector from.
        template: ``plain``, ``v1``, or ``chat`` for the tokenizer's own; by default the stage's in LLaVA.
        max_length: longest sample in tokens, pictures counted.
        report: told of every step, on the first rank.
        overrides: fields of `TrainConfig` that are not as in the recipe.

    Returns:
        What the stage made: ``out/connector.safetensors`` if nothing but the connector trained, else ``out/model``.

    Raises:
        UserError: as `load`, `load_connector`, `index_rows` and `train`; or if ``max_length`` is more than
            ``pack_tokens``.
    """
    config = stage_config(stage, **overrides)
    if config.batching == "packed" and max_length > config.pack_tokens:
        raise UserError(f"a sample of max_length {max_length} does not fit a pack of pack_tokens {config.pack_tokens}")
    with joined() as ranks:
        variant, processor = load(model) if isinstance(model, Path) else model
        if not isinstance(variant, BlindspotForConditionalGeneration):
            raise UserError(f"{model} is a {variant.config.model_type} model as transformers has it; train a Llava")
        if connector is not None:
            load_connector(variant, connector)
        problem = None
        if ranks.first:
            try:
                index_rows(json, out / "rows")
            except UserError as error:
                problem = str(error)
        if problem := ranks.from_first(problem):
            raise UserError(problem)
        samples = LlavaSamples(
            LlavaRows(out / "rows", images),
            processor,
            _template(template or {"connector": "plain", "instruct": "v1"}[stage], processor.tokenizer),
            max_length,
            square=stage == "instruct",
        )
        state = train(config, variant, samples, out, report)
        connects = set(config.frozen) == {"vision_tower", "language_model"}
        made = out / (CONNECTOR if connects else MODEL)
        if ranks.first and connects:
            save_connector(state, variant.config, made)
        elif ranks.first:
            _save_model(variant.config, state, processor, made, DTYPES[config.precision])
        ranks.from_first(None)
        return made


def _template(name: str, tokenizer: Any) -> Template:
    if name == "plain":
        return conversation.plain
    if name == "v1":
        return partial(conversation.v1, end=tokenizer.eos_token)
    if name == "chat":
        return partial(from_chat_template, tokenizer=tokenizer)
    raise UserError(f"unknown template {name!r}; it is plain, v1 or chat")


def _save_model(config: Any, state: dict[str, Tensor], processor: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint that `blindspot.load` opens, whole or not at all."""
    with torch.device("meta"):
        whole = BlindspotForConditionalGeneration(config)
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    whole.load_state_dict(cast, assign=True)
    whole.config.dtype = dtype
    with new_folder(folder, "free the disk or choose another --out") as new:
        save(whole, new)
        processor.save_pretrained(new)
        if folder.exists():
            shutil.rmtree(folder)
