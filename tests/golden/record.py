"""The golden facts: what a rebuild carries along, whatever it calls its modules.

``python tests/golden/record.py`` writes every file of facts anew and prints what changed in them.
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import entry  # noqa: E402
from answers import write_runs  # noqa: E402

METRIC = [
    *("value", "low", "high", "interval", "error", "resolves", "n", "units", "clusters", "chance", "chance_corrected"),
    *("constant", "constant_answer", "unparsed", "cut_off", "stripped"),
]
DIFFERENCE = ["n", "difference", "low", "high", "error", "p", "p_holm", "significant", "test"]
TOLERANCE = {"losses": {"rel_tol": 0.0, "abs_tol": 5e-5}, "scores": {"rel_tol": 1e-5}, "options": {}}
"""Of numbers: losses differ that much between processors; scores are kept to six digits."""
LAYERS = 2
WORDS = ["<unk>", "<s>", "</s>", "what", "is", "red", "box", "left", "of", "USER:", "ASSISTANT:"]


def scores(folder: Path) -> Any:
    """Every score, metric and interval of the recorded answers, and their comparison, under every profile."""
    good, *others = write_runs(folder)
    found: dict[str, Any] = {}
    items = json.loads(_run("score", good, "--profile", "all", "--json"))["items"]
    for profile in entry.PROFILES:
        compared = json.loads(_run("compare", good, *others, "--profile", profile, "--json"))
        found[f"items of {profile}"] = _items(good, [item.get(profile) for item in items])
        found[f"metrics of {profile}"] = _metrics(entry.scores(good, profile)["benchmarks"])
        found[f"differences of {profile}"] = _differences(compared["comparisons"])
    return found


def losses(folder: Path) -> Any:
    """Losses of the first five steps of every stage of three miniature arms and of one in LLaVA's form."""
    import torch

    torch.set_num_threads(1)
    found = entry.miniature_losses(HERE / "arms.yaml", folder / "miniature")
    write_llava(folder)
    _run(*trained(folder), "--steps", 5)
    for stage in ("connector", "instruct"):
        (log,) = (folder / "run").glob(f"*/{stage}/log.jsonl")
        found[f"llava {stage}"] = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    return {name: [round(float(loss), 6) for loss in each] for name, each in found.items()}


def options(folder: Path) -> Any:
    """Arguments and options of every command."""
    return entry.options()


FACTS: dict[str, Callable[[Path], Any]] = {"scores": scores, "losses": losses, "options": options}


def differences(name: str, new: Any) -> list[str]:
    """What is not as it was recorded, one line a number."""
    path = HERE / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return list(_changes(old, new, TOLERANCE[name], ""))


def _changes(old: Any, new: Any, tolerance: dict[str, float], at: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _changes(old.get(key, "(absent)"), new.get(key, "(absent)"), tolerance, f"{at} / {key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, tolerance, f"{at}[{place}]")
    elif old != new and not _near(old, new, tolerance):
        yield f"{at.removeprefix(' / ')}: {json.dumps(old)} -> {json.dumps(new)}"


def main() -> None:
    for name, make in FACTS.items():
        with tempfile.TemporaryDirectory() as folder:
            new = make(Path(folder))
        differing = differences(name, new)
        if differing:
            (HERE / f"{name}.json").write_text(_compact(new), encoding="utf-8")
        print(f"{name}: {len(differing) or 'no'} changes", *differing, sep="\n  ")


def _run(*arguments: object) -> str:
    result = entry.command(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result.stdout


def _items(run: Path, items: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """What was extracted and its score, by benchmark."""
    found: dict[str, list[Any]] = {}
    rows = [json.loads(line) for path in sorted(run.glob("*/answers.jsonl")) for line in path.open(encoding="utf-8")]
    for row, item in zip(rows, items, strict=True):
        found.setdefault(row["benchmark"], []).append(item and [item["extracted"], item["score"]])
    return found


def _metrics(benchmarks: dict[str, Any]) -> dict[str, Any]:
    """Of every metric that has questions all numbers; of every benchmark its habits."""
    found: dict[str, Any] = {"fields": METRIC}
    for name, each in benchmarks.items():
        asked = {metric: row for metric, row in each["metrics"].items() if row["n"]}
        found |= {f"{name} {metric}": [row.get(field) for field in METRIC] for metric, row in asked.items()}
        found[f"{name} habits"] = each["habits"] | {"thinking": each.get("thinking")}
    return found


def _differences(rows: list[dict[str, Any]]) -> dict[str, Any]:
    asked = {f"{row['b']} {row['benchmark']} {row['metric']}": row for row in rows if row["n"]}
    return {"fields": DIFFERENCE} | {name: [row[field] for field in DIFFERENCE] for name, row in asked.items()}


def _near(old: Any, new: Any, tolerance: dict[str, float]) -> bool:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (old, new))
    return numbers and math.isclose(old, new, **tolerance)


def _compact(facts: dict[str, Any]) -> str:
    """JSON with a line for each entry of the second level, so that a difference is a line."""
    parts = []
    for name, each in facts.items():
        held = (
            [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in each.items()]
            if isinstance(each, dict)
            else []
        )
        parts.append(f" {json.dumps(name)}: " + ("{\n" + ",\n".join(held) + "\n }" if held else json.dumps(each)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_llava(root: Path) -> None:
    """Checkpoints, rows and pictures of an arm in LLaVA's form."""
    from PIL import Image
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    layers: dict[str, Any] = {"num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 24}
    vision = layers | {"hidden_size": 32, "image_size": 24, "patch_size": 8}
    text = layers | {"hidden_size": 16, "vocab_size": 9}
    _save(CLIPModel(CLIPConfig(text_config=text, vision_config=vision)), root / "clip")
    special: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes: dict[str, Any] = {"vocab_size": len(WORDS), "hidden_size": 32, "max_position_embeddings": 128}
    _save(LlamaForCausalLM(LlamaConfig(**layers, **sizes, **special)), root / "llama")
    core = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **named).save_pretrained(root / "llama")
    (root / "images").mkdir()
    draw, rows = np.random.default_rng(0), []
    for number in range(12):
        Image.fromarray(draw.integers(0, 255, (30, 40, 3), np.uint8)).save(root / "images" / f"{number}.png")
        said = " ".join(draw.choice(WORDS[3:9], 1 + number % 5))
        turns = [{"from": "human", "value": "<image>\nwhat is"}, {"from": "gpt", "value": said}]
        rows.append({"id": f"r{number}", "image": f"{number}.png", "conversations": turns})
    (root / "rows.json").write_text(json.dumps(rows))
    (root / "llava.yaml").write_text((HERE / "llava.yaml").read_text().replace("ROOT", str(root)))


def trained(root: Path) -> tuple[object, ...]:
    """The command that trains the arm of `write_llava`."""
    arm = ("train", root / "llava.yaml", "--arm", "mixed", "--data", root, "--out", root / "run")
    return (*arm, "--precision", "fp32", "--workers", 0, "--pack-tokens", 120)


def _save(model: Any, folder: Path) -> None:
    """A checkpoint whose weights depend on no version of transformers or torch."""
    import torch

    draw = np.random.default_rng(0)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            drawn = draw.normal(scale=0.1, size=tuple(weight.shape)) + (weight.ndim == 1)
            weight.copy_(torch.tensor(drawn))
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
