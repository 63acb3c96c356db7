"""The local answerer on our variants: batches and shared pictures change no answer, and nothing stops a run."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from blindspot.errors import UserError
from blindspot.evaluation.adapters import adapter_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply, Sampling, numbered
from blindspot.evaluation.models import prefix
from blindspot.evaluation.models.local import LocalAnswerer, check_batch, weights_sha256
from blindspot.evaluation.models.prefix import GROWTH, Prefix, spread
from blindspot.evaluation.models.rows import PromptRow, batches, groups

from .local_toy import VARIANTS, one_by_one, opened, png, questions, variant

each = pytest.mark.parametrize("kind", list(VARIANTS))
OPTIONS = {"A": "w1", "B": "w2 w3", "C": "w4 w5 w6"}


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Every test here computes with small models."""


def answers(answerer: LocalAnswerer, asked: list[Asked]) -> dict[str, Reply]:
    replies = list(answerer.answer(asked))
    assert sorted(reply.id for reply in replies) == sorted(one.id for one in asked)
    return {reply.id: reply for reply in replies}


def said(answerer: LocalAnswerer, asked: list[Asked]) -> dict[str, tuple[str, str]]:
    return {name: (reply.raw, reply.stopped) for name, reply in answers(answerer, asked).items()}


# --- exact


@pytest.mark.parametrize(("kind", "batch"), [*((kind, 3) for kind in VARIANTS), ("plain", 32), ("gated", 32)])
def test_shared_pictures_change_no_answer(kind: str, batch: int) -> None:
    model, processor = variant(kind)
    asked = [*questions(), *[Asked(f"blind {n}", Prompt((f"w1 w{n}",), longest=6)) for n in range(2, 4)]]
    answerer = LocalAnswerer(model, processor, batch=batch)
    assert answerer.identity["pictures"] == "once for their questions"
    expected = one_by_one(model, processor, asked)
    assert said(answerer, asked) == expected
    assert len(set(expected.values())) > 3


@each
def test_whole_prompts_in_batches_change_no_answer(kind: str) -> None:
    model, processor = variant(kind)
    asked = questions()
    assert said(LocalAnswerer(model, processor, share=False), asked) == one_by_one(model, processor, asked)


@pytest.mark.parametrize("kind", ["plain", "mrope", "gated"])
def test_several_pictures_and_beginnings_of_several_lengths(kind: str) -> None:
    model, processor = variant(kind)
    begun = [
        replace(one, prompt=Prompt(("w1 " * (n % 3), PICTURE, f" {one.prompt.content[-1]}"), whole=True, longest=4))
        for n, one in enumerate(questions((3, 2, 1)))
    ]
    ends = [replace(one, prompt=Prompt(("w1 ", PICTURE), whole=True, longest=4)) for one in questions((2, 1))]
    for asked in (questions(pictures=2), begun, ends):  # a prompt may end in its picture
        assert said(LocalAnswerer(model, processor), asked) == one_by_one(model, processor, asked)


@each
def test_likelihoods_are_those_of_whole_prompts(kind: str) -> None:
    model, processor = variant(kind)
    asked = questions(options=OPTIONS)
    shared = answers(LocalAnswerer(model, processor), asked)
    alone = answers(LocalAnswerer(model, processor, share=False), asked)
    for one in asked:
        assert shared[one.id].likelihood == pytest.approx(alone[one.id].likelihood, abs=1e-4)
        assert shared[one.id].raw == alone[one.id].raw


def test_an_option_may_hold_a_token_that_ends_answers() -> None:
    model, processor = variant("plain")
    asked = questions((2, 1), options=OPTIONS)
    expected = answers(LocalAnswerer(model, processor), asked)
    model.generation_config.eos_token_id = processor.tokenizer("w2 w4")["input_ids"][-2:]
    for share in (True, False):
        for name, reply in answers(LocalAnswerer(model, processor, share=share), asked).items():
            assert reply.likelihood == pytest.approx(expected[name].likelihood, abs=1e-4)


def test_a_likelihood_is_the_sum_over_an_options_tokens() -> None:
    model, processor = variant("plain")
    (asked,) = questions((1,), options=OPTIONS)
    (reply,) = LocalAnswerer(model, processor).answer([asked])
    family = adapter_of(model.config.model_type)
    text = family.render(processor, asked.prompt)
    assert reply.likelihood is not None
    for label, option in OPTIONS.items():
        inputs = family.inputs(processor, [f"{text} {option}"], [opened(asked)])
        count = len(option.split())
        with torch.no_grad():
            logits_nv = model(**inputs).logits[0, -count - 1 : -1].log_softmax(dim=-1)
        ids_n = inputs["input_ids"][0, -count:]
        assert reply.likelihood[label] == pytest.approx(float(logits_nv.gather(1, ids_n[:, None]).sum()), abs=1e-4)
    assert reply.raw == OPTIONS[max(reply.likelihood, key=reply.likelihood.__getitem__)]


def test_an_answer_ends_where_the_model_ends_it_or_at_its_limit() -> None:
    model, processor = variant("plain")
    model.generation_config.eos_token_id = [*range(2, 12)]  # some end early, some late, some not at all
    asked = questions((9, 7))
    asked = [replace(one, prompt=replace(one.prompt, longest=3 + 13 * (n % 2))) for n, one in enumerate(asked)]
    expected, answerer = one_by_one(model, processor, asked), LocalAnswerer(model, processor)
    assert answerer.identity["pictures"] == "once for their questions"
    assert said(answerer, asked) == expected
    assert {stopped for _, stopped in expected.values()} == {"end", "length"}
    assert len({len(raw.split()) for raw, _ in expected.values()}) > 3


def test_32_pictures_in_one_question_are_computed_once_for_all_of_its_samples() -> None:
    model, processor = variant("plain")
    asked = questions((2,), pictures=32, longest=3)
    assert said(LocalAnswerer(model, processor), asked) == one_by_one(model, processor, asked)


# --- drawn


def drawn(one: Asked, samples: int, temperature: float = 1.5, top_p: float = 0.9) -> list[Asked]:
    names = [numbered(one.id, place) for place in range(samples)]
    return [replace(one, id=name, draw=Sampling(temperature, top_p, sum(name.encode()))) for name in names]


@each
def test_what_is_drawn_depends_on_no_batch_and_no_shared_picture(kind: str) -> None:
    model, processor = variant(kind)
    asked = [each for one in questions((3, 1, 2)) for each in drawn(one, 3)]
    expected = said(LocalAnswerer(model, processor), asked)
    assert len(set(expected.values())) > 12
    for answerer in (LocalAnswerer(model, processor, batch=2), LocalAnswerer(model, processor, batch=5, share=False)):
        assert said(answerer, asked[::-1]) == expected
    some = asked[4:9]
    assert said(LocalAnswerer(model, processor), some) == {one.id: expected[one.id] for one in some}


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.75), (2.0, 0.6), (1.0, 1e-9)])
def test_tokens_are_drawn_as_often_as_the_nucleus_says(temperature: float, top_p: float) -> None:
    count, logits_v = 4000, torch.tensor([0.3, 2.0, -1.0, 2.0, -torch.inf, 1.2])
    choose = prefix.Chooser([Sampling(temperature, top_p, seed) for seed in range(count)])
    found_v = choose(logits_v.expand(count, -1), range(count)).bincount(minlength=6) / count
    share_v, kept_v, reached = (logits_v / temperature).softmax(0), torch.zeros(6), 0.0
    for token in (1, 3, 5, 0, 2):  # the likeliest first, of equal ones the first
        if reached < top_p:
            kept_v[token] = share_v[token]
        reached += float(share_v[token])
    assert found_v.tolist() == pytest.approx((kept_v / kept_v.sum()).tolist(), abs=0.03)
    assert not found_v[kept_v == 0].any()


def test_tokens_are_counted_and_a_thought_that_is_cut_off_is_told() -> None:
    model, processor = variant("plain")
    (one,) = questions((1,), longest=4)
    (reply,) = LocalAnswerer(model, processor).answer([one])
    assert reply.tokens and reply.tokens[0] > reply.tokens[1] == 4 and reply.stopped == "length"
    opening = Prompt((PICTURE, " w1 <think>\n"), whole=True, longest=4)
    (reply,) = LocalAnswerer(model, processor).answer([replace(one, prompt=opening)])
    assert reply.stopped == "thought"


# --- once


class Counting:
    """An image processor that counts pictures."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor, self.pictures = image_processor, 0

    def __call__(self, images: Any, **kwargs: Any) -> Any:
        self.pictures += len(images)
        return self.image_processor(images, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.image_processor, name)


def test_a_picture_goes_through_processor_and_encoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = variant("plain")
    answerer = LocalAnswerer(model, processor)
    assert answerer.identity["pictures"] == "once for their questions"
    resize, encode, encoded = Counting(processor.image_processor), model.model.get_image_features, []

    def counted(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        encoded.append(len(pixel_values))
        return encode(pixel_values, *args, **kwargs)

    monkeypatch.setattr(processor, "image_processor", resize)
    monkeypatch.setattr(model.model, "get_image_features", counted)
    assert len(answers(answerer, questions((5, 1, 3)))) == 9
    assert (resize.pictures, encoded) == (3, [3])


# --- what goes wrong


def test_a_question_that_cannot_be_asked_is_its_own_error() -> None:
    model, processor = variant("plain")
    good = questions()
    bad = [
        Asked("broken", Prompt((PICTURE, "w1")), (b"no image",), ("broken",)),
        Asked("cut", Prompt((PICTURE, "w1")), (png(1)[:99],), ("cut",)),
        Asked("thin", Prompt((PICTURE, "w1")), (png(1, 900, 4),), ("thin",)),
        Asked("unmarked", Prompt(("w1",)), good[0].pictures, good[0].picture_keys),
        Asked("unpictured", Prompt((PICTURE, " w1"), whole=True)),
        Asked("long", Prompt((PICTURE, "w1 " * 2000)), good[0].pictures, good[0].picture_keys),
    ]
    replies = answers(LocalAnswerer(model, processor), [*bad, *good])
    expected = one_by_one(model, processor, good)
    assert {name: (reply.raw, reply.stopped) for name, reply in replies.items() if reply.error is None} == expected
    for one in bad:
        assert replies[one.id].error and "\n" not in str(replies[one.id].error)
    assert replies["long"].error == "the prompt takes 2017 tokens, and the model reads at most 1024"


@pytest.mark.parametrize("share", [True, False])
def test_less_at_a_time_when_memory_runs_out(share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = variant("plain")
    asked = questions((7, 2, 1))
    expected = one_by_one(model, processor, asked)
    answerer = LocalAnswerer(model, processor, share=share)
    assert answerer.identity["dtype"] == "float32"  # what is tried before the first question is tried by now
    body, most = model.model.language_model.forward, 2

    def short_of_memory(inputs_embeds: Tensor, **kwargs: Any) -> Any:
        if len(inputs_embeds) > most:
            raise torch.OutOfMemoryError("too many rows")
        return body(inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(model.model.language_model, "forward", short_of_memory)
    assert said(answerer, asked) == expected
    assert answerer.batch <= 2
    most = 0
    assert all("memory" in str(reply.error) for reply in answers(answerer, asked).values())


def test_one_shortage_of_memory_makes_batches_smaller_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = variant("plain")
    answerer, prefixes = LocalAnswerer(model, processor, batch=8), prefix.prefixes

    def few_at_a_time(model: Any, groups: Any, most: int) -> Any:
        if len(groups) > 4:
            raise torch.OutOfMemoryError("too many pictures")
        return prefixes(model, groups, most)

    monkeypatch.setattr(prefix, "prefixes", few_at_a_time)
    assert not [reply for reply in answers(answerer, questions([1] * 32)).values() if reply.error]
    assert answerer.batch == 4


def test_only_a_question_that_stood_alone_is_given_up_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = variant("plain")
    asked, generate = questions((3, 2)), LocalAnswerer._generate

    def full_at_the_last(self: LocalAnswerer, rows: Any) -> Any:
        *first, last = generate(self, rows)
        yield from first
        if len(rows) > 1:
            raise torch.OutOfMemoryError("the others are still there")
        yield last

    monkeypatch.setattr(LocalAnswerer, "_generate", full_at_the_last)
    assert said(LocalAnswerer(model, processor, share=False), asked) == one_by_one(model, processor, asked)


# --- what it says about itself


def test_a_model_that_reads_on_from_the_question_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = variant("plain")
    body = model.model.language_model.forward

    def looks_ahead(inputs_embeds: Tensor, **kwargs: Any) -> Any:
        return body(inputs_embeds=inputs_embeds + 0.1 * inputs_embeds.mean(dim=1, keepdim=True), **kwargs)

    monkeypatch.setattr(model.model.language_model, "forward", looks_ahead)
    answerer = LocalAnswerer(model, processor, batch=1)
    assert "logits differ by" in answerer.identity["pictures"]
    asked = questions()
    assert said(answerer, asked) == one_by_one(model, processor, asked)


def test_a_model_that_computes_no_numbers_is_refused_before_it_answers() -> None:
    model, processor = variant("plain")
    model.half().model.language_model.layers[0].mlp.down_proj.weight.data[:] *= 60_000  # float16 holds 65,504 at most
    with pytest.raises(UserError, match="in float16 this model computes no numbers; choose another --dtype"):
        next(LocalAnswerer(model, processor).answer(questions()))


def test_settings_that_reach_beyond_the_likeliest_token_are_left_to_generate() -> None:
    model, processor = variant("plain")
    model.generation_config.no_repeat_ngram_size = 1
    answerer = LocalAnswerer(model, processor)
    assert "no_repeat_ngram_size" in answerer.identity["pictures"]
    asked = questions()
    replies = said(answerer, asked)
    assert replies == one_by_one(model, processor, asked)
    assert all(len(set(raw.split())) == len(raw.split()) for raw, _ in replies.values())


def test_the_identity_follows_the_weights_and_is_json() -> None:
    model, processor = variant("plain")
    identity = LocalAnswerer(model, processor).identity
    assert json.loads(json.dumps(identity)) == identity
    before = weights_sha256(model)
    assert identity["weights_sha256"] == before
    model.lm_head.weight.data[0, 0] += 1
    assert weights_sha256(model) != before


def test_check_batch_names_the_questions_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = variant("plain")
    answerer, asked = LocalAnswerer(model, processor), questions()
    assert check_batch(answerer, asked) == []
    generate = prefix.generate

    def hasty(model: Any, state: Any, rows: list[PromptRow], ends: Any) -> Any:
        return generate(model, state, [replace(row, limit=min(row.limit, 2)) for row in rows], ends)

    monkeypatch.setattr(prefix, "generate", hasty)
    differing = check_batch(answerer, asked)
    assert {line.split(":")[0] for line in differing} <= {one.id for one in asked}
    assert len(differing) > 3


few = settings(max_examples=50)
askings = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40)


def asked(pairs: list[tuple[int, int]]) -> list[Asked]:
    """Questions about a picture each, or, of picture 0, about none; with a number of characters."""
    return [
        Asked(str(number), Prompt(("x" * length,)), (b"",) * bool(picture), (f"p{picture}",) * bool(picture))
        for number, (picture, length) in enumerate(pairs)
    ]


@few
@given(askings, st.integers(1, 9))
def test_batches_hold_every_question_once_and_no_picture_twice(pairs: list[tuple[int, int]], size: int) -> None:
    questions = asked(pairs)
    apart = batches(questions, size, share=False)
    lengths = [(len(one.pictures), len(one.prompt.content[0])) for batch in apart for one in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in apart[:-1]] == [size] * (len(apart) - 1)
    made = batches(questions, size)
    assert sorted(one.id for batch in made for one in batch) == sorted(one.id for one in questions)
    home: dict[tuple[str, ...], int] = {}
    for number, batch in enumerate(made):
        assert len(batch) <= size or len(groups(batch)) == 1
        for one in batch:
            if one.picture_keys:
                assert home.setdefault(one.picture_keys, number) == number


def cache(seed: int, rows: int, length: int) -> DynamicCache:
    made, generator = DynamicCache(), torch.Generator().manual_seed(seed)
    for layer in range(2):
        keys, values = torch.randn(2, rows, 3, length, 4, generator=generator)
        made.update(keys, values, layer)
    return made


def kept(of: DynamicCache, row: int) -> Prefix:
    return Prefix(of, row, of.get_seq_length(), torch.zeros(1))


def test_rows_begin_with_their_prefix_and_keep_it_where_an_update_is_padding() -> None:
    one, other = cache(0, 2, 5), cache(1, 1, 3)
    shared = kept(one, 1)
    rows, ends = [shared, shared, kept(other, 0), kept(one, 0)], [5, 5, 6, 7]
    made = spread(rows, ends, length=5, room=8)
    assert made.get_seq_length() == 5
    made.keep(torch.tensor([[False, False], [False, False], [True, False], [True, True]]))
    new = torch.randn(4, 3, 2, 4)
    for layer in range(2):
        keys, values = made.update(new, -new, layer)
        assert keys.shape[2] == made.get_seq_length(layer) == 7
        for number, (row, end) in enumerate(zip(rows, ends, strict=True)):
            old: Any = row.cache.layers[layer]
            for got, before, fresh in ((keys, old.keys, new), (values, old.values, -new)):
                start = end - row.length
                assert not got[number, :, :start].any()
                assert torch.equal(got[number, :, start:end], before[row.row])
                assert torch.equal(got[number, :, end:], fresh[number, :, end - 5 :])


def test_a_full_cache_grows_and_keeps_what_it_holds() -> None:
    made = spread([kept(cache(0, 1, 3), 0)] * 2, [3, 3], length=3, room=3)
    layer: Any = made.layers[0]
    held = [layer.keys[:, :, :3].clone()]
    for _ in range(GROWTH + 2):
        step = torch.randn(2, 3, 1, 4)
        held.append(step)
        keys, _ = made.update(step, step, 0)
    assert torch.equal(keys, torch.cat(held, dim=2))
    made.batch_select_indices(torch.tensor([1]))
    keys, _ = made.update(step[:1], step[:1], 0)
    assert torch.equal(keys, torch.cat([*held, step[:1].expand(2, -1, -1, -1)], dim=2)[1:])


def test_caches_of_other_kinds_are_refused() -> None:
    sliding = DynamicCache()
    sliding.layers.append(DynamicSlidingWindowLayer(sliding_window=4))
    sliding.update(torch.randn(1, 1, 3, 2), torch.randn(1, 1, 3, 2), 0)
    with pytest.raises(TypeError, match="DynamicSlidingWindowLayer"):
        spread([kept(sliding, 0)], [3], length=3, room=4)
