"""A benchmark audited blind: biases that were planted are found as large as they are, and nothing else is."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from blindspot.benchmarks.base import Benchmark, Collection, Metric, Pictures, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.errors import UserError
from blindspot.evaluation import audit as module
from blindspot.evaluation.audit import MEASURED, RESULTS, Said, ask_blind, audit
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.evaluation.shortcuts import FOREST, MODEL, TEMPLATES, Shortcuts, template
from blindspot.question import Kind, Question
from blindspot.scenes.sampling import test_questions as draw_questions
from blindspot.studies.tiny_families import LANGUAGE, llama_tokenizer, qwen_tokenizer, save, special

from .tiny_later import qwen3_vl

VSR = Path("/work/shared/data/vsr")
THINGS = ("cat", "dog", "mug", "car", "lamp", "chair", "book", "ball", "tree", "bed")
SAID = {"left": "to the left", "right": "to the right", "above": "above it", "below": "below it"}
OVERALL = (Metric("overall", (Term(),), None),)


def planted(kind: Kind, bias: float, n: int = 1000) -> list[Question]:
    """Questions, two a picture, whose words give away so many that ``bias`` is what knowing them has above chance."""
    rng, questions = random.Random(f"{kind}/{bias}"), []
    for number in range(n):
        (a, b), place = rng.sample(THINGS, 2), rng.choice(list(SAID))
        if kind == "yes_no":
            options = ["Yes", "No"]
            given, asked = options[place in ("right", "below")], f"Is the {a} {place} of the {b}?"
        else:
            options = rng.sample(list(SAID.values()), 4)
            given, asked = SAID[place], f"Where is the {a}, seen from {place}?"
        gold = given if rng.random() < bias / (1 - 1 / len(options)) else rng.choice(options)
        answer = gold if kind == "yes_no" else "ABCD"[options.index(gold)]
        questions.append(Question(str(number), "x", kind, asked, answer, tuple(options), (number // 2,)))
    return questions


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, and no forest, which has a test of its own."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "REFITS", 16)
    monkeypatch.setattr(module, "PERMUTED", 10)


@pytest.mark.parametrize("kind", ["mcq", "yes_no"])
@pytest.mark.parametrize("bias", [0.0, 0.1, 0.3])
def test_a_planted_bias_is_found_as_large_as_it_is(kind: Kind, bias: float, tmp_path: Path) -> None:
    (part,) = audit("x", planted(kind, bias), OVERALL, tmp_path)["parts"]
    best = part["best"]
    assert best["low"] <= bias <= best["high"]
    assert best["above"] == (bias > 0)
    assert best["rule"] == TEMPLATES or not bias
    assert part["chance"] == pytest.approx(0.25 if kind == "mcq" else 0.5)
    assert all(abs(each["permuted"]) < max(4 * each["permuted_error"], 0.02) for each in part["rules"])


def test_nothing_is_found_where_nothing_is_and_the_best_is_not_flattered(tmp_path: Path) -> None:
    excess = []
    for seed in range(6):
        rng = random.Random(seed)
        asked = [
            Question(
                str(n), "x", "mcq", f"Is {rng.choice('abcd')} by {rng.choice('efgh')}?", rng.choice("AB"), ("1", "2")
            )
            for n in range(200)
        ]
        (part,) = audit("x", asked, OVERALL, tmp_path / str(seed))["parts"]
        excess.append((part["best"]["excess"], part["best"]["apparent"]))
        assert not part["best"]["above"]
    corrected, apparent = np.mean(excess, axis=0)
    assert abs(corrected) < 0.03 and corrected < apparent


def test_the_drawn_scenes_come_out_at_chance(tmp_path: Path) -> None:
    _, drawn = draw_questions("iid", 60, 0)
    metrics = [
        *OVERALL,
        *(Metric(task, (Term({"task": task}),), None) for task in {one.groups["task"] for one in drawn}),
    ]
    found = audit("scenes", drawn, metrics, tmp_path)
    assert found["left_out"] == {"boxes": 60} and len(found["parts"]) > 10
    assert not [row["part"] for row in found["parts"] if row["best"]["above"]]


def test_vsr_is_not_answered_without_its_pictures(tmp_path: Path) -> None:
    if not VSR.is_dir():
        pytest.skip("VSR's rows are not on this machine")
    rows = BENCHMARKS["vsr"].read(VSR, blind=True)
    assert not rows.notes
    found = audit("vsr", rows.questions, BENCHMARKS["vsr"].metrics[:8], tmp_path)
    assert found["questions"] == 1222 and found["groups"] == 715
    assert not [row["part"] for row in found["parts"] if row["best"]["above"]]
    wording = next(each for each in found["parts"][0]["rules"] if each["rule"] == "wording")
    assert wording["high"] < 0 and "balanced" in found["notes"][0]  # the same sentence is true of one, false of another


def test_open_answers_are_learned_by_task_and_numbers_by_their_accuracy(tmp_path: Path) -> None:
    rng, asked = random.Random(0), []
    sizes = dict(zip(THINGS, (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120), strict=True))
    for n in range(300):
        thing = rng.choice(THINGS)
        asked += [
            Question(f"n{n}", "x", "number", f"How tall is {thing}?", str(sizes[thing]), (), (n,), {"task": "size"}),
            Question(
                f"c{n}", "x", "count", "How many are there?", str(rng.choice((1, 1, 2))), (), (n,), {"task": "many"}
            ),
            Question(f"b{n}", "x", "boxes", "Where is it?", "0 0 1 1", (), (n,), {"task": "where"}),
        ]
    metrics = [Metric(task, (Term({"task": task}),), None) for task in ("size", "many")]
    found = audit("x", asked, metrics, tmp_path)
    size, many = found["parts"]
    assert found["left_out"] == {"boxes": 300}
    assert {each["rule"]: each["value"] for each in size["rules"]}["wording"] == 1.0
    assert size["chance"] < 0.4 and size["best"]["above"] and size["chance_is"] == "constant"
    assert many["chance"] == pytest.approx(2 / 3, abs=0.08) and not many["best"]["above"]
    with pytest.raises(UserError, match="ask for boxes"):
        audit("x", [one for one in asked if one.kind == "boxes"], metrics, tmp_path)


def test_killed_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    asked = planted("yes_no", 0.1, 80)
    audit("x", asked, OVERALL, tmp_path)
    whole = (tmp_path / RESULTS).read_bytes()
    kept = (tmp_path / MEASURED).read_text(encoding="utf-8")
    (tmp_path / RESULTS).unlink()
    (tmp_path / MEASURED).write_text(kept[: len(kept) // 2], encoding="utf-8")
    told: list[int] = []
    audit("x", asked, OVERALL, tmp_path, report=lambda what, done, total: told.append(done))
    assert (tmp_path / RESULTS).read_bytes() == whole and (tmp_path / MEASURED).read_text(encoding="utf-8") == kept
    assert told == sorted(told) and told[-1] == module.REFITS + module.PERMUTED + 1
    audit("x", planted("yes_no", 0.3, 80), OVERALL, tmp_path)
    assert (tmp_path / RESULTS).read_bytes() != whole


def test_folds_share_no_picture_and_no_set() -> None:
    asked = [
        Question(str(n), "x", "yes_no", "Is it?", "Yes", (), (n // 3,), {"set": str(n // 4), "cluster": str(n // 3)})
        for n in range(240)
    ]
    subject = module.Audit.of(asked, OVERALL, "pictures", False)
    for together in (3, 4):
        folds = [{*subject.fold[start : start + together].tolist()} for start in range(0, 240, together)]
        assert all(len(own) == 1 for own in folds)
    assert set(subject.fold.tolist()) == set(range(module.FOLDS))


@pytest.mark.parametrize(
    ("asked", "masked"),
    [
        ("Is the big red cat left of the old dog?", "is _ left of _ ?"),
        ("How many chairs are in this room?", "how _ are in _ ?"),
        ("What is the length in cm, 12 or 14.5?", "what is _ in cm , # or # ?"),
        ("", ""),
    ],
)
def test_templates_keep_what_is_asked_and_mask_of_what(asked: str, masked: str) -> None:
    assert template(asked) == masked


def test_a_forest_finds_what_no_count_does() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, the extra audit, is not installed")
    rng, asked = random.Random(0), []
    for n in range(300):
        texts = ["".join(rng.choices("abcdefgh", k=rng.randint(3, 30))) for _ in range(4)]
        longest = max(range(4), key=lambda place: len(texts[place]))
        asked.append(Question(str(n), "x", "mcq", "Which one?", "ABCD"[longest], tuple(texts), (n,)))
        asked.append(Question(f"t{n}", "x", "text", f"Is {'so' if n % 2 else 'it'} {rng.random()}?", "ab"[n % 2], ()))
        asked.append(Question(f"n{n}", "x", "number", f"{'big' if n % 2 else 'low'} {n}", str(10 ** (1 + n % 2)), ()))
    subject = Shortcuts(asked, forest=True)
    fold = np.arange(len(asked)) // 3 % 5
    scores = subject.scores(subject.gold, np.ones(len(asked)), fold, 0)[1:].reshape(len(subject.names), 300, 3).mean(1)
    forest = scores[subject.names.index(FOREST)]
    assert (forest > 0.8).all(), forest
    assert (np.delete(scores, subject.names.index(FOREST), axis=0)[:, 0] < 0.4).all()


def llama(folder: Path) -> None:
    """A base model: no chat template."""
    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(folder)
    save(tf.LlamaForCausalLM, tf.LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **special(tokenizer)), folder)


def qwen2(folder: Path) -> None:
    """As Qwen2.5-0.5B-Instruct, whose template wants a turn as one text."""
    turn = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    behind = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    template = f"{{% for message in messages %}}{turn}{{% endfor %}}{behind}"
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", chat_template=template)
    tokenizer.save_pretrained(folder)
    save(tf.Qwen2ForCausalLM, tf.Qwen2Config(vocab_size=len(tokenizer), **LANGUAGE, **special(tokenizer)), folder)


def collection(questions: list[Question]) -> Collection:
    return Collection(
        Benchmark("x", "", "", "", (), OVERALL), "drawn", tuple(questions), Pictures(Path.read_bytes), (), ""
    )


@pytest.mark.parametrize("build", [llama, qwen2, qwen3_vl])
def test_a_random_language_model_is_at_chance(build: Callable[[Path], None], tmp_path: Path) -> None:
    build(tmp_path)
    asked = [*planted("mcq", 0, 120), *(replace(one, id=f"y{one.id}") for one in planted("yes_no", 0, 120))]
    said = ask_blind(collection(asked), str(tmp_path), tmp_path / "asked")
    assert {one.id for one in asked} == said.answers.keys()
    (part,) = audit("x", asked, OVERALL, tmp_path / "out", said=said)["parts"]
    model = next(each for each in part["rules"] if each["rule"] == MODEL)
    assert model["low"] <= 0 <= model["high"] and abs(model["permuted"]) < 0.1
    assert not part["best"]["above"]


def test_a_model_that_knows_the_answers_has_all_of_them_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    llama(tmp_path)
    model, tokenizer = tf.LlamaForCausalLM.from_pretrained(tmp_path), llama_tokenizer()
    asked = []
    for one in planted("mcq", 0, 40):  # what is likeliest, found without the package, is right by definition
        text = one.prompt + "".join(f"\n{letter}. {said}" for letter, said in zip("ABCD", one.choices, strict=True))
        text += "\nAnswer with the option's letter from the given choices directly.\nAnswer:"
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        more = {letter: tokenizer(f" {letter}", add_special_tokens=False)["input_ids"] for letter in "ABCD"}
        sums = {}
        for letter, said in more.items():
            logits = model(torch.cat([ids, torch.tensor([said])], 1)).logits[0, -len(said) - 1 : -1].log_softmax(-1)
            sums[letter] = logits[range(len(said)), said].sum().item()
        asked.append(replace(one, answer=max(sums, key=sums.__getitem__)))
    said = ask_blind(collection(asked), str(tmp_path), tmp_path / "asked")
    (part,) = audit("x", asked, OVERALL, tmp_path / "out", said=said)["parts"]
    assert next(each for each in part["rules"] if each["rule"] == MODEL)["value"] == 1.0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalAnswerer, "answer", lambda *given: pytest.fail("asked again"))
        assert ask_blind(collection(asked), str(tmp_path), tmp_path / "asked") == said


def test_a_model_counts_as_chance_where_answers_are_too_many_to_list(tmp_path: Path) -> None:
    rng = random.Random(0)
    asked = [
        Question(f"{kind}{n}", "x", kind, "Which?", rng.choice("123"), (), (n,), {"task": kind})
        for n in range(60)
        for kind in ("count", "text")
    ]
    metrics = [Metric(kind, (Term({"task": kind}),), None) for kind in ("count", "text")]
    said = Said({one.id: one.answer for one in asked if one.kind == "count"}, {"model": "m"})
    found = audit("x", asked, metrics, tmp_path, said=said)
    count, text = (next(each for each in part["rules"] if each["rule"] == MODEL) for part in found["parts"])
    assert count["value"] == 1.0 and text["excess"] == 0.0 and found["model"] == {"model": "m"}
    assert "60 questions allow too many answers for a model" in found["notes"][-1]
    with pytest.raises(UserError, match="leave out --model"):
        ask_blind(collection([one for one in asked if one.kind == "text"]), "absent", tmp_path)


def test_what_cannot_be_asked_without_a_picture_is_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    tf.BertLMHeadModel(tf.BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="bert does not predict the next token"):
        ask_blind(collection(planted("mcq", 0, 20)), str(tmp_path / "bert"), tmp_path / "asked")
    llama(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=f"cannot open the model in {tmp_path}: it has no tokenizer"):
        ask_blind(collection(planted("mcq", 0, 20)), str(tmp_path), tmp_path / "asked")
