"""Open a model of any format that Blindspot reads, ask it something, and write it in the format of another program."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transformers
from PIL import Image
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES  # pyright: ignore
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.smolvlm import processing_smolvlm
from transformers.utils import logging

from blindspot.errors import UserError
from blindspot.files import new_folder
from blindspot.model import pixels
from blindspot.model.config import BlindspotConfig, Parts, from_llava_config
from blindspot.model.formats import llava
from blindspot.model.formats.folder import BACKEND, check, fill, find, quietly, read_json, read_tensors
from blindspot.model.variant import BlindspotForConditionalGeneration, save

FORMATS = ("llava-hf", "llava", "blindspot")
NEEDS_PLAIN = ("llava-hf", "llava")


class TextProcessor:
    """The tokenizer of a model that reads no pictures, in the place of a processor."""

    image_processor = None

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.chat_template = tokenizer, tokenizer.chat_template

    def __call__(self, text: Any, images: Any = None, **settings: Any) -> Any:
        if images:
            raise UserError("this model reads text alone, and cannot be asked about a picture")
        return self.tokenizer(text, return_token_type_ids=False, **settings)

    def apply_chat_template(self, turns: list[dict[str, Any]], **settings: Any) -> Any:
        """As that of a processor; a text's template takes a turn as one text."""
        texts = [{**turn, "content": "".join(part["text"] for part in turn["content"])} for turn in turns]
        return self.tokenizer.apply_chat_template(texts, **settings)


def load(
    path_or_id: Path | str, trust_remote_code: bool = False, dtype: Any = "auto", text: bool = False
) -> tuple[Any, Any]:
    """The model, ready to answer, and its processor.

    Reads Blindspot's own format, transformers' Llava (llava-hf), the original LLaVA's (liuhaotian), all three as a
    `BlindspotForConditionalGeneration`; any other image-text checkpoint of transformers is returned as it is. Which it
    is follows from the keys of ``config.json`` and the names of the tensors, not from the folder's name.

    Args:
        path_or_id: a folder, or a Hugging Face id: taken from the local cache if it is there, else downloaded.
        trust_remote_code: whether code that a checkpoint brings along may run.
        dtype: of the weights, as transformers takes it; "auto" is the config's.
        text: whether a language model that reads no pictures will do; its processor is a `TextProcessor`.
    """
    folder = find(path_or_id, trust_remote_code)
    try:
        return _read(folder, trust_remote_code, dtype, text)
    except Exception as error:  # what a damaged folder makes the libraries raise has no common base
        raise UserError(f"cannot open the model in {folder}: {error}") from error


def _read(folder: Path, trust_remote_code: bool, dtype: Any, text: bool) -> tuple[Any, Any]:
    values = read_json(folder / "config.json")
    tensors = read_tensors(folder)
    if llava.reads(values, tensors):
        return llava.read(folder, values, tensors, dtype)
    if values.get("model_type") == "blindspot":
        config = BlindspotConfig.from_pretrained(folder, local_files_only=True)
        model = fill(BlindspotForConditionalGeneration, config, tensors, folder, dtype)
    elif values.get("model_type") == "llava":
        plain: Any = LlavaConfig.from_pretrained(folder, local_files_only=True)
        variant = from_llava_config(plain)
        try:
            Parts(variant)
        except UserError:  # what no variant computes, with Pixtral's tower, say, is transformers' own
            model = fill(LlavaForConditionalGeneration, plain, tensors, folder, dtype)
        else:
            model = fill(BlindspotForConditionalGeneration, variant, tensors, folder, dtype)
    elif text and values.get("model_type") in CAUSAL.keys() - KNOWN.keys():
        plain = AutoConfig.from_pretrained(folder, local_files_only=True)
        if not getattr(plain, "is_decoder", True):
            raise UserError(f"{plain.model_type} does not predict the next token of a text")
        if not any(path for name in ("tokenizer.*", "vocab.*", "*.model", "tekken.json") for path in folder.glob(name)):
            raise UserError("it has no tokenizer (tokenizer.json)")  # of which transformers makes an empty one
        model = fill(MODEL_FOR_CAUSAL_LM_MAPPING[type(plain)], plain, tensors, folder, dtype)
        return model, TextProcessor(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    else:
        model = _of_transformers(folder, values, trust_remote_code, dtype)
    return model, _processor(folder, model.config, trust_remote_code)


def _of_transformers(folder: Path, values: dict[str, Any], trust_remote_code: bool, dtype: Any) -> Any:
    """Any other checkpoint that transformers opens as a model of images and text."""
    kind, own = values.get("model_type"), values.get("auto_map", {})
    if kind not in KNOWN and not ("auto_map" in values and trust_remote_code):
        hint = "; it brings code of its own, which only runs with trust_remote_code" if "auto_map" in values else ""
        raise UserError(
            f"unknown model_type {kind!r}: no format of Blindspot, no image-text model of transformers{hint}"
        )
    # Code of its own, as Molmo's, may offer its model under one name only.
    causal = "AutoModelForCausalLM" in own and "AutoModelForImageTextToText" not in own and kind not in KNOWN
    opener: Any = AutoModelForCausalLM if causal else AutoModelForImageTextToText
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    with quietly():
        model, info = opener.from_pretrained(
            folder,
            config=AutoConfig.from_pretrained(folder, **where),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check` refuses them, in words
            **where,
        )
    check(info)
    return model.eval()


def _processor(folder: Path, config: Any, trust_remote_code: bool) -> Any:
    with quietly():
        shown: Any = PROCESSOR_MAPPING.get(type(config), None)
        whole, images = pixels.real(shown), IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type, {})
        opener: Any = AutoImageProcessor
        if whole is not None and "torchvision" in images and "pil" not in images:
            opener = pixels.real(getattr(transformers, str(images["torchvision"])))
        if opener is not AutoImageProcessor or whole is not shown or (whole and _other_parts(whole)):
            processor: Any = _pictures_only(folder, whole, opener)
        else:
            processor = AutoProcessor.from_pretrained(
                folder, backend=BACKEND, local_files_only=True, trust_remote_code=trust_remote_code
            )
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise UserError("it has no processor of images and text (a tokenizer and a preprocessor_config.json)")
    if isinstance(processor, LlavaProcessor) and processor.patch_size is None:  # llava-hf's first processors
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = 1 if config.vision_feature_select_strategy == "default" else 0
    if isinstance(processor, LlavaProcessor) and processor.image_token_id != config.image_token_index:
        raise UserError(
            f"its tokenizer gives {processor.image_token} the id {processor.image_token_id}, and its config.json says "
            f"image_token_index {config.image_token_index}; they do not belong together"
        )
    return processor


def _other_parts(whole: Any) -> list[str]:
    """Names of a processor's parts that pictures and words do not need."""
    return [name for name in whole.get_attributes() if name not in ("image_processor", "tokenizer")]


def _pictures_only(folder: Path, whole: Any, opener: Any) -> Any:
    """The processor of a model that also takes videos or sounds, without these parts.

    transformers wants torchvision for every video processor, and ``num2words`` for SmolVLM's. A question about pictures
    needs neither.
    """
    # SmolVLM's chat template asks for the first two, MiniCPM's processor for the others; none is used
    absent = SimpleNamespace(num_frames=None, fps=None, slice_mode=None, downsample_mode=None)
    smolvlm: Any = processing_smolvlm
    if smolvlm.num2words is None:
        smolvlm.num2words = absent  # its constructor refuses None; only videos are counted in words
    parts: dict[str, Any] = {
        "image_processor": opener.from_pretrained(
            folder, local_files_only=True, **({"backend": BACKEND} if opener is AutoImageProcessor else {})
        ),
        "tokenizer": AutoTokenizer.from_pretrained(folder, local_files_only=True),
    }
    settings = whole.get_processor_dict(folder, local_files_only=True)[0]
    without = {name: property(lambda _: absent, lambda *_: None) for name in _other_parts(whole)}
    own: Any = type(whole.__name__, (whole,), {**without, "check_argument_for_proper_class": lambda *_: None})
    processor = own.from_args_and_dict([parts.get(name) for name in whole.get_attributes()], settings)
    own.get_attributes = classmethod(lambda _: [*parts])  # what is saved
    return processor


def quiet() -> None:
    """Keep transformers' progress bars and warnings off the terminal, for a program that prints one answer."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def ask(model: Any, processor: Any, image: Image.Image, question: str, longest: int = 32) -> str:
    """The model's greedy answer."""
    pictures = getattr(model.config, "images_per_question", 1)
    if pictures != 1:
        raise UserError(f"this model was trained on {pictures} pictures a question and cannot be asked about one")
    content = [{"type": "image"}, {"type": "text", "text": in_known_words(processor, question)}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
    answer = generated[0, inputs["input_ids"].shape[1] :]
    return processor.decode(answer, skip_special_tokens=True).strip()


def knows_words_only(processor: Any) -> bool:
    """Whether a model's tokenizer knows a closed set of words, as those of the miniature do."""
    return isinstance(getattr(getattr(processor.tokenizer, "backend_tokenizer", None), "model", None), WordLevel)


def known_words(processor: Any) -> list[str]:
    """The words of such a tokenizer, in the order of the alphabet."""
    tokenizer = processor.tokenizer
    return sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))


def in_known_words(processor: Any, question: str) -> str:
    """The question as a model is asked it: where its tokenizer knows a closed set of words, in small letters."""
    if not knows_words_only(processor):
        return question
    question, known = question.lower().rstrip(" ?.!"), known_words(processor)
    for word in question.split():
        if word not in known:
            raise UserError(f"this model does not know the word {word!r}; it knows: {', '.join(known)}")
    return question


def export(model_path: Path | str, out: Path, form: str) -> None:
    """Write the model at ``model_path`` to the new folder ``out``, whole or not at all.

    Args:
        form: a key of `FORMATS`. ``llava-hf``: transformers opens it without Blindspot, and gives the same logits bit
            for bit; ``llava``: the original LLaVA's layout; ``blindspot``: this program's own.
    """
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}; known are {', '.join(FORMATS)}")
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    model, processor = load(model_path)
    if not isinstance(model, BlindspotForConditionalGeneration):
        kind = model.config.model_type
        raise UserError(f"{model_path} is a {kind} model as transformers has it; only Llava-like ones are exported")
    special = Parts(model.config).specialities() if form in NEEDS_PLAIN else []
    if special:
        raise UserError(
            f"{model_path} cannot become a {form} checkpoint, because Llava has no {' and no '.join(special)}; "
            "export it with --format blindspot"
        )
    with new_folder(out, "free the disk or name another folder") as folder:
        if form == "llava":
            llava.write(model, processor, folder)
            return
        with quietly():
            if form == "llava-hf":
                save(model, folder)
            else:
                model.save_pretrained(folder)
            processor.save_pretrained(folder)
