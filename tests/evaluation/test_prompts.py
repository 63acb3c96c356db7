"""Prompt profiles against the texts that the harnesses send, and what holds for every profile and benchmark."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.benchmarks.registry import SETS
from blindspot.benchmarks.rules import LATER, LMMS_EVAL, OFFICIAL
from blindspot.errors import UserError
from blindspot.evaluation.adapters import ADAPTERS
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.prompts import PROFILES, pictures_inside, profile, without_pictures
from blindspot.question import Question

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
COLUMN = "How many chairs are there? Select from the following choices.\n(A) 2\n(B) 3"
CHINESE = "图中的人物是谁"

QUESTIONS = {
    "mmvp": Question("1", "mmvp", "mcq", "Are the eyes open?", "A", ("Open", "Closed"), (0,)),
    "cvbench_2d": Question("1", "cvbench_2d", "mcq", "How many chairs?", "B", ("2", "3"), (0,), {"prompt": COLUMN}),
    "tallyqa": Question("1", "tallyqa", "count", "How many dogs?", "3", (), (0,)),
    "gqa": Question("1", "gqa", "text", "Who is left of the car?", "man", (), (0,)),
    "vsr": Question("1", "vsr", "yes_no", "The cat is under the bed. Yes or No?", "Yes", ("Yes", "No"), (0,)),
    "topviewrs": Question("1", "topviewrs", "mcq", "Where is the bed?", "A", ("top left", "right"), (0,)),
    "countbenchqa": Question("1", "countbenchqa", "count", "How many cats?", "3", (), (0,)),
    "mmmu_val": Question("1", "mmmu_val", "mcq", "Is <image 1> or <image 2> red?", "A", ("one", "two"), (0, 1)),
    "mme": Question("1", "mme", "yes_no", "Is it red? Please answer yes or no.", "Yes", ("Yes", "No"), (0,)),
    "ccbench": Question("1", "ccbench", "mcq", CHINESE, "A", ("李白", "杜甫"), (0,)),
    "seedbench_img": Question("1", "seedbench_img", "mcq", "What is it?", "A", ("dog", "cat"), (0,)),
    "nlvr": Question("1", "nlvr", "yes_no", "A tower is blue. True?", "Yes", ("Yes", "No"), (0,)),
}
OPEN = Question("2", "mmmu_val", "text", "How much is <image 1>?", "24", (), (0,))


def ask(name: str, question: Question) -> Prompt:
    return profile(name)(question)


def text(name: str, question: Question) -> str:
    prompt = ask(name, question)
    return str(replace(prompt, whole=True))


def data_set(question: str, *options: str) -> str:
    lines = "".join(f"{letter}. {option}\n" for letter, option in zip("AB", options, strict=True))
    return f"Question: {question}\nOptions:\n{lines}Please select the correct answer from the options above. \n"


# --- paper: what VLMEvalKit's LLaVA adapter sent


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        ("mmvp", f"Are the eyes open?\nA. Open\nB. Closed\n{LETTER}"),
        ("cvbench_2d", f"How many chairs?\nA. 2\nB. 3\n{LETTER}"),
        ("tallyqa", "How many dogs?\nAnswer the question using a single number."),
        ("gqa", f"Who is left of the car?\n{SHORT}"),
        ("vsr", "The cat is under the bed. Yes or No?"),
        ("topviewrs", f"Where is the bed?\nA. top left\nB. right\n{LETTER}"),
        (
            "countbenchqa",
            "How many cats? Note that: answer with a number directly e.g. 3. Do not include any additional text.",
        ),
        ("mme", "Is it red? Please answer yes or no."),
        ("ccbench", f"{CHINESE}\nA. 李白\nB. 杜甫\n请直接回答选项字母。"),
        ("seedbench_img", f"What is it?\nA. dog\nB. cat\n{LETTER}"),
    ],
)
def test_paper_is_what_the_adapter_sent(benchmark: str, said: str) -> None:
    prompt = ask("paper", QUESTIONS[benchmark])
    assert str(prompt) == f"{SYSTEM}USER:  <image> {said} ASSISTANT: "
    assert prompt.longest == 2048


def test_paper_puts_the_pictures_of_mmmu_in_front_and_keeps_their_names() -> None:
    said = f"Is <image 1> or <image 2> red?\nA. one\nB. two\n{LETTER}"
    assert text("paper", QUESTIONS["mmmu_val"]) == f"{SYSTEM}USER:  <image>  <image> {said} ASSISTANT: "
    said = "How much is <image 1>?\nAnswer the question directly."
    assert text("paper", OPEN) == f"{SYSTEM}USER:  <image> {said} ASSISTANT: "


# --- llava: its own scripts


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        ("gqa", f"Who is left of the car?\n{SHORT}"),
        ("tallyqa", f"How many dogs?\n{SHORT}"),
        ("mme", f"Is it red?\n{SHORT}"),
        ("mmvp", f"Are the eyes open?\nA. Open\nB. Closed\n{LETTER}"),
        ("ccbench", f"{CHINESE}\nA. 李白\nB. 杜甫\n请直接回答选项字母。"),
    ],
)
def test_llava_asks_for_a_letter_or_a_word(benchmark: str, said: str) -> None:
    assert ask("llava", QUESTIONS[benchmark]) == Prompt((PICTURE, said), longest=128)


def test_plain_adds_nothing() -> None:
    assert ask("plain", QUESTIONS["gqa"]).content == (PICTURE, "Who is left of the car?")
    assert ask("plain", QUESTIONS["mmvp"]).content == (PICTURE, "Are the eyes open?\nA. Open\nB. Closed")
    assert ask("plain", QUESTIONS["vsr"]).content == (PICTURE, QUESTIONS["vsr"].prompt)


# --- each family's own


def test_llava_next_sends_the_llava_adapters_text() -> None:
    assert ask("llava_next", QUESTIONS["mmvp"]).content == (
        PICTURE,
        f"Are the eyes open?\nA. Open\nB. Closed\n{LETTER}",
    )
    assert ask("llava_next", QUESTIONS["gqa"]).content == (PICTURE, f"Who is left of the car?\n{SHORT}")
    assert ask("llava_next", QUESTIONS["mmmu_val"]).content[:2] == (PICTURE, PICTURE)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "gemma3"])
def test_models_without_a_prompt_of_their_own_get_the_data_sets(name: str) -> None:
    assert ask(name, QUESTIONS["mmvp"]).content == (PICTURE, data_set("Are the eyes open?", "Open", "Closed"))
    assert ask(name, QUESTIONS["cvbench_2d"]).content == (PICTURE, COLUMN)
    assert ask(name, QUESTIONS["tallyqa"]).content[1] == "How many dogs?\nAnswer the question using a single number."
    assert ask(name, QUESTIONS["mme"]).content[1] == "Is it red? Please answer yes or no."
    options = " red?\nOptions:\nA. one\nB. two\nPlease select the correct answer from the options above. \n"
    assert ask(name, QUESTIONS["mmmu_val"]).content == ("Question: Is ", PICTURE, " or ", PICTURE, options)
    assert ask(name, OPEN).content == ("Question: How much is ", PICTURE, "?\n")


def test_cvbench_is_asked_in_its_own_words_if_they_fit_its_options() -> None:
    published = QUESTIONS["cvbench_2d"]
    without = replace(published, groups={})
    swapped = replace(published, choices=("3", "2"), answer="A")
    made = "How many chairs? Select from the following choices."
    assert text("qwen2_5_vl", without) == f"<image>{made}\n(A) 2\n(B) 3"
    assert text("qwen2_5_vl", swapped) == f"<image>{made}\n(A) 3\n(B) 2"


def test_gemma_has_a_system_text_and_room() -> None:
    prompt = ask("gemma3", QUESTIONS["gqa"])
    assert (prompt.system, prompt.longest) == ("You are a helpful assistant. ", 4096)
    assert ask("qwen2_5_vl", QUESTIONS["gqa"]).system is None


def test_paligemma_gets_the_first_picture_and_no_task_prefix() -> None:
    assert ask("paligemma", QUESTIONS["gqa"]) == Prompt((PICTURE, f"Who is left of the car?\n{SHORT}"), longest=512)
    pictures, said = ask("paligemma", QUESTIONS["mmmu_val"]).content
    assert pictures == PICTURE
    assert said.startswith("Question: Is \n or \n red?\nOptions:\nA. one\nB. two\nPlease select")


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        ("mmvp", "a_okvqa_mc: Are the eyes open?\nA: Open\nB: Closed"),
        ("cvbench_2d", "a_okvqa_mc: How many chairs?\nA: 2\nB: 3"),
        ("gqa", "vqa2: Who is left of the car?"),
        ("tallyqa", "vqa2: How many dogs?"),
        ("countbenchqa", "vqa2: How many cats?"),
        ("vsr", "vqa2: The cat is under the bed. Yes or No?"),
        ("mmmu_val", "a_okvqa_mc: Is \n or \n red?\nA: one\nB: two"),
    ],
)
def test_molmo_gets_a_style_prefix(benchmark: str, said: str) -> None:
    assert ask("molmo", QUESTIONS[benchmark]) == Prompt((PICTURE, said), longest=200)
    assert ask("molmo", OPEN).content == (PICTURE, "vqa2: How much is \n?")


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        (
            "mmvp",
            "User:<image>Question: Are the eyes open?\nOptions:\nA. Open\nB. Closed\n"
            "Please select the correct answer from the options above.<end_of_utterance>\nAssistant:",
        ),
        ("gqa", f"User:<image>Who is left of the car?\n{SHORT}<end_of_utterance>\nAssistant:"),
        ("cvbench_2d", f"User:<image>{COLUMN}<end_of_utterance>\nAssistant:"),
        (
            "mme",
            "User:<image>Is it red? Please answer yes or no.\nGive a very brief answer.<end_of_utterance>\nAssistant:",
        ),
        (
            "seedbench_img",
            "User:<image>Question: What is it?\nChoices:\nA. dog\nB. cat\nAnswer with the letter."
            "<end_of_utterance>\nAssistant: Answer:",
        ),
        (
            "ccbench",
            f"User:<image>Question: {CHINESE}\nChoices:\nA. 李白\nB. 杜甫\nAnswer with a letter."
            "<end_of_utterance>\nAssistant: Answer:",
        ),
        (
            "mmmu_val",
            "User: Question: <image 1>:<image>\n<image 2>:<image>\nIs <image 1> or <image 2> red?\nChoices:\n"
            "A. one\nB. two\nAnswer with the letter.<end_of_utterance>\nAssistant: Answer:",
        ),
    ],
)
def test_smolvlm_has_strings_of_its_own(benchmark: str, said: str) -> None:
    assert text("smolvlm", QUESTIONS[benchmark]) == f"<|im_start|>{said}"


def test_smolvlm_answers_open_questions_of_mmmu_without_a_lead() -> None:
    said = "User: Question: <image 1>:<image>\nHow much is <image 1> ?<end_of_utterance>\nAssistant:"
    assert text("smolvlm", OPEN) == f"<|im_start|>{said}"


# --- what holds for all


def test_every_family_has_a_profile_and_unknown_names_are_said() -> None:
    assert {family.prompts for family in ADAPTERS.values()} <= set(PROFILES)
    assert {family.name for family in ADAPTERS.values()} - set(PROFILES) == {"generic"}
    with pytest.raises(UserError, match='did you mean "paligemma"'):
        profile("paligema")


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Of any of the paper's benchmarks, with odd texts and any number of pictures."""
    benchmark = draw(st.sampled_from([*SETS["paper"], "nlvr"]))
    kind: Any = draw(st.sampled_from(["mcq", "yes_no", "count", "text"]))
    words = st.text(st.sampled_from("ab .?\n<>图"), max_size=12)
    marked = st.sampled_from(["<image>", "<image 1>", "<image 2>", "A.", "B.", "Question:", "\nOptions:"])
    said = st.lists(words | marked, max_size=6).map("".join)
    choices = tuple(draw(st.lists(said, min_size=1, max_size=4))) if kind == "mcq" else ()
    pictures = tuple(range(draw(st.integers(0, 3))))
    return Question("1", benchmark, kind, draw(said), "A", choices, pictures)


@settings(max_examples=50)
@given(questions())
def test_every_profile_marks_the_pictures_and_nothing_else(question: Question) -> None:
    for name in set(PROFILES) - {LATER, LMMS_EVAL, OFFICIAL}:  # harnesses word their own benchmarks alone
        prompt = ask(name, question)
        pictures = len(question.images) if name not in ("paligemma", "molmo") else min(1, len(question.images))
        assert prompt.pictures == pictures, name


@settings(max_examples=50)
@given(questions())
def test_every_profile_says_the_question_and_its_options(question: Question) -> None:
    for name in ("llava_next", "qwen2_5_vl", "paper", "plain"):
        if question.benchmark != "mmmu_val":
            assert question.prompt in text(name, question)
            assert all(choice in text(name, question) for choice in question.choices)


@settings(max_examples=50)
@given(st.lists(st.text("xy\n ", max_size=5), min_size=1, max_size=4))
def test_pictures_stand_where_their_names_stood(words: list[str]) -> None:
    pictures = len(words) - 1
    said = words[0] + "".join(f"<image {number + 1}>{after}" for number, after in enumerate(words[1:]))
    content = pictures_inside(pictures, said)
    assert content.count(PICTURE) == pictures
    assert str(Prompt(content, whole=True)) == "<image>".join(words)
    assert without_pictures(said) == "\n".join(words)
    backwards = "".join(f"<image {number}>" for number in range(pictures, 0, -1))
    if pictures > 1:
        assert pictures_inside(pictures, backwards) == (*(PICTURE,) * pictures, backwards)
