"""What a reader has to walk through: distinct functions and files of the package that two ways enter.

``python perf/walk.py`` counts, with ``sys.setprofile``, one MMVP question from its row in the published file to its
cell in the table (`blindspot evaluate`), and one row of LLaVA's JSON to its loss (`blindspot train`), both on
checkpoints of a few thousand weights that it makes. ``PYTHONPATH=OTHER python perf/walk.py`` counts another checkout.
"""

import base64
import io
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STAGE = (
    "data: {file: rows.json, images: images, rows: 4}, batch: 4, lr: 1e-2, warmup: 0.03, schedule: cosine, epochs: 1"
)
ARMS = """name: walk
title: One arm
arms:
  base: {{encoder: {0}/clip, language_model: {0}/llama}}
  named: [{{id: base, label: Base}}]
seeds: 1
"""
CONNECTOR = f"trains: [connector], template: plain, aspect_ratio: square, max_length: 60, {STAGE}"
INSTRUCT = f"trains: [connector, language_model], template: v1, aspect_ratio: pad, max_length: 60, {STAGE}"


def walked(way: Callable[[], Any]) -> tuple[int, int]:
    """Distinct functions and files of the package that are entered while ``way`` runs; not what importing runs."""
    root = str(Path(find_spec("blindspot").origin or "").parent)
    entered: set[tuple[str, str]] = set()
    importing = threading.local()

    def note(frame: Any, event: str, argument: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(root):
            return
        depth = getattr(importing, "depth", 0)
        if code.co_name == "<module>":
            importing.depth = depth + (1 if event == "call" else -1)
        elif event == "call" and not depth and not code.co_name.startswith("<"):
            entered.add((code.co_filename, code.co_qualname))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        way()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return len(entered), len({file for file, _ in entered})


def make(folder: Path) -> None:
    """Checkpoints, rows of LLaVA's form, MMVP's file and a study."""
    import pandas as pd
    import torch
    from PIL import Image
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**size, "num_hidden_layers": 2, "image_size": 24, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config={**size, "vocab_size": 9}, vision_config=vision)).save_pretrained(folder / "clip")
    words = ["<unk>", "<s>", "</s>", "what", "is", "red", "box", "left", "of", "USER:", "ASSISTANT:"]
    core = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(folder / "llama")
    config = LlamaConfig(
        **size, vocab_size=11, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    (folder / "images").mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (24, 24), (200, 30, 30)).save(picture, "PNG")
    (folder / "images" / "0.png").write_bytes(picture.getvalue())
    turns = [{"from": "human", "value": "<image>\nwhat is"}, {"from": "gpt", "value": "red box"}]
    rows = [{"id": str(number), "image": "0.png", "conversations": turns} for number in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    asked = {"image": base64.b64encode(picture.getvalue()).decode(), "question": "what is", "A": "red", "B": "box"}
    (folder / "mmvp").mkdir()
    pairs = [{**asked, "index": number, "answer": "AB"[number % 2]} for number in (1, 2)]
    pd.DataFrame(pairs).to_csv(folder / "mmvp" / "MMVP.tsv", sep="\t", index=False)
    study = ARMS.format(folder)
    if find_spec("blindspot.studies.spec"):  # the schema of before, with a section for the stages
        study += f"kind: llava\nstages:\n  connector: {{{CONNECTOR}}}\n  instruct: {{{INSTRUCT}}}\n"
    else:
        study += f"connector: {{recipe: llava, {CONNECTOR}}}\ninstruct: {{recipe: llava, {INSTRUCT}}}\n"
    (folder / "walk.yaml").write_text(study)


def main() -> None:
    from typer.testing import CliRunner

    from blindspot.cli import app

    def call(*arguments: str) -> None:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        out = folder / "run"
        machine = ("--precision", "fp32", "--workers", "0", "--data", name, "--out", str(out))
        train = ("train", str(folder / "walk.yaml"), "--arm", "base", *machine)
        model = str(out / "base-seed0" / "instruct" / "model")
        evaluate = ("evaluate", model, "--benchmarks", "mmvp", "--data", name, "--out", str(folder / "eval"))
        ways = {"LLaVA's row to its loss": train, "MMVP's row to its cell": evaluate}
        for way, command in ways.items():
            functions, files = walked(lambda command=command: call(*command))
            print(f"{way}: {functions} functions in {files} files")


if __name__ == "__main__":
    main()
