"""Families of models that can be evaluated: how each is asked and how it answers, as data.

What torch and transformers are needed for is imported where it is used, since servers are asked without them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from jinja2.exceptions import TemplateError
from PIL import Image

from blindspot.errors import UserError, one_of
from blindspot.evaluation.base import PICTURE, Picture, Prompt
from blindspot.plugins import extend

if TYPE_CHECKING:
    from torch import Tensor

GREEDY: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
}
"""Overrides what a checkpoint's ``generation_config.json`` says: Qwen2.5-VL's, for one, penalises repetition."""

SWITCHES = ("enable_thinking", "thinking")
"""What chat templates call the switch that turns thoughts on and off; one without it ignores both."""

Pictures = Sequence[Sequence[Image.Image]]
Template = Callable[[Any, Prompt], str]
Encode = Callable[["Adapter", Any, Sequence[str], Pictures], "dict[str, Any]"]
Generate = Callable[[Any, Any, Mapping[str, Any], int], "Tensor"]


def mark(processor: Any) -> str:
    """The text by which the processor knows the place of a picture."""
    return str(getattr(processor, "image_token", PICTURE.value))


def _harmless(text: str, processor: Any) -> str:
    """``text`` with a space in each mark that it happens to say, which the processor would read as a picture."""
    token = mark(processor)
    return text.replace(token, f"{token[0]} {token[1:]}")


def _chat(processor: Any, prompt: Prompt, one_text: bool = False) -> str:
    """The checkpoint's chat template; one that knows no system turn gets its text in front of the user's.

    Args:
        one_text: the user's turn as one text, in which each picture is a line of its own.
    """
    if not processor.chat_template:
        raise UserError("this model has no chat template, so it is not known how to ask it; choose an instruct model")
    content: list[dict[str, str]] = [
        {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": _harmless(part, processor)}
        for part in prompt.content
    ]
    if one_text:
        content = [{"type": "text", "text": "".join(part.get("text", f"{mark(processor)}\n") for part in content)}]
    system = [] if prompt.system is None else [{"type": "text", "text": prompt.system}]
    switch = {} if prompt.thinking is None else dict.fromkeys(SWITCHES, prompt.thinking)
    apply = partial(processor.apply_chat_template, add_generation_prompt=True, tokenize=False, **switch)
    try:
        turns = [{"role": "system", "content": system}] if system else []
        return apply([*turns, {"role": "user", "content": content}])
    except TemplateError:
        if not system:
            raise
        return apply([{"role": "user", "content": [*system, *content]}])


def _llava_chat(processor: Any, prompt: Prompt) -> str:
    """The checkpoint's chat template, with the system text that transformers' conversions of LLaVA-1.5 leave out."""
    from blindspot.model.conversation import SYSTEM

    text = _chat(processor, prompt)
    return f"{SYSTEM} {text}" if text.startswith("USER: ") and text.endswith(" ASSISTANT:") else text


def _text(processor: Any, prompt: Prompt) -> str:
    """The chat template of a model that reads text alone; one that has none goes on behind ``Answer:``."""
    return _chat(processor, prompt) if processor.chat_template else f"{prompt}\nAnswer:"


def _pictures_then_words(frame: str) -> Template:
    """A template without turns: all pictures, and behind them ``frame`` with the words in it."""

    def template(processor: Any, prompt: Prompt) -> str:
        words = "".join(_harmless(part, processor) for part in prompt.content if not isinstance(part, Picture))
        return mark(processor) * prompt.pictures + frame.format(f"{prompt.system or ''}{words}")

    return template


def _by_processor(
    adapter: "Adapter", processor: Any, texts: Sequence[str], pictures: Pictures, tensors: str | None = "pt"
) -> dict[str, Any]:
    """Inputs as the processor makes them, with exactly one beginning token where there is one."""
    begin = processor.tokenizer.bos_token
    flat = [picture for few in pictures for picture in few]
    made = processor(
        text=list(texts),
        images=([list(few) for few in pictures] if adapter.nested else flat) if flat else None,
        padding=True,
        padding_side="left",
        add_special_tokens=not (begin and all(text.startswith(begin) for text in texts)),
        return_tensors=tensors,
        **(adapter.bounds if flat else {}),
    )
    return dict(made)


def _tiles_inputs(adapter: "Adapter", processor: Any, texts: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    """Inputs with the tiles of all pictures as those of one, since pictures of unlike numbers of tiles do not stack."""
    import torch

    made = _by_processor(adapter, processor, texts, pictures, tensors=None)
    tiles = {"pixel_values": torch.cat([*made.pop("pixel_values")])[None]} if "pixel_values" in made else {}
    return {name: torch.tensor(values) for name, values in made.items()} | tiles


def _llava_inputs(adapter: "Adapter", processor: Any, texts: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    """Inputs with the ids that the model was trained on.

    LLaVA tokenises what is between pictures piece by piece, so that the text behind a picture begins as a text does;
    transformers' processor tokenises the whole, and with some tokenizers (``legacy`` false) a ``▁`` is missing then.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from blindspot.model.conversation import PICTURE as PICTURE_SPAN
    from blindspot.model.conversation import Span
    from blindspot.model.encoding import token_ids

    if hasattr(processor, "image_break_token"):  # Pixtral's: a picture is more than its placeholders
        return _by_processor(adapter, processor, texts, pictures)
    tokenizer, token = processor.tokenizer, mark(processor)
    flat = [picture for few in pictures for picture in few]
    features: dict[str, Any] = {}
    counts: list[int] = []
    if flat:
        features = dict(processor(text=[token] * len(flat), images=flat, padding=True, return_tensors="pt"))
        counts = (features.pop("input_ids") == processor.image_token_id).sum(dim=1).tolist()
        features.pop("attention_mask")
    left = iter(counts)
    rows = []
    for text, few in zip(texts, pictures, strict=True):
        spans = [span for piece in text.split(token) for span in (PICTURE_SPAN, Span(piece))][1:]
        rows.append(torch.tensor(token_ids(spans, tokenizer, [next(left) for _ in few])[0]))
    ids_bl = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id, padding_side="left")
    mask_bl = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return {"input_ids": ids_bl, "attention_mask": mask_bl, **features}


def _paligemma_inputs(adapter: "Adapter", processor: Any, texts: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    """Inputs as the processor makes them: it adds ``<bos>`` behind the pictures and a line break at the end."""
    if not all(pictures):
        raise UserError("PaliGemma cannot be asked without a picture; show it a grey one instead")
    inputs = _by_processor(adapter, processor, texts, pictures)
    inputs.pop("labels", None)
    return inputs


def _molmo_inputs(adapter: "Adapter", processor: Any, texts: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    """Inputs of one question by ``process``, the checkpoint's own; it puts all pictures in front of the text."""
    if len(texts) != 1:
        raise UserError("Molmo is asked one question at a time; set the batch size to 1")
    tokens = processor.tokenizer.encode(texts[0].replace(mark(processor), ""), add_special_tokens=False)
    made = processor.process(images=list(pictures[0]) or None, tokens=tokens, images_kwargs=dict(adapter.bounds))
    return {name: value.unsqueeze(0) for name, value in made.items()}


def _molmo_generate(model: Any, processor: Any, inputs: Mapping[str, Any], longest: int) -> "Tensor":
    from transformers import GenerationConfig

    end = processor.tokenizer.eos_token_id
    settings = GenerationConfig(
        max_new_tokens=longest, do_sample=False, use_cache=True, eos_token_id=end, pad_token_id=end
    )
    return model.generate_from_batch(dict(inputs), settings, tokenizer=processor.tokenizer)


@dataclass(frozen=True)
class Adapter:
    """A family of models, as data and a few functions."""

    name: str  # here, and of its prompt profile in `blindspot.evaluation.prompts`
    model_types: tuple[str, ...]  # values of ``model_type`` in ``config.json``
    names: str | None
    """Pattern of the last part of a checkpoint's name in small letters, by which servers call it too; None: of any
    other."""
    dtype: str = "bfloat16"  # that its evaluation is published with
    boxes: str | None = "llava-normalised"
    """How it says where something is; a convention of `blindspot.benchmarks.boxes`. LLaVA's by default; None: not
    known."""
    box_prompt: str = "Please provide the bounding box coordinate of the region this sentence describes: {phrase}"
    """How it is asked where something is; ``{phrase}`` stands for what. LLaVA's words by default."""
    sees: Literal["whole", "padded", "resized", "processor"] = "whole"
    """The picture to which its boxes refer: the ``whole``, whether tiled or not; the square that it is ``padded`` to;
    the whole, ``resized`` to a size that it counts in; or what the image ``processor`` says."""
    bounds: Mapping[str, Any] = field(default_factory=dict)
    """What the image processor is told beyond the checkpoint's own settings."""
    generation: Mapping[str, Any] = field(default_factory=lambda: dict(GREEDY))
    """Keyword arguments of ``generate``, the longest answer excepted: that is the prompt's."""
    no_prefix: str | None = None
    """Why what precedes the question cannot be computed once for all questions about a picture; None: it can, as far as
    is known."""
    tiles: str | None = None
    """What its processor calls the switch that cuts pictures into tiles, or the grids to choose from; None: it cuts
    none."""
    thought: tuple[str, str] | None = None
    """Tokens that it has around a thought in place of ``<think>`` and ``</think>``, as which they are told."""
    nested: bool = False  # whether its processor takes a list of pictures for each text, or all of them in one list
    lone: bool = False
    """Whether the inputs of several questions' pictures do not stack, so that one's are computed at a time."""
    template: Template = _chat  # a prompt that is not whole to the text that the model continues
    picture: str | None = None  # a picture in a whole prompt, mark and what surrounds it; None: the processor's mark
    encode: Encode = _by_processor  # texts and pictures to the model's inputs
    generate: Generate | None = None
    """Model, processor, inputs and longest answer to ids of prompt and answer, of shape (batch, length), for a model
    without transformers' ``generate``, which is asked one question at a time; None: it has that."""

    @property
    def prompts(self) -> str:
        """The prompt profile that ``auto`` means."""
        from blindspot.evaluation.prompts import PROFILES  # of which a plug-in may have none of its name

        return self.name if self.name in PROFILES and self.model_types else "plain"

    def render(self, processor: Any, prompt: Prompt) -> str:
        """The text that the model continues, with the processor's own marks of pictures."""
        if not prompt.whole:
            return self.template(processor, prompt)
        shown = self.picture or mark(processor)
        return "".join(shown if isinstance(part, Picture) else _harmless(part, processor) for part in prompt.content)

    def inputs(self, processor: Any, texts: Sequence[str], pictures: Pictures) -> dict[str, Any]:
        """Inputs of ``model.generate`` for a batch, padded on the left.

        Args:
            processor: of the checkpoint; raises a ValueError if marks and pictures differ in number.
            texts: from `render`.
            pictures: for each text, its pictures in the order of the marks; either all texts have some or none has.
        """
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        coloured = [[picture.convert("RGB") for picture in few] for few in pictures]
        return self.encode(self, processor, texts, coloured)


GRIDS = "image_grid_pinpoints"
"""Sizes that a picture may be resized to before it is cut into tiles; a small picture of the whole comes first."""
_QWEN_TOKEN = 28 * 28
"""Pixels of one token of Qwen's language model."""
_CONVOLUTIONS = "its short convolutions keep a state, not keys and values"
_QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter(
            name="llava",  # LLaVA-1.5 and variants
            model_types=("blindspot", "llava", "llava_llama"),
            names=r"\bllava[-_]?v?1[._-]5(?!b)",
            dtype="float16",
            sees="processor",
            template=_llava_chat,
            encode=_llava_inputs,
        ),
        Adapter(
            name="llava_next",
            model_types=("llava_next",),
            names=r"\bllava[-_]?(v?1[._-]6|next(?![-_](video|interleave)))",
            dtype="float16",
            tiles=GRIDS,
            sees="padded",  # its boxes come from LLaVA-1.5's data, as OneVision's do (LLaVA's issues 606 and 1158)
        ),
        Adapter(
            name="llava_onevision",
            model_types=("llava_onevision",),
            names=r"\bllava[-_]?onevision(?![-_]1[._]5)",
            dtype="float16",
            tiles=GRIDS,
            sees="padded",
            template=partial(_chat, one_text=True),  # VLMEvalKit's; its own moves pictures between words to the front
        ),
        Adapter(
            name="qwen2_5_vl",  # and Qwen2-VL, which is asked alike
            model_types=("qwen2_5_vl", "qwen2_vl"),
            names=r"\bqwen[-_]?2([._-]5)?[-_]?vl",
            boxes="qwen-pixels-json",
            box_prompt="Locate {phrase}, output its bbox coordinates using JSON format.",
            sees="resized",
            bounds={"size": {"shortest_edge": 1280 * _QWEN_TOKEN, "longest_edge": 16384 * _QWEN_TOKEN}},  # areas
            picture=_QWEN_PICTURE,
        ),
        Adapter(
            name="qwen3_vl",
            model_types=("qwen3_vl", "qwen3_vl_moe"),
            names=r"\bqwen[-_]?3[-_]?vl",
            boxes="qwen-1000",
            box_prompt=(
                "Locate every instance that belongs to the following categories: '{phrase}'. "
                "Report bbox coordinates in JSON format."
            ),
            picture=_QWEN_PICTURE,
        ),
        Adapter(
            name="qwen3_5",
            model_types=("qwen3_5", "qwen3_5_moe"),
            names=r"\bqwen[-_]?3[._-]5(?!.*omni)",
            boxes=None,
            picture=_QWEN_PICTURE,
        ),
        Adapter(
            name="internvl",  # InternVL 3 and 3.5 as transformers has them (-hf)
            model_types=("internvl",),
            names=r"\binternvl[-_]?3",
            tiles="crop_to_patches",
            boxes="internvl-1000",
            box_prompt=(
                "Please provide the bounding box coordinate of the region this sentence describes: <ref>{phrase}</ref>"
            ),
        ),
        Adapter(
            name="smolvlm",  # with SmolVLM and Idefics3, which share template and processor
            model_types=("smolvlm", "idefics3"),
            names=r"\b(smolvlm|idefics3)",
            dtype="float32",
            tiles="do_image_splitting",
            boxes=None,
            nested=True,
        ),
        Adapter(
            name="gemma3",
            model_types=("gemma3",),
            names=r"\bgemma[-_]?3(?![nb\d]|[-_:](1b|270m))",
            tiles="do_pan_and_scan",
            boxes="gemma-1000-yx",
            box_prompt="Detect {phrase}. Answer with JSON: box_2d as [y0, x0, y1, x1], from 0 to 1000, and label.",
            nested=True,
        ),
        Adapter(
            name="gemma4",
            model_types=("gemma4", "gemma4_unified"),
            names=r"\bgemma[-_]?4",
            boxes=None,
            thought=("<|channel>", "<channel|>"),
            nested=True,
        ),
        Adapter(
            name="glm4v",  # GLM-4.1V, 4.5V, 4.6V
            model_types=("glm4v", "glm4v_moe", "glm46v"),
            names=r"\bglm[-_]?4[._-][156]v",
            boxes="glm-1000",
            box_prompt="Help me to locate {phrase} in the image and give me its bounding boxes.",
            picture="<|begin_of_image|><|image|><|end_of_image|>",
        ),
        Adapter(
            name="molmo2",
            model_types=("molmo2",),
            names=r"\bmolmo[-_]?2",
            boxes="molmo2-points",
            box_prompt="Point to {phrase}.",
            lone=True,
        ),
        Adapter(
            name="llama4",
            model_types=("llama4",),
            names=r"\bllama[-_]?4",
            boxes=None,
        ),
        Adapter(
            name="mistral3",  # Mistral Small 3.1 and later, Ministral 3; Pixtral by its name
            model_types=("mistral3",),
            names=r"\b(mistral[-_]small[-_:]?3[._][12]|ministral[-_:]?3|pixtral)",
            boxes=None,
        ),
        Adapter(
            name="lfm2_vl",
            model_types=("lfm2_vl",),
            names=r"\blfm[-_]?2([._]5)?[-_]vl",
            boxes=None,
            no_prefix=_CONVOLUTIONS,
            tiles="do_image_splitting",
            nested=True,
        ),
        Adapter(
            name="lfm3_vl",
            model_types=("lfm3_vl",),
            names=r"\blfm[-_]?3([._]5)?[-_]vl",
            boxes=None,
            no_prefix=_CONVOLUTIONS,
            picture=_QWEN_PICTURE,
        ),
        Adapter(
            name="perception_lm",
            model_types=("perception_lm",),
            names=r"\b(perception[-_]lm|plm[-_]\db)",
            boxes="plm-1000",
            box_prompt=(
                "Provide a bounding box of the region this sentence describes: '{phrase}'.\n"
                "Use the format [x1, y1, x2, y2]."
            ),
            encode=_tiles_inputs,
        ),
        Adapter(
            name="minicpmv",  # MiniCPM-V 4.6 and 4.7; earlier ones bring code of their own
            model_types=("minicpmv4_6", "minicpmv4_7"),
            names=r"\bminicpm[-_]?v[-_]?4",
            boxes=None,
            lone=True,
        ),
        Adapter(
            name="kimi_k25",
            model_types=("kimi_k25",),
            names=r"\bkimi[-_]?k2[._]?5",
            boxes=None,
            picture="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        ),
        Adapter(
            name="paligemma",
            model_types=("paligemma",),
            names=r"\bpaligemma",
            boxes="paligemma-loc",
            box_prompt="detect {phrase}",
            no_prefix="PaliGemma 2 reads a picture in the light of the question",
            nested=True,
            template=_pictures_then_words("{}"),
            encode=_paligemma_inputs,
        ),
        Adapter(
            name="molmo",
            model_types=("molmo",),
            names=r"\bmolmoe?[-_]\d+b",
            boxes="molmo-points",
            box_prompt="Point to {phrase}.",
            bounds={"max_crops": 36},
            template=_pictures_then_words(" User: {} Assistant:"),
            encode=_molmo_inputs,
            generate=_molmo_generate,
        ),
        Adapter(name="generic", model_types=(), names=None, dtype="auto", boxes=None),  # any chat model
    )
}
"""By name."""
extend("adapters", ADAPTERS, Adapter)
TEXT = Adapter(name="text", model_types=(), names=None, dtype="auto", boxes=None, template=_text)
"""Of models that read no pictures, as which no other can be asked."""


def adapter_of(model_type: str | None) -> Adapter:
    """The adapter of a model, by the ``model_type`` of its config; ``generic`` if it is of no family that is known."""
    return next((one for one in ADAPTERS.values() if model_type in one.model_types), ADAPTERS["generic"])


def recognise(named: str | None, model_type: str | None = None, name: str = "") -> tuple[Adapter, str]:
    """The adapter by which a model is asked, and a phrase that says how it was known.

    Args:
        named: the one that the user names.
        model_type: of a model at hand.
        name: by which a server knows a model.
    """
    if named is not None:
        one_of(named, ADAPTERS, "--adapter", "adapter")
        return ADAPTERS[named], f"{named}, as --adapter says"
    if model_type is not None:
        adapter, known = adapter_of(model_type), f"model_type {model_type}"
    else:
        last = name.rstrip("/").rpartition("/")[2]
        fitting = (one for one in ADAPTERS.values() if one.names and re.search(one.names, last.lower()))
        adapter, known = next(fitting, ADAPTERS["generic"]), f"name {last}"
    how = f"by its {known}" if adapter.names else f"for no family has the {known}; --adapter names one"
    return adapter, f"{adapter.name}, {how}"
