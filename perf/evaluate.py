"""Questions per second of an evaluation against transformers' ``generate``, all in this run, on one model.

    python perf/evaluate.py            under 2 minutes on an idle core; --json for a JSON object, --help for the rest
    python perf/evaluate.py --family internvl --pictures 3

A set like GQA: photographs of 500 x 375 pixels with 30 short questions each, in the family's template, answered in few
words. The model is a random one of the family's class in float32 with its shape of a prompt, a picture's tokens among
some 50 words: 576 of LLaVA-1.5's, 192 of Qwen3-VL's, 1,792 of InternVL's at the 6 tiles of its own evaluation. Ours is
`LocalAnswerer`. One peer asks one question at a time, as VLMEvalKit does; the other asks in batches padded on the left,
and keeps the fastest of several batch sizes. Peers open and resize the picture for every question, as harnesses do.
Sides alternate picture by picture, so that a busy machine slows all; a ratio is the median of those of single pictures.
All must give the same answers.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from blindspot.evaluation.adapters import adapter_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.model import images
from blindspot.model.conversation import SYSTEM
from blindspot.model.load import load
from blindspot.model.tokenizer import word_tokenizer, words_of

QUESTIONS, LONGEST = 30, 4
SIDE, PATCH = 336, 14
FORM = "Answer the question using a single word or phrase."
NOUNS = [f"thing{number}" for number in range(2000)]
PEER_BATCHES = (4, 8, 16, 30)

FRAMES = {
    "llava": (f"{SYSTEM} USER: ", f"\n{{}}\n{FORM} ASSISTANT:"),
    **dict.fromkeys(
        ("qwen3_vl", "internvl"), ("<|im_start|> user\n", f"\n{{}}\n{FORM} <|im_end|>\n<|im_start|> assistant\n")
    ),
}
"""What stands before a picture and behind it, by family."""
VISION = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 4}
LANGUAGE: dict[str, Any] = {
    **{"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"num_key_value_heads": 4, "max_position_embeddings": 8192},
}

Answers = dict[str, str]
Side = Callable[[Sequence[Asked]], Answers]


class Ratio(NamedTuple):
    """Our questions per second over a peer's: above 1, ours is faster."""

    peer: str
    ours_per_second: float
    peer_per_second: float
    ratio: float
    low: float
    high: float


def questions(picture: int, family: str) -> list[Asked]:
    """The questions about one picture."""
    before, behind = FRAMES[family]
    draw = random.Random(picture)
    noise_hw3 = np.random.default_rng(picture).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise_hw3).save(file, "jpeg", quality=90)
    made = []
    for number in range(QUESTIONS):
        words = " ".join(draw.choices(NOUNS, k=draw.randint(5, 13)))
        prompt = Prompt((before, PICTURE, behind.format(words)), whole=True, longest=LONGEST)
        made.append(Asked(f"{picture}-{number}", prompt, (file.getvalue(),), (str(picture),)))
    return made


def build(family: str) -> tuple[Any, Any]:
    """The model and its processor, written to a folder in the published format and opened again."""
    marks = {
        "qwen3_vl": ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"],
        "internvl": ["<IMG_CONTEXT>", "<video>", "<img>", "</img>"],
    }.get(family, [])
    tokenizer = word_tokenizer([*NOUNS, *"".join(FRAMES[family]).split(), *marks])
    tokenizer.add_special_tokens({"additional_special_tokens": marks}, replace_extra_special_tokens=False)
    words, find = words_of(tokenizer), tokenizer.convert_tokens_to_ids
    ids = {"pad_token_id": words.pad, "bos_token_id": words.begin, "eos_token_id": words.end}
    text = {"vocab_size": words.count, **LANGUAGE, **ids}
    torch.manual_seed(0)
    if family == "qwen3_vl":
        named = ("image_token", "video_token", "vision_start_token", "vision_end_token")
        tokenizer._set_model_specific_special_tokens(dict(zip(named, marks, strict=True)))
        rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [12, 10, 10]}
        tower = {**VISION, "depth": 4, "num_heads": 4, "out_hidden_size": 256, "deepstack_visual_indexes": [1, 2]}
        tower.pop("num_attention_heads")
        config = tf.Qwen3VLConfig(
            vision_config=tower,
            text_config={**text, "head_dim": 64, "rope_parameters": rope},
            **{f"{name}_id": find(mark) for name, mark in zip(named, marks, strict=True)},
            **ids,
        )
        model = tf.Qwen3VLForConditionalGeneration(config)
        images = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 16, "merge_size": 2}
        images["size"] = {"shortest_edge": 65536, "longest_edge": 16777216}
    elif family == "internvl":
        named = ("context_image_token", "video_token", "start_image_token", "end_image_token")
        tokenizer._set_model_specific_special_tokens(dict(zip(named, marks, strict=True)))
        config = tf.InternVLConfig(
            vision_config={**VISION, "num_hidden_layers": 4},
            text_config={"model_type": "qwen2", **text},
            image_token_id=find("<IMG_CONTEXT>"),
            **ids,
        )
        model = tf.InternVLForConditionalGeneration(config)
        images = {"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 448, "width": 448}}
        images["max_patches"] = 6
    else:
        tower = {**VISION, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH}
        config = tf.LlavaConfig(
            vision_config=tf.CLIPVisionConfig(**tower),
            text_config=tf.LlamaConfig(**text),
            image_token_index=words.image,
            **ids,
        )
        model = tf.LlavaForConditionalGeneration(config)
        images = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}}
        images["crop_size"] = {"height": SIDE, "width": SIDE}
    for parameter in model.parameters():  # the small initial weights would give every question the same answer
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    with TemporaryDirectory() as name:
        model.eval().save_pretrained(name)
        tokenizer.save_pretrained(name)
        Path(name, "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
        return load(name)


def by_generate(model: Any, processor: Any, batch: int) -> Side:
    """Questions in batches, every prompt computed from its beginning."""
    family = adapter_of(model.config.model_type)

    @torch.no_grad()
    def answer(asked: Sequence[Asked]) -> Answers:
        answers: Answers = {}
        ordered = sorted(asked, key=lambda one: len(str(one.prompt)))
        for start in range(0, len(ordered), batch):
            some = ordered[start : start + batch]
            pictures = [images.decode(BytesIO(one.pictures[0]), "the picture") for one in some]
            texts = [family.render(processor, one.prompt) for one in some]
            inputs = processor(images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt")
            out_bl = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
            said = processor.batch_decode(out_bl[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            answers |= {one.id: raw for one, raw in zip(some, said, strict=True)}
        return answers

    return answer


def seconds(side: Side, asked: Sequence[Asked]) -> tuple[float, Answers]:
    """How long a side takes, and what it answers."""
    start = time.perf_counter()
    answers = side(asked)
    return time.perf_counter() - start, answers


def measure(pictures: int, family: str, alone: bool) -> list[Ratio]:
    """Ours against both peers, or that which asks one question at a time alone."""
    model, processor = build(family)
    answerer = LocalAnswerer(model, processor)
    assert answerer.identity["pictures"] == "once for their questions", answerer.identity["pictures"]
    warm_up = questions(0, family)
    sides: dict[str, Side] = {
        "ours": lambda asked: {reply.id: reply.raw for reply in answerer.answer(asked)},
        "one by one": by_generate(model, processor, 1),
    }
    if not alone:
        trials = {batch: seconds(by_generate(model, processor, batch), warm_up)[0] for batch in PEER_BATCHES}
        fastest = min(trials, key=trials.__getitem__)
        sides[f"batches of {fastest}"] = by_generate(model, processor, fastest)
    sides["ours"](warm_up)
    times: dict[str, list[float]] = {name: [] for name in sides}
    distinct: set[str] = set()
    for picture in range(1, pictures + 1):
        asked, given = questions(picture, family), {}
        for name, side in sides.items():
            taken, given[name] = seconds(side, asked)
            times[name].append(taken)
        assert all(answers == given["ours"] for answers in given.values()), f"picture {picture}: answers differ"
        distinct |= set(given["ours"].values())
    assert len(distinct) > QUESTIONS / 2, "answers do not depend on the questions"
    return [_ratio(name, times["ours"], times[name]) for name in sides if name != "ours"]


def _ratio(peer: str, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return Ratio(peer, QUESTIONS / median(ours), QUESTIONS / median(theirs), median(ratios), low, high)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pictures", type=int, default=8, help="pictures of 30 questions, 2 or more")
    arguments.add_argument("--family", default="llava", choices=FRAMES, help="whose class and shape of a prompt")
    arguments.add_argument("--alone", action="store_true", help="without the peer that asks in batches")
    arguments.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options.pictures, options.family, options.alone)
    if options.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    table = Table("against generate", "ours, questions/s", "its", "ratio (quartiles)")
    for row in rows:
        spread = f"{row.ratio:.1f} ({row.low:.1f} to {row.high:.1f})"
        table.add_row(row.peer, f"{row.ours_per_second:.0f}", f"{row.peer_per_second:.1f}", spread)
    Console().print(table)


if __name__ == "__main__":
    main()
