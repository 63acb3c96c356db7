"""LLaVA-1.5 and every variant of ours."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from blindspot.evaluation.base import Prompt
from blindspot.evaluation.families.base import Family, by_chat_template, by_processor, mark, rgb, with_padding
from blindspot.model.conversation import PICTURE, SYSTEM, Span
from blindspot.model.encoding import token_ids


def _template(processor: Any, prompt: Prompt) -> str:
    """The checkpoint's chat template, with the system text that transformers' conversions of LLaVA-1.5 leave out."""
    text = by_chat_template(processor, prompt)
    return f"{SYSTEM} {text}" if text.startswith("USER: ") and text.endswith(" ASSISTANT:") else text


def _encode(
    family: Family, processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]
) -> BatchFeature:
    """Inputs with the ids that the model was trained on.

    LLaVA tokenises what is between pictures piece by piece, so that the text behind a picture begins as a text does;
    transformers' processor tokenises the whole, and with some tokenizers (``legacy`` false) a ``▁`` is missing then.
    """
    if hasattr(processor, "image_break_token"):  # Pixtral's: a picture is more than its placeholders
        return by_processor(family, processor, texts, pictures)
    tokenizer = with_padding(processor.tokenizer)
    flat = [picture for few in rgb(pictures) for picture in few]
    features: dict[str, Any] = {}
    counts: list[int] = []
    if flat:
        features = dict(processor(text=[mark(processor)] * len(flat), images=flat, padding=True, return_tensors="pt"))
        counts = (features.pop("input_ids") == processor.image_token_id).sum(dim=1).tolist()
        features.pop("attention_mask")
    left = iter(counts)
    rows = [
        torch.tensor(token_ids(_spans(text, mark(processor)), tokenizer, [next(left) for _ in few])[0])
        for text, few in zip(texts, pictures, strict=True)
    ]
    ids_bl = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id, padding_side="left")
    mask_bl = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return BatchFeature({"input_ids": ids_bl, "attention_mask": mask_bl, **features})


def _spans(text: str, token: str) -> list[Span]:
    pieces = [Span(piece) for piece in text.split(token)]
    return [span for piece in pieces for span in (PICTURE, piece)][1:]


FAMILY = Family(
    name="llava",
    title="LLaVA-1.5 and variants",
    model_types=("blindspot", "llava", "llava_llama"),
    checkpoints=("llava-hf/llava-1.5-7b-hf", "liuhaotian/llava-v1.5-7b"),
    names=r"\bllava[-_]?v?1[._-]5(?!b)",
    dtype="float16",
    prompts="llava",
    template=_template,
    encode=_encode,
)
