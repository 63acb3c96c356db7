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
from blindspot.evaluation.adapters import ADAPTERS, Adapter, adapter_of, recognise
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.model.conversation import CHAT_TEMPLATES, SYSTEM, Span
from blindspot.model.conversation import PICTURE as PICTURE_SPAN
from blindspot.model.encoding import token_ids
from blindspot.model.load import load
from blindspot.studies.tiny_families import QWEN, llama_tokenizer

from .local_toy import one_by_one, questions
from .tiny_families import BUILDERS, checkpoint

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
    inputs = family.inputs(processor, texts, pictures)
    if family.generate is not None:
        out = family.generate(model, processor, inputs, longest)
    else:
        out = model.generate(**inputs, **family.generation, max_new_tokens=longest)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


# --- what a prompt becomes


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
}


@each
def test_a_prompt_is_rendered_as_the_family_is_asked(loaded: Loaded) -> None:
    _, processor, family = loaded
    assert family.render(processor, ONE) == TEMPLATES[family.name]


@each
def test_a_fixed_text_gets_the_familys_marks_and_nothing_else(loaded: Loaded) -> None:
    _, processor, family = loaded
    rendered = family.render(processor, Prompt(("USER:  ", PICTURE, " Why? ASSISTANT: "), whole=True))
    mark = {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "gemma3": "<start_of_image>"}
    assert rendered == f"USER:  {mark.get(family.name, '<image>')} Why? ASSISTANT: "


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
    expected = {"qwen2_5_vl": 0, "llava_onevision": 0}.get(family.name, 1)
    begin = tokenizer.eos_token_id if family.name == "molmo" else tokenizer.bos_token_id
    assert ids.count(begin) == expected
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
    together = answers(loaded, texts, pictures)
    assert together == [answers(loaded, [text], [few])[0] for text, few in zip(texts, pictures, strict=True)]


@each
def test_the_answer_depends_on_the_picture(loaded: Loaded) -> None:
    model, processor, family = loaded
    text = family.render(processor, ONE)
    logits = []
    for picture in (PICTURES[0], Image.new("L", (90, 60), 255)):
        inputs = family.inputs(processor, [text], [[picture]])
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
    "generic": (
        *("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen2.5-Omni-7B", "OpenGVLab/InternVL3-8B", "allenai/Molmo2-8B", "gpt-5"),
        *("google/gemma-3n-E4B-it", "google/gemma-3-1b-it", "google/gemma-4-12b-it", "gemma3:270m"),
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


def test_code_that_a_checkpoint_brings_runs_only_when_asked(tmp_path: Path) -> None:
    folder = checkpoint("molmo", tmp_path / "molmo")
    with pytest.raises(UserError, match="only runs with trust_remote_code"):
        load(folder)


def test_a_model_of_no_family_is_asked_by_its_own_template() -> None:
    rendered = ADAPTERS["generic"].render(llava_processor(QWEN), ONE)
    assert rendered.endswith(f"{SAID}<|im_end|>\n<|im_start|>assistant\n")


# --- the answerer of models on this machine


WORDS = ["what", "is", "left", "of", "the", "dog"]
OPTIONS = {"A": "yes", "B": "A", "C": "no, not"}


@each
def test_answers_are_those_of_generate(loaded: Loaded) -> None:
    model, processor, family = loaded
    asked = questions(longest=4, words=WORDS)
    answerer = LocalAnswerer(model, processor, family, batch=3)
    assert (answerer.identity["pictures"] == "once for their questions") == (family.name not in ("molmo", "paligemma"))
    replies = {reply.id: reply.raw for reply in answerer.answer(asked)}
    if family.generate is None:
        assert replies == {name: raw for name, (raw, _) in one_by_one(model, processor, asked, family).items()}
    alone = {reply.id: reply.raw for reply in answerer.one_by_one().answer(asked)}
    assert replies == alone
    assert len(set(replies.values())) > 1 or family.name in ("molmo", "gemma3")


@each_native
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
