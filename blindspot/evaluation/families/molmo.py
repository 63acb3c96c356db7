"""Molmo, whose code comes with its checkpoint: a processor with ``process``, a model with ``generate_from_batch``."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import BatchFeature, GenerationConfig

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.families.base import Family, rgb
from blindspot.evaluation.prompts.marks import harmless


def _template(processor: Any, prompt: Prompt) -> str:
    """What Molmo's processor makes of a text by itself, with marks of the pictures in front."""
    words = "".join(harmless(piece) for piece in prompt.content if piece != PICTURE)
    return f"{PICTURE * prompt.content.count(PICTURE)} User: {prompt.system or ''}{words} Assistant:"


def _encode(
    family: Family, processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]
) -> BatchFeature:
    """Inputs of one question. The processor puts all pictures in front of the text."""
    if len(texts) != 1:
        raise UserError("Molmo is asked one question at a time; set the batch size to 1")
    tokens = processor.tokenizer.encode(texts[0].replace(PICTURE, ""), add_special_tokens=False)
    shown = rgb(pictures)[0] or None
    made = processor.process(images=shown, tokens=tokens, images_kwargs=dict(family.bounds))
    return BatchFeature({name: value.unsqueeze(0) for name, value in made.items()})


def _generate(model: Any, processor: Any, inputs: Mapping[str, Any], longest: int) -> Tensor:
    end = processor.tokenizer.eos_token_id
    settings = GenerationConfig(
        max_new_tokens=longest, do_sample=False, use_cache=True, eos_token_id=end, pad_token_id=end
    )
    return model.generate_from_batch(dict(inputs), settings, tokenizer=processor.tokenizer)


FAMILY = Family(
    name="molmo",
    title="Molmo",
    model_types=("molmo",),
    checkpoints=("allenai/Molmo-7B-D-0924", "allenai/Molmo-7B-O-0924"),
    names=r"\bmolmoe?[-_]\d+b",
    dtype="bfloat16",
    boxes="molmo-points",
    box_prompt="Point to {phrase}.",
    prompts="molmo",
    bounds={"max_crops": 36},
    shares_prefix=False,
    alone=True,
    template=_template,
    picture=PICTURE,
    encode=_encode,
    generate=_generate,
)
