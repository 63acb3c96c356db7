"""Questions per second of an evaluation against transformers' ``generate``, all in this run, on one model.

    python perf/evaluate.py            under 2 minutes on an idle core; --json for a JSON object, --help for the rest

A set like GQA: photographs of 500 x 375 pixels with 30 short questions each, in LLaVA's template, answered in few
words. The model is a random ``LlavaForConditionalGeneration`` in float32 with LLaVA-1.5's shape of a prompt: 576 tokens
of a picture among some 50 words. Ours is `LocalAnswerer`. One peer asks one question at a time, as VLMEvalKit does; the
other asks in batches padded on the left, and keeps the fastest of several batch sizes. Peers open and resize the
picture for every question, as harnesses do. Sides alternate picture by picture, so that a busy machine slows all; a
ratio is the median of those of single pictures. All must give the same answers.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.evaluation.base import PICTURE, Asked, Prompt
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.model import images
from blindspot.model.conversation import SYSTEM
from blindspot.model.tokenizer import word_tokenizer, words_of

QUESTIONS, LONGEST = 30, 4
SIDE, PATCH = 336, 14
FORM = "Answer the question using a single word or phrase."
NOUNS = [f"thing{number}" for number in range(2000)]
PEER_BATCHES = (4, 8, 16, 30)

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


def questions(picture: int) -> list[Asked]:
    """The questions about one picture."""
    draw = random.Random(picture)
    noise_hw3 = np.random.default_rng(picture).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise_hw3).save(file, "jpeg", quality=90)
    made = []
    for number in range(QUESTIONS):
        words = " ".join(draw.choices(NOUNS, k=draw.randint(5, 13)))
        text = (f"{SYSTEM} USER: ", PICTURE, f"\n{words}\n{FORM} ASSISTANT:")
        prompt = Prompt(text, whole=True, longest=LONGEST)
        made.append(Asked(f"{picture}-{number}", prompt, (file.getvalue(),), (str(picture),)))
    return made


def build() -> tuple[Any, LlavaProcessor]:
    """The model and its processor."""
    tokenizer = word_tokenizer([*NOUNS, *f"{SYSTEM} USER: {FORM} ASSISTANT:".split()])
    words = words_of(tokenizer)
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=words.count,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        pad_token_id=words.pad,
        bos_token_id=words.begin,
        eos_token_id=words.end,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=words.image)
    )
    for parameter in model.parameters():  # the small initial weights would give every question the same answer
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return model.eval(), processor


def by_generate(model: Any, processor: LlavaProcessor, batch: int) -> Side:
    """Questions in batches, every prompt computed from its beginning."""

    @torch.no_grad()
    def answer(asked: Sequence[Asked]) -> Answers:
        answers: Answers = {}
        ordered = sorted(asked, key=lambda one: len(str(one.prompt)))
        for start in range(0, len(ordered), batch):
            some = ordered[start : start + batch]
            pictures = [images.decode(BytesIO(one.pictures[0]), "the picture") for one in some]
            texts = [str(one.prompt) for one in some]
            inputs = processor(images=pictures, text=texts, padding=True, return_tensors="pt")  # pyright: ignore
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


def measure(pictures: int) -> list[Ratio]:
    """Ours against both peers."""
    model, processor = build()
    answerer = LocalAnswerer(model, processor)
    warm_up = questions(0)
    sides: dict[str, Side] = {
        "ours": lambda asked: {reply.id: reply.raw for reply in answerer.answer(asked)},
        "one by one": by_generate(model, processor, 1),
    }
    trials = {batch: seconds(by_generate(model, processor, batch), warm_up)[0] for batch in PEER_BATCHES}
    fastest = min(trials, key=trials.__getitem__)
    sides[f"batches of {fastest}"] = by_generate(model, processor, fastest)
    sides["ours"](warm_up)
    times: dict[str, list[float]] = {name: [] for name in sides}
    distinct: set[str] = set()
    for picture in range(1, pictures + 1):
        asked, given = questions(picture), {}
        for name, side in sides.items():
            taken, given[name] = seconds(side, asked)
            times[name].append(taken)
        assert all(answers == given["ours"] for answers in given.values()), f"picture {picture}: answers differ"
        distinct |= set(given["ours"].values())
    assert len(distinct) > QUESTIONS, "answers do not depend on the questions"
    return [_ratio(name, times["ours"], times[name]) for name in sides if name != "ours"]


def _ratio(peer: str, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return Ratio(peer, QUESTIONS / median(ours), QUESTIONS / median(theirs), median(ratios), low, high)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pictures", type=int, default=8, help="pictures of 30 questions, 2 or more")
    arguments.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options.pictures)
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
