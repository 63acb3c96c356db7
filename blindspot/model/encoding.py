"""Token ids and labels of a conversation.

Ids follow LLaVA id for id (``tokenizer_image_token`` of its ``mm_utils.py``). Labels follow the spans, never lengths of
re-tokenised prefixes, which go wrong wherever a token straddles one; LLaVA then drops the row without a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blindspot.errors import UserError
from blindspot.model.conversation import RowError, Span
from blindspot.model.tokenizer import IMAGE

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """A conversation as a model is trained on it."""

    ids: list[int]  # token ids; a picture is as many placeholder ids as it takes
    labels: list[int]  # the id where it is supervised, else `IGNORE`; as long as ``ids``, not shifted
    cut: int  # how many tokens were cut off at the end


def encode(
    spans: Sequence[Span],
    tokenizer: Any,
    image_tokens: Sequence[int] = (),
    max_length: int = 2048,
) -> Encoded:
    """Token ids and labels of a conversation to train on.

    Args:
        spans: from a template.
        tokenizer: a fast one. Its ``<image>`` token is the placeholder.
        image_tokens: how many tokens each picture takes, in reading order.
        max_length: what is longer is cut at the end, pictures counted.
    """
    ids, supervised = token_ids(spans, tokenizer, image_tokens)
    if not any(supervised):
        raise RowError("it has no answer")
    if not any(supervised[:max_length]):
        raise RowError(f"nothing of its answers is within the first {max_length} of its {len(ids)} tokens")
    if image_tokens and _placeholder(tokenizer) in ids[max_length:]:
        raise RowError(f"a picture goes beyond the first {max_length} of its {len(ids)} tokens")
    labels = [token if answer else IGNORE for token, answer in zip(ids, supervised, strict=True)]
    return Encoded(ids[:max_length], labels[:max_length], cut=max(0, len(ids) - max_length))


def token_ids(spans: Sequence[Span], tokenizer: Any, image_tokens: Sequence[int] = ()) -> tuple[list[int], list[bool]]:
    """Token ids of spans, and which are supervised; for a prompt too.

    As in LLaVA, the text is split at the pictures and each piece tokenised on its own, so that the text behind a
    picture begins as a text does, a blank of its own included; the beginning token comes once. A token belongs to the
    span in which its first character that is no blank lies (of blanks only: its first character).
    """
    if not tokenizer.is_fast:
        raise UserError("labels need a fast tokenizer, one that says where in the text a token is")
    chunks: list[list[Span]] = [[]]
    for span in spans:
        if span.picture:
            chunks.append([])
        else:
            chunks[-1].append(span)
    if len(chunks) != len(image_tokens) + 1:
        raise ValueError(f"{len(image_tokens)} numbers of tokens for {len(chunks) - 1} pictures")
    placeholder = _placeholder(tokenizer)
    if image_tokens and placeholder is None:
        raise UserError(f"this tokenizer has no {IMAGE} token; add it as a special token")
    ids: list[int] = []
    opening = "".join(span.text for span in chunks[0])
    if not tokenizer.bos_token or not opening.startswith(str(tokenizer.bos_token)):  # many chat templates say it
        ids = [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id]
    supervised = [False] * len(ids)
    for chunk, count in zip(chunks, [*image_tokens, 0], strict=True):
        words, answers = _tokenise(chunk, tokenizer)
        if placeholder in words:
            raise RowError(f"its text says {IMAGE}, which this tokenizer reads as a picture")
        ids += words if placeholder is None else words + [placeholder] * count
        supervised += answers + [False] * count
    return ids, supervised


def _tokenise(chunk: Sequence[Span], tokenizer: Any) -> tuple[list[int], list[bool]]:
    text = "".join(span.text for span in chunk)
    supervised = [span.supervised for span in chunk for _ in span.text]
    if text.startswith((" ", "▁")):
        plain, blank = (tokenizer(words, add_special_tokens=False)["input_ids"] for words in ("a", " a"))
        if plain == blank:  # it takes a first blank for the ``▁`` that begins every text, as LLaMA's alone do
            text, supervised = f" {text}", [supervised[0], *supervised]
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owners = (
        next((at for at in range(start, end) if not text[at].isspace()), min(start, len(text) - 1))
        for start, end in encoding["offset_mapping"]
    )
    return list(encoding["input_ids"]), [supervised[at] for at in owners]


def _placeholder(tokenizer: Any) -> int | None:
    token = tokenizer.convert_tokens_to_ids(IMAGE)
    return None if token == tokenizer.unk_token_id else token


def ends_apart(tokenizer: Any, text: str) -> bool:
    """Whether what follows a text begins without a space: it is empty, or ends in white space or a special token."""
    return text == "" or text[-1].isspace() or text.endswith(tuple(tokenizer.all_special_tokens))
