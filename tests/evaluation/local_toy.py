"""Questions about pictures of noise, and variants of a few thousand weights to ask."""

import random
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, TowerShape
from blindspot.evaluation.adapters import Adapter, adapter_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt
from blindspot.evaluation.models.rows import on_device
from blindspot.model import images
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import word_tokenizer, words_of
from blindspot.model.variant import save
from blindspot.positions import EncoderPositions, LanguagePositions

WORDS = [f"w{number}" for number in range(40)]
TOWER = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
VARIANTS = {
    "plain": ("clip", LanguagePositions(), ConnectorSpec()),
    "ragged": ("siglip2", LanguagePositions("mrope"), ConnectorSpec()),
    "mrope": ("clip", LanguagePositions("mrope", spatial_reset=True), ConnectorSpec()),
    "rings": ("clip", LanguagePositions("concentric"), ConnectorSpec()),
    "rows": ("siglip", LanguagePositions("row_break"), ConnectorSpec()),
    "gated": ("clip", LanguagePositions(), ConnectorSpec("gated_cross_attention")),
}


def variant(kind: str, known: Sequence[str] = WORDS, encoder: EncoderPositions | None = None) -> tuple[Any, Any]:
    """A variant with weights large enough that questions get different answers, and its processor."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(list(known))
    words = words_of(tokenizer)
    language = LanguageShape(32, 2, 4, 64, 100.0, words.count).config(words.pad, words.begin, words.end)
    family, positions, connector = VARIANTS[kind]
    model = build_variant(
        ENCODERS[family],
        TOWER,
        encoder or EncoderPositions(),
        language,
        words.image,
        language_positions=positions,
        connector=connector,
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "gate" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval(), build_processor(model.config, tokenizer)


def saved(folder: Path, known: Sequence[str], encoder: EncoderPositions | None = None) -> Path:
    """A plain variant on disk, whose tokenizer knows these words."""
    model, processor = variant("plain", known, encoder)
    save(model, folder)
    processor.save_pretrained(folder)
    return folder


def png(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A picture of noise."""
    pixels_hw3 = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels_hw3).save(file, "png")
    return file.getvalue()


def opened(asked: Asked) -> list[Image.Image]:
    """Its pictures."""
    return [images.decode(BytesIO(file), "the picture") for file in asked.pictures]


def questions(
    counts: Sequence[int] = (4, 1, 2),
    longest: int = 5,
    options: Mapping[str, str] | None = None,
    pictures: int = 1,
    words: Sequence[str] = WORDS,
) -> list[Asked]:
    """As many questions about each picture as ``counts`` says, of several lengths, pictures in turn."""
    draw = random.Random(1)
    made = []
    for number in range(max(counts)):
        for about, count in enumerate(counts):
            if number < count:
                text = " ".join(draw.choices(words, k=draw.randint(1, 9)))
                keys = tuple(f"picture{about}-{place}" for place in range(pictures))
                files = tuple(png(10 * about + place, 40 + 30 * about, 60) for place in range(pictures))
                prompt = Prompt((*[PICTURE] * pictures, text), longest=longest)
                made.append(Asked(f"{about}-{number}", prompt, files, keys, dict(options or {})))
    return made


def one_by_one(
    model: Any, processor: Any, asked: Sequence[Asked], family: Adapter | None = None
) -> dict[str, tuple[str, str]]:
    """What ``generate`` says to each question alone, and what stopped it."""
    family = family or adapter_of(model.config.model_type)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    said = {}
    for one in asked:
        text = family.render(processor, one.prompt)
        inputs = on_device(model, family.inputs(processor, [text], [opened(one)]))
        out_1l = model.generate(**inputs, **family.generation, max_new_tokens=one.prompt.longest)
        ids = out_1l[0, inputs["input_ids"].shape[1] :].tolist()
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        raw = processor.tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        said[one.id] = raw, "length" if end is None else "end"
    return said
