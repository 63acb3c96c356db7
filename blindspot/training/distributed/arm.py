"""One stage of one model, from files to files."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blindspot.errors import UserError
from blindspot.files import new_folder
from blindspot.model.load import load
from blindspot.model.variant import BlindspotForConditionalGeneration, save
from blindspot.training.distributed.config import Stage, stage_config
from blindspot.training.distributed.connector_file import CONNECTOR, load_connector, save_connector
from blindspot.training.distributed.parallel import DTYPES
from blindspot.training.distributed.ranks import joined
from blindspot.training.distributed.stage import Material, refuse_long, train_stage
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
    """Train a stage of a model, or go on where it was stopped. Under ``torchrun`` all its processes call this.

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
        UserError: as `load`, `load_connector` and `train_stage`.
    """
    config = stage_config(stage, **overrides)
    refuse_long(config, max_length)
    with joined() as ranks:
        variant, processor = load(model) if isinstance(model, Path) else model
        if not isinstance(variant, BlindspotForConditionalGeneration):
            raise UserError(f"{model} is a {variant.config.model_type} model as transformers has it; train a Llava")
        if connector is not None:
            load_connector(variant, connector)
        template = template or {"connector": "plain", "instruct": "v1"}[stage]
        material = Material(json, images, out / "rows", template, max_length, pad=stage == "instruct")
        facts = {"stage": stage} | ({"model": str(model.resolve())} if isinstance(model, Path) else {})
        state = train_stage(config, variant, processor, material, out, ranks, report, facts)
        connects = set(config.frozen) == {"vision_tower", "language_model"}
        made = out / (CONNECTOR if connects else MODEL)
        if ranks.first and connects:
            save_connector(state, variant.config, made)
        elif ranks.first:
            save_model(variant.config, state, processor, made, DTYPES[config.precision])
        ranks.from_first(None)
        return made


def save_model(config: Any, state: dict[str, Tensor], processor: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint that `blindspot.load` opens, whole or not at all.

    Args:
        config: the variant's.
        state: its weights.
        processor: its processor.
        folder: what is there already is replaced.
        dtype: of the weights on disk.

    Raises:
        UserError: if it cannot be written.
    """
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
