"""Templates, LLaVA's and those of language models: the ids that they give, and labels that follow the answers."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaTokenizer, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.errors import UserError
from blindspot.model.conversation import (
    CHAT_TEMPLATES,
    PICTURE,
    SYSTEM,
    RowError,
    Span,
    from_chat_template,
    from_llava,
    plain,
    v1,
)
from blindspot.model.encoding import IGNORE, Encoded, encode, token_ids

MARK, ROW = -200, {"id": "1", "image": "a.jpg"}
CORPUS = [
    SYSTEM,
    "What is the color of the cat? The cat is red and left of the box. Is it a dog? No, two cats on a table.",
    "Describe the image. A photo of a man with a bat. ASSISTANT: USER: why is the box on the left of the table?",
]


def llama_tokenizer(legacy: bool, image: bool = True) -> LlamaTokenizer:
    """LLaMA's kind of tokenizer with a small vocabulary.

    As in LLaMA's, ``USER`` is one piece and ``▁USER`` two, ``▁`` begins a text, and what is not known becomes bytes.
    """
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    pieces = sorted(trained.get_vocab())
    merges = [("U", "S"), ("E", "R"), ("▁", "US"), ("US", "ER"), ("▁", "▁")]
    merges += [
        (piece[:cut], piece[cut:]) for piece in sorted(pieces, key=len) for cut in range(1, len(piece))
        if {piece[:cut], piece[cut:]} <= set(pieces) and "USER" not in piece
    ]  # fmt: skip
    alphabet = {character for merge in merges for part in merge for character in part}
    joined = ["".join(merge) for merge in merges]
    ordered = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(alphabet), *joined]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(ordered))}
    tokenizer = LlamaTokenizer(vocab=vocab, merges=merges, legacy=legacy, add_bos_token=True)
    if image:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


TOKENIZERS = {legacy: llama_tokenizer(legacy) for legacy in (False, True)}
WITHOUT_MARK = {legacy: llama_tokenizer(legacy, image=False) for legacy in (False, True)}
both = pytest.mark.parametrize("legacy", [False, True])


def row(*values: str, first: str = "human", **more: Any) -> dict[str, Any]:
    """A row of LLaVA's JSON whose turns say ``values``."""
    names = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    turns = [{"from": names[number % 2], "value": value} for number, value in enumerate(values)]
    return {**(ROW if any("<image>" in value for value in values) else {"id": "2"}), "conversations": turns, **more}


# --- LLaVA's rules once more, written from their description alone: whole strings and lengths of prefixes


def llava_turns(data: dict[str, Any]) -> list[str]:
    turns = copy.deepcopy(data["conversations"])
    if "image" in data:
        for turn in turns:
            if "<image>" in turn["value"]:
                turn["value"] = ("<image>\n" + turn["value"].replace("<image>", "").strip()).strip()
    return [turn["value"] for turn in (turns[1:] if turns[0]["from"] == "gpt" else turns)]


def llava_ids(text: str, legacy: bool, image: bool = True) -> list[int]:
    """Ids of the slow tokenizer, which puts ``▁`` in front of a text that begins with a blank, too."""
    tokenizer = WITHOUT_MARK[legacy]
    if not image:
        return tokenizer(text).input_ids
    chunks = [tokenizer(" " * chunk.startswith(" ") + chunk).input_ids for chunk in text.split("<image>")]
    ids = list(chunks[0])
    for chunk in chunks[1:]:
        assert chunk[0] == 1
        ids += [MARK, *chunk[1:]]
    return ids


def llava_v1(data: dict[str, Any], legacy: bool) -> tuple[list[int], list[int]]:
    turns, image = llava_turns(data), "image" in data
    text = SYSTEM + " " + "".join(
        (f"USER: {said} " if number % 2 == 0 else f"ASSISTANT: {said}</s>") for number, said in enumerate(turns)
    )  # fmt: skip
    ids = llava_ids(text, legacy, image)
    labels, at = list(ids), 1
    labels[0] = IGNORE
    for number, part in enumerate(filter(None, text.split("</s>"))):
        behind = number > 0 and not legacy
        length = len(llava_ids(part, legacy, image)) - behind
        unanswered = len(llava_ids(part.split(" ASSISTANT: ")[0] + " ASSISTANT: ", legacy, image)) - 2 - behind
        labels[at : at + unanswered] = [IGNORE] * unanswered
        at += length
    assert at == len(ids), "the fixture is one that LLaVA itself would drop"
    return ids, [IGNORE if label == MARK else label for label in labels]


def llava_plain(data: dict[str, Any], legacy: bool) -> tuple[list[int], list[int]]:
    ids = llava_ids("<image>" + llava_turns(data)[1] + "\n", legacy)
    return ids, [IGNORE] * 2 + ids[2:]


def expanded(ids: list[int], labels: list[int], counts: list[int]) -> Encoded:
    """LLaVA's ids with as many placeholders for each picture as it takes."""
    left, placeholder = list(counts), TOKENIZERS[False].convert_tokens_to_ids("<image>")
    streams: tuple[list[int], list[int]] = ([], [])
    for token, label in zip(ids, labels, strict=True):
        times = left.pop(0) if token == MARK else 1
        streams[0].extend([placeholder if token == MARK else token] * times)
        streams[1].extend([label] * times)
    assert not left
    return Encoded(*streams, cut=0)


V1_ROWS = {
    "one round": row("<image>\nWhat is the color of the cat?", "Red"),
    "image last": row("What is the color of the cat?\n<image>", "The cat is red."),
    "image in the middle": row("Is the <image> cat red? ", "No"),
    "image alone": row("<image>", "two cats"),
    "rounds": row("<image>\nIs it a dog?", "No", "What is it?", "A cat, zebra", "Where?", "left of the box"),
    "text only": row("why?", "because it is ünïcode\nand 2 lines", "and 日本?", "yes"),
    "text that says image": row("what does <image> mean?", "a tag", image=None),
    "leading gpt": row("hello", "<image>\nIs it red?", "Yes", first="gpt"),
    "blanks": row("<image>\n  what  is it? ", "two  cats \n\n on  a table "),
    "answer begins with blanks": row("<image>\nwhat?", "  a cat"),
    "one character": row("<image>\n?", "é"),
}


def spans_of(data: dict[str, Any], template: Callable[..., Any] = v1) -> Any:
    return template(from_llava(data))


@both
@pytest.mark.parametrize("name", V1_ROWS)
def test_v1_gives_llavas_ids_and_labels(name: str, legacy: bool) -> None:
    data = {key: value for key, value in V1_ROWS[name].items() if value is not None}
    counts = [5] * ("image" in data)
    tokenizer = (TOKENIZERS if counts else WITHOUT_MARK)[legacy]
    got = encode(spans_of(data), tokenizer, counts)
    assert got == expanded(*llava_v1(data, legacy), counts)
    said = [text for text in llava_turns(data)[1::2]]
    answers = tokenizer.decode([label for label in got.labels if label != IGNORE])
    assert answers.replace(" ", "") == "".join(f"{text}</s>" for text in said).replace(" ", "")


@both
@pytest.mark.parametrize("prompt", ["Describe the image.\n<image>", "<image>\nDescribe the image."])
@pytest.mark.parametrize("caption", ["a man with a bat", "two  cats", "東京 tower\nby night ", " red"])
def test_plain_gives_llavas_ids_and_labels(prompt: str, caption: str, legacy: bool) -> None:
    data = row(prompt, caption)
    got = encode(spans_of(data, plain), TOKENIZERS[legacy], [4])
    assert got == expanded(*llava_plain(data, legacy), [4])
    assert got.labels[:5] == [IGNORE] * 5 and IGNORE not in got.labels[5:]
    assert got.ids[0] == 1 and got.ids[-1] != 2


@both
@pytest.mark.parametrize("text", ["a cat", " a cat", "  a cat", " ", "\n a", " ASSISTANT: two</s>", "▁a"])
def test_a_text_behind_a_picture_has_all_its_blanks_and_the_one_that_begins_a_text(text: str, legacy: bool) -> None:
    """As LLaMA's slow tokenizer of sentencepiece has it."""
    tokenizer = TOKENIZERS[legacy]
    ids, supervised = token_ids([PICTURE, Span(text, supervised=True)], tokenizer, [1])
    pieces = "".join(tokenizer.convert_ids_to_tokens(ids[2:])).replace("<0x0A>", "\n")
    assert pieces == "▁" + text.replace(" ", "▁") and all(supervised[2:])


words = st.lists(st.sampled_from(["cat", "the", "red.", "USER", "9", "é", "\n", "zq", "<unk>"]), min_size=1, max_size=6)


@settings(max_examples=40)
@given(
    turns=st.lists(words.map(" ".join).filter(str.strip), min_size=2, max_size=8),
    image=st.booleans(),
    legacy=st.booleans(),
)
def test_any_conversation_has_llavas_ids_and_labels(turns: list[str], image: bool, legacy: bool) -> None:
    turns = turns[: len(turns) // 2 * 2]
    turns[0] = "<image>\n" + turns[0] if image else turns[0]
    data = row(*turns)
    got = encode(spans_of(data), TOKENIZERS[legacy], [3] * image)
    assert got == expanded(*llava_v1(data, legacy), [3] * image)


def test_a_genuine_unknown_token_stays_and_is_supervised() -> None:
    got = encode(spans_of(row("<image>\nwhat is <unk>?", "a <unk> box")), TOKENIZERS[False], [2])
    assert got.ids.count(0) == 2
    assert got.labels.count(0) == 1


def test_text_that_looks_like_the_template_is_no_answer() -> None:
    said = "it says ASSISTANT: red</s>USER: no"
    got = encode(spans_of(row("<image>\nwhat?", said, f"{said} ASSISTANT: ", "two")), TOKENIZERS[False], [2])
    answers = TOKENIZERS[False].decode([label for label in got.labels if label != IGNORE])
    assert answers.replace(" ", "") == f"{said}</s>two</s>".replace(" ", "")


def test_text_behind_a_picture_begins_as_a_text_does() -> None:
    tokenizer = TOKENIZERS[False]
    ids = encode(spans_of(V1_ROWS["one round"]), tokenizer, [2]).ids
    behind = ids.index(tokenizer.convert_tokens_to_ids("<image>")) + 2
    assert tokenizer.convert_ids_to_tokens(ids[behind - 3 : behind + 2]) == ["▁", *["<image>"] * 2, "▁", "<0x0A>"]


@both
def test_the_v1_prompt_is_where_the_answer_begins(legacy: bool) -> None:
    messages, tokenizer = from_llava(V1_ROWS["rounds"]), TOKENIZERS[legacy]
    ids, _ = token_ids(v1(messages[:-1], prompt=True), tokenizer, [5])
    answered = encode(v1(messages), tokenizer, [5])
    assert answered.ids[: len(ids)] == ids
    assert (answered.labels[len(ids) - 1], answered.labels[len(ids)]) == (IGNORE, answered.ids[len(ids)])


def test_a_list_of_pictures_keeps_every_mark_and_a_single_one_is_marked_once() -> None:
    several = from_llava(row("left <image> or\n<image>?", "left", image=["a.jpg", "b.jpg"]))
    assert "".join(span.text for span in v1(several)).count("USER: <image>\n<image>\nleft  or\n? ASSISTANT: left") == 1
    got = encode(v1(several), TOKENIZERS[False], [2, 3])
    assert got.ids.count(TOKENIZERS[False].convert_tokens_to_ids("<image>")) == 5
    assert "".join(span.text for span in spans_of(row("<image> or <image>?", "left"))).count("<image>") == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"id": 3}, "not a list of turns"),
        (row("a", "b", conversations="a"), "not a list of turns"),
        (row("a", "b", conversations=[{"from": "human"}]), "not a list of turns"),
        (row("a", "b", conversations=[{"from": "human", "value": 3}]), "not a list of turns"),
        (row("<image>", "b", image={"path": "a"}), "neither a path nor a list"),
        (row("a", "b", conversations=[{"from": "human", "value": "a"}] * 2), "do not alternate"),
        (row("a", "b", conversations=[{"from": "bard", "value": "a"}]), "do not alternate"),
        (row("what?", "a cat", image="a.jpg"), "names 1 pictures and marks the places of 0"),
        (row("<image>", "a", "<image>", "b"), "names 1 pictures and marks the places of 2"),
        (row("<image> is", "here", first="gpt"), "names 1 pictures and marks the places of 0"),
        (row("<image>\nwhat?", ""), "an answer is empty"),
        (row("<image>\nwhat?", " \n"), "an answer is empty"),
        (row("what?", "<image>"), "an answer has a picture"),
        (row("<image>\nwhat?", "a cat", "", "b"), "a question is empty"),
        (row("<image>\nwhat?"), "has no answer"),
        (row("<image>\nwhat?", "a cat", "and?"), "has no answer"),
        (row("hello", first="gpt"), "has no answer"),
        ({"conversations": []}, "has no answer"),
    ],
)
def test_a_row_that_cannot_be_labelled_says_why(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        spans_of(data)


@pytest.mark.parametrize("turns", [("<image>", "a", "b?", "c"), ("what?", "a")])
def test_plain_takes_captions_only(turns: tuple[str, ...]) -> None:
    with pytest.raises(RowError, match="a caption is one turn"):
        plain(from_llava(row(*turns)))


def test_what_is_too_long_is_cut_and_what_then_says_nothing_is_refused() -> None:
    spans, tokenizer = spans_of(V1_ROWS["rounds"]), TOKENIZERS[False]
    whole = encode(spans, tokenizer, [5])
    first = next(at for at, label in enumerate(whole.labels) if label != IGNORE)
    cut = encode(spans, tokenizer, [5], max_length=first + 1)
    assert (cut.ids, cut.labels) == (whole.ids[: first + 1], whole.labels[: first + 1])
    assert cut.cut == len(whole.ids) - first - 1 and whole.cut == 0
    with pytest.raises(RowError, match=f"nothing of its answers is within the first {first} of its {len(whole.ids)}"):
        encode(spans, tokenizer, [5], max_length=first)
    late = v1(from_llava(row("what?", "a cat", "<image>\nand this?", "a dog")))
    start = encode(late, tokenizer, [5]).ids.index(tokenizer.convert_tokens_to_ids("<image>"))
    with pytest.raises(RowError, match="a picture goes beyond"):
        encode(late, tokenizer, [5], max_length=start + 4)
    assert encode(late, tokenizer, [5], max_length=start + 5).cut


def test_tokenizers_that_cannot_do_it_are_refused() -> None:
    spans = spans_of(V1_ROWS["one round"])
    with pytest.raises(UserError, match="no <image> token"):
        encode(spans, WITHOUT_MARK[False], [2])
    with pytest.raises(ValueError, match="2 numbers of tokens for 1 pictures"):
        encode(spans, TOKENIZERS[False], [2, 2])
    with pytest.raises(RowError, match="its text says <image>"):
        encode(spans_of(V1_ROWS["text that says image"]), TOKENIZERS[False])
    with pytest.raises(UserError, match="fast tokenizer"):
        encode(spans, type("Slow", (), {"is_fast": False})())
    with pytest.raises(RowError, match="it has no answer"):
        encode(v1(from_llava(row("<image>\nwhat?")), prompt=True), TOKENIZERS[False], [2])


# --- the same text as Jinja templates


@pytest.mark.parametrize("name", V1_ROWS)
def test_the_v1_chat_template_renders_the_spans(name: str) -> None:
    messages, tokenizer = from_llava(V1_ROWS[name]), TOKENIZERS[False]
    processor = LlavaProcessor(CLIPImageProcessorPil(), tokenizer, chat_template=CHAT_TEMPLATES["v1"])
    text = "".join(span.text for span in v1(messages))
    assert processor.apply_chat_template(messages) == text
    asked = "".join(span.text for span in v1(messages[:-1], prompt=True))
    assert asked.endswith("ASSISTANT:")
    for generation in (False, True):
        assert processor.apply_chat_template(messages[:-1], add_generation_prompt=generation) == asked
    strings = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]
    rendered = tokenizer.apply_chat_template(strings, chat_template=CHAT_TEMPLATES["v1"], tokenize=False)
    assert rendered == "".join(span.text for span in v1(strings)) == f"{SYSTEM} USER: why? ASSISTANT: so</s>"


def test_the_plain_chat_template_renders_the_spans() -> None:
    messages, tokenizer = from_llava(row("Describe it.\n<image>", " a cat")), TOKENIZERS[False]
    processor = LlavaProcessor(CLIPImageProcessorPil(), tokenizer, chat_template=CHAT_TEMPLATES["plain"])
    assert processor.apply_chat_template(messages) == "".join(s.text for s in plain(messages)) == "<image> a cat\n"
    asked = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    assert asked == "".join(span.text for span in plain(messages[:1], prompt=True)) == "<image>"


@both
def test_transformers_mask_of_assistants_tokens_agrees_with_the_labels(legacy: bool) -> None:
    messages, tokenizer = from_llava(V1_ROWS["text only"]), TOKENIZERS[legacy]
    masked = tokenizer.apply_chat_template(
        messages, chat_template=CHAT_TEMPLATES["v1"], return_assistant_tokens_mask=True, return_dict=True,
    )  # fmt: skip
    got = encode(v1(messages), tokenizer)
    assert [int(label != IGNORE) for label in got.labels[-len(masked["input_ids"]) :]] == masked["assistant_masks"]


def asked(*values: str) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]
    return {"image": "a.jpg", "conversations": turns}


ONE_ROUND = asked("What is the color of the cat?\n<image>", "Red")
ROUNDS = asked("<image>\nIs it a dog?", "No", "What is it?", "A cat, zebra", "Where?", "left of the box")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace(  # as Qwen3's does: only the last answer shows that nothing was thought
    "{{ m['content'] }}",
    "{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}",
)
RAISING = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ bos_token }}"


def byte_tokenizer(template: str | None, begin: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, Qwen's kind; with a beginning token, Llama 3's kind."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["What is the color of the cat? The cat is left of the box."], trainer)
    if begin:
        core.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=begin,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:],
        chat_template=template,
    )


def supervised_text(spans: Any) -> list[str]:
    return [span.text for span in spans if span.supervised]


@pytest.mark.parametrize("template", [CHATML, TAGGED], ids=["differences", "generation tags"])
def test_a_language_models_own_template_supervises_the_answers(template: str) -> None:
    tokenizer = byte_tokenizer(template)
    messages = from_llava(ROUNDS)
    spans = from_chat_template(messages, tokenizer)
    answers = [message["content"][-1]["text"] for message in messages[1::2]]
    assert supervised_text(spans) == [f"{answer}<|im_end|>" for answer in answers]
    got = encode(spans, tokenizer, [3])
    assert tokenizer.decode([label for label in got.labels if label != IGNORE]) == "".join(supervised_text(spans))
    whole = "".join(span.text for span in spans)
    assert whole.startswith("<|im_start|>user\n<image>\nIs it a dog?<|im_end|>\n<|im_start|>assistant\nNo<|im_end|>\n")
    assert got.ids == tokenizer(whole.replace("<image>", "<image>" * 3)).input_ids


def test_tags_and_transformers_mask_agree() -> None:
    tokenizer, messages = byte_tokenizer(TAGGED), [{"role": "user", "content": "why?"}]
    messages += [{"role": "assistant", "content": "because"}, *messages, {"role": "assistant", "content": " so\n"}]
    masked = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    got = encode(from_chat_template(messages, tokenizer), tokenizer)
    assert got.ids == masked["input_ids"]
    assert [int(label != IGNORE) for label in got.labels] == masked["assistant_masks"]


def test_the_prompt_is_the_text_up_to_the_answer() -> None:
    tokenizer, messages = byte_tokenizer(CHATML), from_llava(ONE_ROUND)
    asked = from_chat_template(messages[:1], tokenizer, prompt=True)
    assert not supervised_text(asked)
    ids, supervised = token_ids(asked, tokenizer, [3])
    answered = encode(from_chat_template(messages, tokenizer), tokenizer, [3])
    assert not any(supervised)
    assert answered.ids[: len(ids)] == ids and answered.labels[: len(ids)] == [IGNORE] * len(ids)
    assert answered.labels[len(ids)] != IGNORE


def test_a_template_that_changes_earlier_turns_is_refused_where_it_matters() -> None:
    tokenizer = byte_tokenizer(THINKING)
    one = from_chat_template(from_llava(ONE_ROUND), tokenizer)
    assert supervised_text(one) == ["<think>\n\n</think>\n\nRed<|im_end|>"]
    with pytest.raises(RowError, match="up to 2 differently when more follow"):
        from_chat_template(from_llava(ROUNDS), tokenizer)


def test_what_no_template_can_render_says_why() -> None:
    messages = from_llava(ONE_ROUND)
    with pytest.raises(UserError, match="has no chat template"):
        from_chat_template(messages, byte_tokenizer(None))
    with pytest.raises(RowError, match="refuses it: one turn only"):
        from_chat_template(messages, byte_tokenizer(RAISING))
    literal = [{"role": "user", "content": messages[0]["content"]}, {"role": "assistant", "content": "an <image>"}]
    with pytest.raises(RowError, match="its text says <image>"):
        from_chat_template(literal, byte_tokenizer(CHATML))


def test_a_template_that_says_the_beginning_token_gets_it_once() -> None:
    tokenizer = byte_tokenizer("{{ bos_token }}" + CHATML, begin="<|endoftext|>")
    begin = tokenizer.bos_token_id
    assert tokenizer("cat").input_ids[0] == begin
    ids = encode(from_chat_template(from_llava(ONE_ROUND), tokenizer), tokenizer, [2]).ids
    assert ids.count(begin) == 1 and ids[0] == begin
    assert token_ids([Span("cat")], tokenizer)[0] == tokenizer("cat").input_ids
