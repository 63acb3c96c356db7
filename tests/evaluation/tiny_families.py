"""Tiny random checkpoints of every family on disk: those that rehearsals write, and Molmo with code of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from blindspot.studies.tiny_families import BUILDERS as OF_TRANSFORMERS
from blindspot.studies.tiny_families import qwen_tokenizer, write

from .tiny_later import BUILDERS as LATER
from .tiny_molmo import write_code


def molmo(folder: Path) -> None:
    """In the layout of allenai/Molmo-7B-D-0924, with code of its own (`tiny_molmo`)."""
    tokenizer = qwen_tokenizer("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>")
    tokenizer.save_pretrained(folder)
    write_code(folder)
    kinds = {"AutoConfig": "configuration_molmo.MolmoConfig", "AutoModelForCausalLM": "modeling_molmo.MolmoForCausalLM"}
    values = {"model_type": "molmo", "architectures": ["MolmoForCausalLM"], "vocab_size": len(tokenizer)}
    write(folder, "config.json", {**values, "auto_map": kinds})
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, trust_remote_code=True).save_pretrained(folder)
    write(folder, "config.json", {**values, "dtype": "float32", "auto_map": kinds})
    own = {"AutoProcessor": "processing_molmo.MolmoProcessor"}
    images = {"AutoImageProcessor": "processing_molmo.MolmoImageProcessor"}
    common = {"processor_class": "MolmoProcessor", "image_processor_type": "MolmoImageProcessor", "max_crops": 12}
    write(folder, "preprocessor_config.json", {**common, "auto_map": {**own, **images}})
    write(folder, "processor_config.json", {"processor_class": "MolmoProcessor", "auto_map": own})


BUILDERS: dict[str, Callable[[Path], None]] = {**OF_TRANSFORMERS, **LATER, "molmo": molmo}
"""By the name of the family."""


def checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint of the family of that name in ``folder``, which is made; what is there is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    BUILDERS[name](folder)
    return folder
