"""Spans from the chat template of any language model's tokenizer: what is supervised is what the assistant says."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from blindspot.errors import UserError
from blindspot.model.conversation import RowError, Span, from_chat_template, from_llava
from blindspot.model.encoding import IGNORE, encode, token_ids


def row(*values: str) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]
    return {"image": "a.jpg", "conversations": turns}


ONE_ROUND = row("What is the color of the cat?\n<image>", "Red")
ROUNDS = row("<image>\nIs it a dog?", "No", "What is it?", "A cat, zebra", "Where?", "left of the box")

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
