"""A word-level tokenizer for closed vocabularies, in the format that transformers loads anywhere."""

from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

PAD, BEGIN, END, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"


class Words(NamedTuple):
    """How many ids a tokenizer has, and its special ones."""

    count: int
    pad: int
    begin: int
    end: int
    image: int


CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% else %} {{ message['content'] }} </s>{% endif %}{% endfor %}"
)


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one id per word; ids depend only on the set of words."""
    special = (PAD, BEGIN, END, UNKNOWN, IMAGE)
    ordered = [*special, *sorted(set(words) - set(special))]
    core = Tokenizer(WordLevel({word: index for index, word in enumerate(ordered)}, unk_token=UNKNOWN))
    core.pre_tokenizer = Sequence([Split(IMAGE, "isolated"), WhitespaceSplit()])
    core.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, ordered.index(BEGIN))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE],
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def words_of(tokenizer: PreTrainedTokenizerFast) -> Words:
    """The ids that a model built for ``tokenizer`` must know."""
    ids = tokenizer.get_vocab()
    return Words(len(tokenizer), ids[PAD], ids[BEGIN], ids[END], ids[IMAGE])
