"""Every family on a tiny random checkpoint of its real architecture: asked as published, batched without a trace."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.errors import UserError
from blindspot.evaluation import boxes
from blindspot.evaluation.adapters import ADAPTERS, Adapter, adapter_of, recognise
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.boxes import Subject, find, form_of
from blindspot.evaluation.models import prefix
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.evaluation.models.rows import on_device
from blindspot.evaluation.prompts import PROFILES
from blindspot.evaluation.run.opening import open_local
from blindspot.evaluation.run.questions import Asking, Condition
from blindspot.model import images
from blindspot.model.conversation import CHAT_TEMPLATES, SYSTEM, Span
from blindspot.model.conversation import PICTURE as PICTURE_SPAN
from blindspot.model.encoding import token_ids
from blindspot.model.load import load
from blindspot.studies.tiny_families import QWEN, llama_tokenizer

from .local_toy import one_by_one, png, questions
from .run_toy import collection
from .tiny_families import BUILDERS, checkpoint
from .tiny_later import BUILDERS as LATER

NATIVE = sorted(set(BUILDERS) - {"molmo"})
SAID = "Is the cat left of the dog?"
ONE = Prompt((PICTURE, SAID))
PICTURES = [Image.effect_noise((90, 60), 50), Image.effect_noise((50, 120), 80)]

FASTER: dict[str, Any] = {"qwen2_5_vl": {"bounds": {"size": {"shortest_edge": 112**2, "longest_edge": 224**2}}}}

Loaded = tuple[Any, Any, Adapter]
_LOADED: dict[str, Loaded] = {}


@pytest.fixture(scope="module", autouse=True)
def remote_code(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[None]:
    """Let a checkpoint's own code be copied into the tests' folder, not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield
    _LOADED.clear()


@pytest.fixture
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Model, processor and family of the checkpoint that the test asks for by name."""
    name = request.param
    if name not in _LOADED:
        folder = checkpoint(name, tmp_path_factory.mktemp("families") / name)
        model, processor = load(folder, trust_remote_code=name == "molmo")
        _LOADED[name] = model, processor, replace(adapter_of(model.config.model_type), **FASTER.get(name, {}))
    return _LOADED[name]


each = pytest.mark.parametrize("loaded", sorted(BUILDERS), indirect=True)
each_native = pytest.mark.parametrize("loaded", NATIVE, indirect=True)


def of(name: str) -> Any:
    return pytest.mark.parametrize("loaded", [name], indirect=True)


def answers(loaded: Loaded, texts: list[str], pictures: list[list[Image.Image]], longest: int = 6) -> list[list[int]]:
    model, processor, family = loaded
    inputs = on_device(model, family.inputs(processor, texts, pictures))
    if family.generate is not None:
        out = family.generate(model, processor, inputs, longest)
    else:
        out = model.generate(**inputs, **family.generation, max_new_tokens=longest)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


# --- what a prompt becomes


CHATML = f"<|im_start|>user\n{{}}{SAID}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES = {
    "llava": f"{SYSTEM} USER: <image>\n{SAID} ASSISTANT:",
    "llava_next": f"[INST] <image>\n{SAID} [/INST]",
    "llava_onevision": f"<|im_start|>user <image>\n{SAID}<|im_end|><|im_start|>assistant\n",
    "qwen2_5_vl": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|><|image_pad|><|vision_end|>{SAID}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "smolvlm": f"<|im_start|>User:<image>{SAID}<end_of_utterance>\nAssistant:",
    "gemma3": f"<bos><start_of_turn>user\n<start_of_image>{SAID}<end_of_turn>\n<start_of_turn>model\n",
    "paligemma": f"<image>{SAID}",
    "molmo": f"<image> User: {SAID} Assistant:",
    "qwen3_vl": CHATML.format("<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_5": CHATML.format("<|vision_start|><|image_pad|><|vision_end|>") + "<think>\n",
    "internvl": CHATML.format("<IMG_CONTEXT>\n"),
    "gemma4": f"<bos><|turn>user\n<|image|>{SAID}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    "glm4v": f"[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>{SAID}<|assistant|>",
    "molmo2": CHATML.format("<|image|>"),
    "llama4": (
        f"<|begin_of_text|><|header_start|>user<|header_end|>\n\n<|image|>{SAID}<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n"
    ),
    "mistral3": f"<s>[INST][IMG]{SAID}[/INST]",
    "lfm2_vl": "<|startoftext|>" + CHATML.format("<image>"),
    "lfm3_vl": "<|startoftext|>" + CHATML.format("<|vision_start|><|image_pad|><|vision_end|>"),
    "perception_lm": (
        f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>{SAID}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "minicpmv": CHATML.format("<|image_pad|>") + "<think>\n",
    "kimi_k25": (
        f"<|im_user|>user<|im_middle|><|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n{SAID}<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|><think>"
    ),
}


@each
def test_a_prompt_is_rendered_as_the_family_is_asked(loaded: Loaded) -> None:
    _, processor, family = loaded
    assert family.render(processor, ONE) == TEMPLATES[family.name]


MARKS = {
    **dict.fromkeys(("qwen2_5_vl", "qwen3_vl", "qwen3_5", "lfm3_vl"), "<|vision_start|><|image_pad|><|vision_end|>"),
    **dict.fromkeys(("molmo2", "llama4", "perception_lm", "gemma4"), "<|image|>"),
    "gemma3": "<start_of_image>",
    "internvl": "<IMG_CONTEXT>",
    "glm4v": "<|begin_of_image|><|image|><|end_of_image|>",
    "mistral3": "[IMG]",
    "minicpmv": "<|image_pad|>",
    "kimi_k25": "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
}


@each
def test_a_fixed_text_gets_the_familys_marks_and_nothing_else(loaded: Loaded) -> None:
    _, processor, family = loaded
    rendered = family.render(processor, Prompt(("USER:  ", PICTURE, " Why? ASSISTANT: "), whole=True))
    mark = MARKS.get(family.name, "<image>")
    assert rendered == f"USER:  {mark} Why? ASSISTANT: "
    assert mark in TEMPLATES[family.name]


@each
def test_a_text_that_names_the_mark_shows_no_picture(loaded: Loaded) -> None:
    _, processor, family = loaded
    mark = getattr(processor, "image_token", "<image>")
    rendered = family.render(processor, Prompt((PICTURE, f"What is {mark}?")))
    assert rendered.count(mark) == 1
    assert family.inputs(processor, [rendered], [PICTURES[:1]])["input_ids"].shape[0] == 1


@of("gemma3")
def test_gemma_puts_the_system_text_before_the_question(loaded: Loaded) -> None:
    _, processor, family = loaded
    rendered = family.render(processor, replace(ONE, system="You are a helpful assistant. "))
    assert rendered.startswith("<bos><start_of_turn>user\nYou are a helpful assistant. \n\n<start_of_image>Is")


@of("llava_onevision")
def test_onevision_keeps_pictures_between_words(loaded: Loaded) -> None:
    _, processor, family = loaded
    rendered = family.render(processor, Prompt(("Is ", PICTURE, " or ", PICTURE, " red?")))
    assert "user Is <image>\n or <image>\n red?<|im_end|>" in rendered


def test_a_template_that_knows_no_system_turn_gets_its_text_with_the_question() -> None:
    processor = llava_processor(CHAT_TEMPLATES["v1"])
    rendered = ADAPTERS["llava"].render(processor, replace(ONE, system="Be brief. "))
    assert rendered == f"{SYSTEM} USER: <image>\nBe brief. {SAID} ASSISTANT:"


def test_other_templates_of_our_variants_stay_as_they_are() -> None:
    own = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'][1]['text'] }}{% endfor %}"
    assert ADAPTERS["llava"].render(llava_processor(own), ONE) == f"<|user|>{SAID}"


def test_a_model_without_a_template_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no chat template"):
        ADAPTERS["generic"].render(llava_processor(None), ONE)


# --- what the text becomes


@each
def test_special_tokens_come_once(loaded: Loaded) -> None:
    _, processor, family = loaded
    tokenizer = processor.tokenizer
    ids = family.inputs(processor, [family.render(processor, ONE)], [PICTURES[:1]])["input_ids"][0].tolist()
    begin = tokenizer.eos_token_id if family.name in ("molmo", "molmo2") else tokenizer.bos_token_id
    assert ids.count(begin) == (begin is not None)
    turns = [t for t in ("<|im_start|>", "<start_of_turn>", "<end_of_utterance>") if t in TEMPLATES[family.name]]
    for turn in turns:
        assert ids.count(tokenizer.convert_tokens_to_ids(turn)) == TEMPLATES[family.name].count(turn)


@each_native
def test_a_batch_is_padded_on_the_left_and_answers_as_each_alone(loaded: Loaded) -> None:
    _, processor, family = loaded
    prompts = [ONE, Prompt((PICTURE, "Why?")), Prompt((PICTURE, "How many cats are on the table in the picture?"))]
    texts = [family.render(processor, prompt) for prompt in prompts]
    pictures = [PICTURES[:1], PICTURES[1:], PICTURES[:1]]
    inputs = family.inputs(processor, texts, pictures)
    mask = inputs["attention_mask"]
    assert mask[:, -1].all()
    assert (mask.diff(dim=1) >= 0).all()
    assert not mask.all()
    for row, text, few in zip(answers(loaded, texts, pictures), texts, pictures, strict=True):
        alone = answers(loaded, [text], [few])[0]
        assert row == alone + [processor.tokenizer.pad_token_id] * (6 - len(alone))


@each
def test_the_answer_depends_on_the_picture(loaded: Loaded) -> None:
    model, processor, family = loaded
    text = family.render(processor, ONE)
    logits = []
    for picture in (PICTURES[0], Image.new("L", (90, 60), 255)):
        inputs = on_device(model, family.inputs(processor, [text], [[picture]]))
        inputs.pop("attention_mask", None)
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(*logits)


@each
def test_without_a_picture_the_words_alone_are_asked(loaded: Loaded) -> None:
    _, processor, family = loaded
    text = family.render(processor, Prompt((SAID,)))
    if family.name == "paligemma":
        with pytest.raises(UserError, match="without a picture"):
            family.inputs(processor, [text], [[]])
    else:
        assert len(answers(loaded, [text], [[]])[0]) == 6


@each
def test_several_pictures_in_one_question(loaded: Loaded) -> None:
    _, processor, family = loaded
    text = family.render(processor, Prompt((PICTURE, PICTURE, SAID)))
    assert len(answers(loaded, [text], [PICTURES])[0]) == 6


@each_native
def test_pictures_and_marks_must_agree(loaded: Loaded) -> None:
    _, processor, family = loaded
    with pytest.raises((ValueError, StopIteration)):
        family.inputs(processor, [family.render(processor, ONE)], [PICTURES])


@of("qwen2_5_vl")
def test_bounds_reach_the_image_processor(loaded: Loaded) -> None:
    _, processor, small = loaded
    for family, least, most in ((small, 112**2, 224**2), (ADAPTERS["qwen2_5_vl"], 1280 * 28**2, 16384 * 28**2)):
        inputs = family.inputs(processor, [family.render(processor, ONE)], [PICTURES[:1]])
        assert least <= inputs["image_grid_thw"].prod().item() * 56**2 <= most


@of("molmo")
def test_molmo_gets_the_tokens_of_its_own_processor_and_one_question_at_a_time(loaded: Loaded) -> None:
    _, processor, family = loaded
    text = family.render(processor, ONE)
    own = processor.process(text=SAID, images=[PICTURES[0].convert("RGB")], images_kwargs={"max_crops": 36})
    assert family.inputs(processor, [text], [PICTURES[:1]])["input_ids"][0].tolist() == own["input_ids"].tolist()
    with pytest.raises(UserError, match="one question at a time"):
        family.inputs(processor, [text, text], [PICTURES[:1]] * 2)


# --- where something is


DRAWN = {
    "qwen3_vl": ('```json\n[{{"bbox_2d": [{}, {}, {}, {}], "label": "mug"}}]\n```', 1000),
    "internvl": ("<ref>mug</ref><box>[[{}, {}, {}, {}]]</box>", 1000),
    "glm4v": ("It is at <|begin_of_box|>[[{},{},{},{}]]<|end_of_box|>.", 1000),
    "perception_lm": ("[{:03},{:03},{:03},{:03}]", 1000),
    "molmo2": ('<points coords="1 1 {0:03} {1:03} 2 {2:03} {3:03}">mug</points>', 1000),
}
TABLE, MUG = Path("docs/images/table.jpg"), (111, 127, 213, 225)


@pytest.mark.parametrize("loaded", LATER, indirect=True)
def test_an_answer_in_the_familys_own_convention_is_where_the_mug_is(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor, family = loaded
    form = form_of(model, processor, family)
    subject = Subject("it", model, processor, form)
    if family.name not in DRAWN:
        assert form is None
        with pytest.raises(UserError, match="say it with --boxes"):
            find(subject, TABLE, "the mug")
        form = form_of(model, processor, family, "gemma-1000-yx")
        assert form is not None and form.convention.y_first
        return
    width, height = images.open_image(TABLE).size
    answer, side = DRAWN[family.name]
    numbers = [round(edge * side / (width, height)[place % 2]) for place, edge in enumerate(MUG)]
    monkeypatch.setattr(boxes, "LONGEST", 2)  # what the model itself says is of no account
    monkeypatch.setattr(processor.tokenizer, "decode", lambda *_, **__: answer.format(*numbers))
    found = find(subject, TABLE, "the mug")
    assert "the mug" in found.prompt
    edges = [edge for place in found.located.places for edge in place.numbers]
    assert edges == pytest.approx(MUG, abs=1)


THINKING = {
    "qwen3_5": ("<think>\n", "<think>\n\n</think>\n\n"),
    "minicpmv": ("<think>\n", "<think>\n\n</think>\n\n"),
    "gemma4": ("<|turn>model\n", "<|turn>model\n<|channel>thought\n<channel|>"),
    "glm4v": ("<|assistant|>", "/nothink<|assistant|>\n<think></think>"),
    "kimi_k25": ("<|im_middle|><think>", "<|im_middle|><think></think>"),
}


@pytest.mark.parametrize("loaded", LATER, indirect=True)
def test_thoughts_are_turned_on_and_off_where_the_template_has_a_switch(loaded: Loaded) -> None:
    _, processor, family = loaded
    on, off = (family.render(processor, replace(ONE, thinking=thinking)) for thinking in (True, False))
    if family.name in THINKING:
        assert on.endswith(THINKING[family.name][0]) and off.endswith(THINKING[family.name][1])
        assert ("<|think|>" in on) == (family.name == "gemma4") and "<|think|>" not in off
    else:
        assert on == off == TEMPLATES[family.name]


@of("gemma4")
def test_gemmas_marks_of_a_thought_are_told_as_those_of_others(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor, family = loaded
    said = [
        processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("<|channel>thought\nB or A?<channel|>A<turn|>", "<|channel>thought\nB or", "A")
    ]
    for ids, stopped, expected in zip(
        said,
        ("end", "length", "length"),
        (("<think>thought\nB or A?</think>A", "end"), ("<think>thought\nB or", "thought"), ("A", "length")),
        strict=True,
    ):
        monkeypatch.setattr(prefix, "generate", lambda *_, ids=ids, stopped=stopped, **__: iter([(0, ids, stopped)]))
        (reply,) = LocalAnswerer(model, processor, family).answer(questions((1,), longest=2, words=WORDS))
        assert (reply.raw, reply.stopped) == expected


# --- LLaVA's ids


def llava_processor(template: str | None, legacy: bool = False) -> LlavaProcessor:
    tokenizer = llama_tokenizer(extra_special_tokens={"image_token": "<image>"})
    tokenizer.legacy = legacy
    images = CLIPImageProcessorPil(size={"height": 28, "width": 28}, crop_size={"height": 28, "width": 28})
    return LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="full", chat_template=template
    )


def test_llava_gets_the_ids_that_it_was_trained_on() -> None:
    processor, family = llava_processor(CHAT_TEMPLATES["v1"]), ADAPTERS["llava"]
    text = family.render(processor, ONE)
    before, behind = text.split("<image>")
    expected = token_ids([Span(before), PICTURE_SPAN, Span(behind)], processor.tokenizer, [4])[0]
    inputs = family.inputs(processor, [text], [PICTURES[:1]])
    assert inputs["input_ids"][0].tolist() == expected
    as_a_whole = processor(text=[text], images=PICTURES[0].convert("RGB"))["input_ids"][0]
    assert as_a_whole != expected, "the two differ, or this family needs no ids of its own"


class Rows(LlavaProcessor):
    """Puts a token of its own behind each picture, as Pixtral's puts one behind each row."""

    image_break_token = "[BREAK]"

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        return super().__call__(images=images, text=[one.replace("<image>", "<image>#") for one in text], **kwargs)


def test_a_picture_that_is_more_than_its_placeholders_is_left_to_the_processor() -> None:
    plain = llava_processor(CHAT_TEMPLATES["v1"])
    rows = Rows(plain.image_processor, plain.tokenizer, patch_size=14, vision_feature_select_strategy="full")
    ids = ADAPTERS["llava"].inputs(rows, ["USER: <image>\nWhy? ASSISTANT:"], [PICTURES[:1]])["input_ids"][0]
    assert rows.tokenizer.convert_ids_to_tokens(ids.tolist()).count("#") == 1


def test_papers_blank_behind_assistant_is_a_token() -> None:
    processor = llava_processor(CHAT_TEMPLATES["v1"])
    ids = ADAPTERS["llava"].inputs(processor, ["USER:  <image> Why? ASSISTANT: "], [PICTURES[:1]])["input_ids"][0]
    assert processor.tokenizer.convert_ids_to_tokens(ids.tolist())[-2:] == [":", "▁"]


# --- the registry, and processors without their video part


def test_families_are_known_by_their_model_type() -> None:
    kinds = [kind for family in ADAPTERS.values() for kind in family.model_types]
    assert len(kinds) == len(set(kinds))
    for name, family in ADAPTERS.items():
        assert family.name == name
        assert "{phrase}" in family.box_prompt
        assert family.generation["do_sample"] is False
    assert adapter_of("something_new") is ADAPTERS["generic"]


NAMES = {
    "llava": (
        *("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf", "liuhaotian/llava-v1.5-7b"),
        *("liuhaotian/llava-v1.5-7b-lora", "/models/LLaVA-1.5-7B/"),
    ),
    "llava_next": (
        *("llava-hf/llava-v1.6-vicuna-7b-hf", "llava-hf/llava-v1.6-mistral-7b-hf", "llava-hf/llava-v1.6-34b-hf"),
        *("llava-hf/llama3-llava-next-8b-hf", "lmms-lab/llama3-llava-next-8b", "llava-hf/llava-next-72b-hf"),
    ),
    "llava_onevision": tuple(f"llava-hf/llava-onevision-qwen2-{kind}-hf" for kind in ("7b-ov", "7b-si", "72b-ov")),
    "qwen2_5_vl": (
        *("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-72B-Instruct-AWQ"),
        *("qwen2.5vl:7b", "Qwen/Qwen2-VL-2B-Instruct", "qwen2_5_vl_32b"),
    ),
    "smolvlm": (
        *("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
        *("HuggingFaceTB/SmolVLM-Instruct", "HuggingFaceM4/Idefics3-8B-Llama3"),
    ),
    "gemma3": ("google/gemma-3-4b-it", "google/gemma-3-12b-it", "unsloth/gemma-3-27b-it-GGUF", "gemma3:4b"),
    "paligemma": (
        *("google/paligemma2-3b-mix-448", "google/paligemma2-10b-mix-448", "google/paligemma-3b-mix-448"),
        *("google/paligemma2-28b-mix-448", "google/paligemma-3b-pt-224"),
    ),
    "molmo": (
        *("allenai/Molmo-7B-D-0924", "allenai/Molmo-7B-O-0924", "allenai/Molmo-72B-0924", "allenai/MolmoE-1B-0924"),
    ),
    "qwen3_vl": ("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-30B-A3B-Thinking-FP8", "qwen3-vl:4b"),
    "qwen3_5": ("Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-397B-A17B", "qwen3.5:27b"),
    "internvl": ("OpenGVLab/InternVL3-8B", "OpenGVLab/InternVL3_5-8B-HF", "OpenGVLab/InternVL3-78B-hf"),
    "gemma4": ("google/gemma-4-31B-it", "google/gemma-4-E4B-it", "gemma4:26b"),
    "glm4v": ("zai-org/GLM-4.5V", "zai-org/GLM-4.6V-Flash", "zai-org/GLM-4.1V-9B-Thinking"),
    "molmo2": ("allenai/Molmo2-8B", "allenai/Molmo2-O-7B"),
    "llama4": ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"),
    "mistral3": (
        *("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistralai/Ministral-3-8B-Instruct-2512"),
        *("mistralai/Pixtral-12B-2409", "mistral-small3.1:24b"),
    ),
    "lfm2_vl": ("LiquidAI/LFM2-VL-1.6B", "LiquidAI/LFM2.5-VL-450M"),
    "lfm3_vl": ("LiquidAI/LFM3-VL-3B",),
    "perception_lm": ("facebook/Perception-LM-8B", "facebook/PLM-1B"),
    "minicpmv": ("openbmb/MiniCPM-V-4.6", "openbmb/MiniCPM-V-4_5"),
    "kimi_k25": ("moonshotai/Kimi-K2.5",),
    "generic": (
        *("Qwen/Qwen3-8B", "Qwen/Qwen2.5-Omni-7B", "OpenGVLab/InternVL2_5-8B", "moonshotai/Kimi-K2-Thinking", "gpt-5"),
        *("google/gemma-3n-E4B-it", "google/gemma-3-1b-it", "mistralai/Mistral-Small-24B-Instruct-2501", "gemma3:270m"),
        *("lmms-lab/LLaVA-OneVision-1.5-8B-Instruct", "llava-hf/LLaVA-NeXT-Video-7B-hf", "org/TinyLLaVA-1.5B"),
    ),
}


@pytest.mark.parametrize("family", ADAPTERS)
def test_a_server_s_model_is_known_by_its_name_whatever_its_size(family: str) -> None:
    for name in NAMES[family]:
        found, known = recognise(None, name=name)
        assert found.name == family, name
        assert known.startswith(f"{family}, ") and ("--adapter" in known) == (family == "generic")
        assert recognise("molmo", name=name)[0].name == "molmo"


def test_a_model_of_no_family_is_asked_by_its_own_template() -> None:
    rendered = ADAPTERS["generic"].render(llava_processor(QWEN), ONE)
    assert rendered.endswith(f"{SAID}<|im_end|>\n<|im_start|>assistant\n")


# --- the answerer of models on this machine


WHOLE = ("molmo", "paligemma", "qwen3_5", "minicpmv", "lfm2_vl", "lfm3_vl")
WORDS = ["what", "is", "left", "of", "the", "dog"]
OPTIONS = {"A": "yes", "B": "A", "C": "no, not"}


@each
def test_answers_are_those_of_generate(loaded: Loaded) -> None:
    model, processor, family = loaded
    asked = questions(longest=4, words=WORDS)
    answerer = LocalAnswerer(model, processor, family, batch=3)
    assert (answerer.identity["pictures"] == "once for their questions") == (family.name not in WHOLE)
    replies = {reply.id: reply.raw for reply in answerer.answer(asked)}
    if family.generate is None:
        assert replies == {name: raw for name, (raw, _) in one_by_one(model, processor, asked, family).items()}
    alone = {reply.id: reply.raw for reply in answerer.one_by_one().answer(asked)}
    assert replies == alone
    assert len(set(replies.values())) > 1 or family.name in ("molmo", "gemma3")


# of the later ones, one that shares, one whose pictures do not stack and one whose prompts run whole
@pytest.mark.parametrize("loaded", sorted({*NATIVE} - {*LATER} | {"qwen3_vl", "molmo2", "qwen3_5"}), indirect=True)
def test_likelihoods_are_those_of_generate(loaded: Loaded) -> None:
    model, processor, family = loaded
    asked = questions((2, 1), words=WORDS, options=OPTIONS)
    answerer = LocalAnswerer(model, processor, family)
    shared = {reply.id: reply.likelihood for reply in answerer.answer(asked)}
    alone = {reply.id: reply.likelihood for reply in answerer.one_by_one().answer(asked)}
    assert shared.keys() == alone.keys()
    for name, values in shared.items():
        assert values == pytest.approx(alone[name], abs=1e-3)


@of("paligemma")
def test_a_picture_that_sees_the_question_is_found_out_by_trying(loaded: Loaded) -> None:
    model, processor, family = loaded
    answerer = LocalAnswerer(model, processor, replace(family, no_prefix=None))
    assert "logits differ by" in answerer.identity["pictures"]


# --- switches


@pytest.mark.parametrize("name", sorted(name for name, one in ADAPTERS.items() if one.tiles and name in BUILDERS))
def test_tiles_are_turned_on_and_off(name: str, tmp_path: Path) -> None:
    folder = checkpoint(name, tmp_path / name)
    (one,) = questions((1,), longest=2)
    wide = replace(one, pictures=(png(1, 640, 320),))
    read = {}
    for tiles in ("off", "on"):
        (reply,) = open_local(str(folder), device="cpu", tiles=tiles).answerer.answer([wide])
        assert reply.error is None and reply.tokens
        read[tiles] = reply.tokens[0]
    assert read["off"] < read["on"]


def test_switches_that_a_model_lacks_are_refused_and_those_it_has_reach_its_template(tmp_path: Path) -> None:
    folder = checkpoint("llava", tmp_path / "llava")
    with pytest.raises(UserError, match="asked as llava cut no picture into tiles"):
        open_local(str(folder), device="cpu", tiles="on")
    with pytest.raises(UserError, match="no switch for thoughts; leave out --think"):
        open_local(str(folder), device="cpu", think="on")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if enable_thinking %}<think>\n{% endif %}")
    opened = open_local(str(folder), device="cpu", think="on")
    asked = Asking.of(collection("one"), PROFILES["plain"], Condition(think="on", max_tokens=2), 1)
    (((first, *_),),) = [list(asked.portions(asked.questions, (), lambda *_: None))]
    assert opened.render(first.prompt).endswith("ASSISTANT:<think>\n") and not opened.render(ONE).endswith("<think>\n")
    replies = [*opened.answerer.answer([replace(first, pictures=(png(1),) * len(first.pictures))])]
    assert [reply.stopped for reply in replies] == ["thought"]
