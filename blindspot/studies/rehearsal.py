"""What a study of real size reads, at a ten-thousandth of the size: what its rehearsal runs on instead of downloads.

The files have the published formats and places, so that everything that reads them is the code of the real run:
checkpoints below ``checkpoints/ORGANISATION/NAME`` with the image and patch size of the released ones and random
weights, rows in LLaVA's format with pictures, and of each benchmark the form of VLMEvalKit, of boxes COCO's, which ask
the miniature's drawn questions.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image

from blindspot.benchmarks.ccbench import CATEGORIES, PASS
from blindspot.benchmarks.coco_boxes import COCO_BOXES
from blindspot.benchmarks.mme import COGNITION, PERCEPTION
from blindspot.benchmarks.mmmu_val import SUBJECTS
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.seedbench_img import DIMENSIONS
from blindspot.benchmarks.topviewrs import MAPS, TASKS
from blindspot.encoders import ENCODERS, Encoder
from blindspot.encoders.base import Checkpoint
from blindspot.errors import UserError
from blindspot.evaluation.adapters import recognise
from blindspot.files import is_hub_id, write_json
from blindspot.question import Question
from blindspot.scenes.render import render
from blindspot.scenes.sampling import TrainingWorld, test_questions
from blindspot.scenes.world import CANVAS, Scene
from blindspot.studies.needs import downloads
from blindspot.studies.schema import DataSet
from blindspot.studies.sizes import CHECKPOINTS

Cells = list[dict[str, Any]]
ROWS = 24
"""Of each file in LLaVA's format."""
SIDE = 96
"""Of a picture, in pixels: scenes are drawn smaller and enlarged."""
WIDTH: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TURNS = 3
QUESTIONS = 16
"""Of each drawn column."""
BOXES = [f"[{x / 4}, {y / 4}, {x / 4 + 0.5}, {y / 4 + 0.5}]" for x in range(3) for y in range(3)]
SAID = ("A", "B", "C", "D", "Yes", "No", "2", "3", "left", "right", "red", "blue", *BOXES)
"""The words of a language model that was never trained."""


def write_rehearsal(folder: Path, config: Mapping[str, Any], report: Callable[[int, int], None]) -> None:
    """All that a study is made from, trained on and asked.

    Args:
        folder: of the data.
        config: ids of ``encoders``, of ``language_models`` and of ``models`` that are only evaluated, names of
            ``benchmarks``, and the fields of ``data`` sets.
        report: told of every file.
    """
    torch.manual_seed(0)
    checkpoints = folder / CHECKPOINTS
    jobs = [partial(write_encoder, checkpoints / name, name) for name in config["encoders"]]
    jobs += [partial(write_language_model, checkpoints / name) for name in config["language_models"]]
    jobs += [partial(write_model, checkpoints, name) for name in config["models"]]
    jobs += [partial(write_rows, folder, DataSet(**data), seed) for seed, data in enumerate(config["data"])]
    jobs += [partial(write_benchmark, folder, name, seed) for seed, name in enumerate(config["benchmarks"])]
    for number, job in enumerate(jobs, start=1):
        job()
        report(number, len(jobs))


def write_encoder(folder: Path, name: str) -> None:
    """A released image encoder in its published format, two blocks of width 32.

    Args:
        folder: what becomes the checkpoint's folder.
        name: the id of a checkpoint that `ENCODERS` lists.

    Raises:
        UserError: if none lists it, so that its format is not known.
    """
    from transformers import AutoConfig, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    family, released = _released(name)
    vision: Any = AutoConfig.for_model(released.model_type, **{**released.arguments, **WIDTH})
    wrappers: dict[str, tuple[Any, Any]] = {
        "clip_vision_model": (CLIPConfig, CLIPModel),
        "siglip_vision_model": (SiglipConfig, SiglipModel),
    }
    if released.model_type in wrappers:  # these are published with their text encoders
        config, model = wrappers[released.model_type]
        text = {**WIDTH, "vocab_size": 16, "projection_size": 32}
        model(config(text_config=text, vision_config=vision.to_dict(), projection_dim=32)).save_pretrained(folder)
    else:
        family.class_of(released.model_type)(vision).save_pretrained(folder)
    family.image_processor(released.size, vision.patch_size).save_pretrained(folder)


def _released(name: str) -> tuple[Encoder, Checkpoint]:
    for family in ENCODERS.values():
        for checkpoint in family.checkpoints:
            if checkpoint.id == name:
                return family, checkpoint
    raise UserError(f"{name}: a rehearsal makes the checkpoints that `blindspot encoders` lists, and this is none")


def write_model(checkpoints: Path, name: str) -> None:
    """A vision-language model in the published format of its family, with random weights.

    Args:
        checkpoints: the folder that its own is made in.
        name: its Hugging Face id, by which its family is known.

    Raises:
        UserError: if it is no id, or of a family that is not written.
    """
    from blindspot.studies.tiny_families import BUILDERS

    family = recognise(None, name=name)[0].name
    if not is_hub_id(name) or family not in BUILDERS:
        raise UserError(
            f"models: {name}: a rehearsal writes Hugging Face ids (ORGANISATION/NAME) of {', '.join(BUILDERS)}, and "
            "this is none"
        )
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

    from blindspot.model.formats.folder import quietly

    folder = checkpoints / name
    folder.mkdir(parents=True, exist_ok=True)
    BUILDERS[family](folder)
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    with quietly():
        model = AutoModelForImageTextToText.from_pretrained(folder, config=config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    places = tokenizer.get_vocab()
    said = [places[word] for word in SAID if len(word) == 1]  # its tokens are characters
    _teach(model, said, tokenizer.eos_token_id)
    model.save_pretrained(folder)


def write_language_model(folder: Path) -> None:
    """A Llama of two blocks that says a few words of `SAID`, which depend on all it was told, and ends.

    Its tokenizer is Llama's: pieces of one character, bytes for all others, and those words.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    characters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *characters]
    places = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizer(vocab=places, merges=[], add_bos_token=True, pad_token="<unk>", legacy=False)
    tokenizer.add_tokens([word for word in SAID if word not in places])
    tokenizer.save_pretrained(folder)
    ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(**WIDTH, **ids, max_position_embeddings=4096, vocab_size=len(tokenizer), initializer_range=0.1)
    model: Any = LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if "self_attn" in name:  # what it says depends on what it attends to
            weight.data *= 5
    places = tokenizer.get_vocab()
    _teach(model, [places[word] for word in SAID], end=2)
    model.save_pretrained(folder)


def _teach(model: Any, said: list[int], end: int) -> None:
    """Make a language model, whose head is its own, say one of some tokens and then the one that ends."""
    embedding_vd, head_vd = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    embedding_vd[:, :2] = torch.tensor([8.0, 0.0])  # channel 0 calls for a word, channel 1 for the end
    embedding_vd[said, :2] = torch.tensor([0.0, 8.0])
    head_vd[:, :2] = torch.tensor([-8.0, -8.0])
    head_vd[said, :2] = torch.tensor([8.0, -8.0])
    head_vd[end, :2] = torch.tensor([-8.0, 8.0])
    head_vd[said, 2:] *= 6
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data[:2] = 0.0


def write_rows(root: Path, data: DataSet, seed: int) -> None:
    """Rows and pictures where a data set in LLaVA's format has them; every eighth row of a mix is text alone."""
    folders = [path for one in downloads(data) for path in one.paths if path != data.file]
    world, rows = TrainingWorld(seed, TURNS), []
    for number in range(ROWS):
        scene, asked = world.draw()
        turns = [(turn.prompt, turn.answer) for _, turn in asked]
        row: dict[str, Any] = {"id": f"{number:09}"}
        if len(folders) == 1 or number % 8 != 7:
            path = root / folders[number % len(folders)] / f"{number:09}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(scene).save(path, "JPEG")
            row["image"] = path.relative_to(root / data.images).as_posix()
            turns[0] = (f"<image>\n{turns[0][0]}", turns[0][1])
        said = zip(("human", "gpt"), turns[0], strict=True) if data.name == "llava-pretrain" else None
        flat = said or ((who, text) for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True))
        row["conversations"] = [{"from": who, "value": text} for who, text in flat]
        rows.append(row)
    (root / data.file).parent.mkdir(parents=True, exist_ok=True)
    write_json(root / data.file, rows)


def write_benchmark(root: Path, name: str, seed: int) -> None:
    """Questions of the miniature in the TSV that VLMEvalKit publishes a benchmark in, or in COCO's form.

    Raises:
        UserError: if a rehearsal has none of that name.
    """
    import pandas as pd

    if name == COCO_BOXES.name:
        return write_boxes(root / name, seed)
    if name not in FORMS:
        raise UserError(
            f"a rehearsal has no questions for {name}; it has those of {', '.join((*FORMS, COCO_BOXES.name))}"
        )
    columns, row = FORMS[name]
    scenes, questions = test_questions("iid", QUESTIONS, seed)
    asked = [question for question in questions if question.benchmark in columns]
    rows = []
    for number, question in enumerate(asked, start=1):
        png = io.BytesIO()
        _picture(scenes[question.images[0]]).save(png, "PNG")
        common = {"index": number, "question": question.prompt, "image": base64.b64encode(png.getvalue()).decode()}
        rows += [{**common, **more} for more in row(question, number, Random(f"{seed}/{number}"))]
    file = next(mark for one in BENCHMARKS[name].sources if one.form == "tsv" for mark in one.marks)
    (root / name).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(root / name / file, sep="\t", index=False)


def write_boxes(folder: Path, seed: int) -> None:
    """Objects of scenes and their boxes as COCO publishes them, beside their pictures."""
    scenes, questions = test_questions("iid", QUESTIONS, seed)
    shown = [scenes[question.images[0]] for question in questions if question.benchmark == "boxes"]
    names = sorted({f"{thing.colour} {thing.shape}" for scene in shown for thing in scene.things})
    images, objects, scale = [], [], SIDE / CANVAS
    (folder / "val").mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(shown):
        file = f"{number:012}.png"
        _picture(scene).save(folder / "val" / file, "PNG")
        images.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
        for thing in scene.things:
            box = [thing.x * scale, thing.y * scale, thing.size * scale, thing.size * scale]
            own = {"id": len(objects), "image_id": number, "category_id": names.index(f"{thing.colour} {thing.shape}")}
            objects.append({**own, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    write_json(folder / "instances.json", {"images": images, "annotations": objects, "categories": categories})


def _picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _options(question: Question, rng: Random, **more: Any) -> dict[str, Any]:
    """The right option among at most four, and its letter."""
    wrong = [choice for choice in question.choices if choice != question.answer]
    options = [question.answer, *rng.sample(wrong, min(3, len(wrong)))]
    rng.shuffle(options)
    return {**dict(zip("ABCD", options, strict=False)), "answer": "ABCD"[options.index(question.answer)], **more}


def _cvbench(question: Question, number: int, rng: Random) -> Cells:
    task = "Count" if question.benchmark == "cvbench_count" else "Relation"
    return [_options(question, rng, source=("COCO", "ADE20K")[number % 2], task=task)]


def _topviewrs(question: Question, number: int, rng: Random) -> Cells:
    task, subtasks = list(TASKS.items())[number % len(TASKS)]
    labels = {"category": task, "l2-category": subtasks[number % len(subtasks)], "split": MAPS[number % 2]}
    return [_options(question, rng, **labels)]


def _mmmu(question: Question, number: int, rng: Random) -> Cells:
    subjects = [subject for several in SUBJECTS.values() for subject in several]
    labels = {"split": "validation", "category": subjects[number % len(subjects)]}
    return [_options(question, rng, **labels) | {"question": f"<image 1> {question.prompt}"}]


def _mme(question: Question, number: int, rng: Random) -> Cells:
    categories = (*PERCEPTION, *COGNITION)
    picture = {"category": categories[number % len(categories)], "image_path": f"{number}.jpg"}
    both = ("Yes", "No") if question.answer == "yes" else ("No", "Yes")
    texts = (question.prompt, f"not {question.prompt}")
    return [
        {**picture, "index": 2 * number + place, "question": text, "answer": answer}
        for place, (text, answer) in enumerate(zip(texts, both, strict=True))
    ]


def _ccbench(question: Question, number: int, rng: Random) -> Cells:
    turned = [question.choices[turn:] + question.choices[:turn] for turn in range(4)]
    return [
        {
            "index": turn * PASS + number,
            **dict(zip("ABCD", texts, strict=True)),
            "answer": "ABCD"[texts.index(question.answer)],
            "category": CATEGORIES[number % len(CATEGORIES)],
        }
        for turn, texts in enumerate(turned)
    ]


FORMS: dict[str, tuple[Sequence[str], Callable[[Question, int, Random], Cells]]] = {
    "mmvp": (
        ("mmvp",),
        lambda asked, number, rng: [{"A": "yes", "B": "no", "answer": "A" if asked.answer == "yes" else "B"}],
    ),
    "cvbench_2d": (("cvbench_relation", "cvbench_count"), _cvbench),
    "tallyqa": (
        ("tallyqa_simple", "tallyqa_complex"),
        lambda asked, number, rng: [{"answer": asked.answer, "issimple": asked.benchmark == "tallyqa_simple"}],
    ),
    "gqa": (
        ("gqa_choose", "gqa_compare", "gqa_logical", "gqa_query", "gqa_verify"),
        lambda asked, number, rng: [{"answer": asked.answer, "category": asked.benchmark.removeprefix("gqa_")}],
    ),
    "vsr": (("vsr",), lambda asked, number, rng: [{"answer": asked.answer}]),
    "topviewrs": (("topviewrs",), _topviewrs),
    "countbenchqa": (("countbenchqa",), lambda asked, number, rng: [{"answer": asked.answer}]),
    "mmmu_val": (("gqa_query", "cvbench_relation", "topviewrs"), _mmmu),
    "mme": (("gqa_verify", "vsr"), _mme),
    "ccbench": (("cvbench_relation",), _ccbench),
    "seedbench_img": (
        ("cvbench_relation", "cvbench_count", "topviewrs"),
        lambda asked, number, rng: [_options(asked, rng, category=DIMENSIONS[number % len(DIMENSIONS)])],
    ),
}
"""Of each benchmark: the drawn columns that its questions come from, and what its TSV has beside common columns."""
