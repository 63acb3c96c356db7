"""How a model is asked where something is, in which convention it answers, and what it sees of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from tokenizers.models import WordLevel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from blindspot.benchmarks.boxes import CONVENTIONS, Convention, Size, View
from blindspot.errors import UserError
from blindspot.evaluation.families import FAMILIES, Family, family_of

PHRASE = "{phrase}"
_TILED = ("llava_next", "llava_onevision")


class Seeing(Protocol):
    """From the size of a picture to what a model sees of it."""

    def __call__(self, picture: Size) -> View: ...


@dataclass(frozen=True)
class Form:
    """How a model says where something is.

    Attributes:
        convention: of its boxes or points.
        prompt: what it is asked; ``{phrase}`` stands for what is looked for.
        view: what it sees of a picture.
    """

    convention: Convention
    prompt: str
    view: Seeing

    def ask(self, phrase: str) -> str:
        """The prompt for a phrase."""
        return self.prompt.replace(PHRASE, phrase)


def form_of(model: Any, processor: Any, family: Family | None = None, boxes: str | None = None) -> Form | None:
    """The form of a model: the miniature's if its tokenizer knows whole words only, else its family's.

    Args:
        model: with its config.
        processor: of the model, whose image processor decides what the model sees.
        family: by default that of the config.
        boxes: the convention that it answers in, if not its family's.

    Returns:
        None where neither the family nor ``boxes`` says how it writes boxes.
    """
    if is_miniature(processor):
        edge = model.config.vision_config.image_size
        return Form(CONVENTIONS["canvas"], f"box of {PHRASE}", partial(View.whole, input=(edge, edge)))
    family = family or family_of(model.config)
    if family.boxes is None:
        return None if boxes is None else told(boxes, family)
    known = "qwen-1000" if model.config.model_type == "qwen2_vl" else family.boxes
    form = Form(CONVENTIONS[known], family.box_prompt, partial(_view, family, processor.image_processor))
    return form if boxes is None else replace(told(boxes, family), view=form.view)


def told(boxes: str, family: Family) -> Form:
    """The form of a model of which no more is known than its convention.

    It is asked as the family that writes so. Its boxes are in the whole picture, LLaVA's in the padded square.
    """
    prompt = next((other.box_prompt for other in FAMILIES.values() if other.boxes == boxes), family.box_prompt)
    return Form(CONVENTIONS[boxes], prompt, partial(View.prepared, pad=boxes == FAMILIES["llava"].boxes))


def is_miniature(processor: Any) -> bool:
    """Whether a model knows a closed set of words, as those of the miniature do."""
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    return backend is not None and isinstance(backend.model, WordLevel)


def refuse_without_phrase(prompt: str) -> None:
    """Refuse a prompt that has no place for the phrase.

    Raises:
        UserError: if it has none.
    """
    if PHRASE not in prompt:
        raise UserError(f"the prompt {prompt[:60]!r} has no {PHRASE} in it, which stands for what is looked for")


def _view(family: Family, image_processor: Any, picture: Size) -> View:
    """What a family sees. Gemma 3, PaliGemma, SmolVLM2 and Molmo name places in the whole picture, tiled or not."""
    if family.name == "qwen2_5_vl":
        return View.whole(picture, _resized(family, image_processor, picture))
    if family.name in _TILED:
        # Their boxes come from LLaVA-1.5's data, which are in the padded square (LLaVA's issues 606 and 1158).
        return View.prepared(picture, pad=True)
    if family.name != "llava":
        return View.whole(picture)
    size, crop = (_sizes(getattr(image_processor, name, None)) for name in ("size", "crop_size"))
    cropped = bool(getattr(image_processor, "do_center_crop", False)) and {"height", "width"} <= crop.keys()
    return View.prepared(
        picture,
        pad=bool(getattr(image_processor, "do_pad", False)),
        shortest=size.get("shortest_edge"),
        crop=(crop["width"], crop["height"]) if cropped else None,
    )


def _resized(family: Family, image_processor: Any, picture: Size) -> Size:
    bounds = _sizes(family.bounds.get("size", image_processor.size))
    height, width = smart_resize(
        picture[1],
        picture[0],
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=bounds["shortest_edge"],
        max_pixels=bounds["longest_edge"],
    )
    return width, height


def _sizes(size: Any) -> Mapping[str, int]:
    """An image processor's size, whatever type it has, without what is not set."""
    return {name: int(value) for name, value in dict(size or {}).items() if value is not None}
