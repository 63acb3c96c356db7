"""Open a trained variant, or any Llava-like checkpoint folder, and ask it something."""

from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers.models import WordLevel
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

import blindspot.model.variant  # noqa: F401  (registers the model type with the Auto classes)
from blindspot.errors import UserError


def load(folder: Path | str) -> tuple[Any, Any]:
    """The model, ready to answer, and its processor.

    Raises:
        UserError: if ``folder`` is no checkpoint that transformers can open, or lacks some of its weights.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        found = sorted(path.name for path in (folder / "models").glob("*")) if (folder / "models").is_dir() else []
        hint = f"; it is a run folder, name one of its models, e.g. {folder / 'models' / found[0]}" if found else ""
        raise UserError(f"{folder} is not a model folder (it has no config.json){hint}")
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        opened: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # what a damaged folder makes the libraries raise has no common base
        raise UserError(f"cannot open the model in {folder}: {error}") from error
    model, info = opened
    if info["missing_keys"]:
        raise UserError(f"the model in {folder} lacks weights, e.g. {min(info['missing_keys'])}; copy or train it anew")
    return model.eval(), processor


def quiet() -> None:
    """Keep transformers' progress bars and warnings off the terminal, for a program that prints one answer."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def open_image(path: Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        UserError: if there is no such file or it is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"no image at {path}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image that can be read: {error}") from error


def ask(model: Any, processor: Any, image: Image.Image, question: str, longest: int = 32) -> str:
    """The model's greedy answer.

    Raises:
        UserError: if the model's tokenizer knows a closed set of words and the question has others.
    """
    pictures = getattr(model.config, "images_per_question", 1)
    if pictures != 1:
        raise UserError(f"this model was trained on {pictures} pictures a question and cannot be asked about one")
    tokenizer = processor.tokenizer
    if isinstance(tokenizer.backend_tokenizer.model, WordLevel):
        question = question.lower().rstrip(" ?.!")
        _refuse_unknown_words(tokenizer, question)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
    answer = generated[0, inputs["input_ids"].shape[1] :]
    return processor.decode(answer, skip_special_tokens=True).strip()


def _refuse_unknown_words(tokenizer: Any, question: str) -> None:
    known = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    for word in question.split():
        if word not in known:
            raise UserError(f"this model does not know the word {word!r}; it knows: {', '.join(sorted(known))}")
