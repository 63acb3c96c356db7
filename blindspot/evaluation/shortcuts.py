"""How far words alone go: rules that see questions and options but no picture, learned on some questions of a test and
scored on the others.

Suffixes: ``q`` questions, ``o`` options of all questions one after the other, ``u`` distinct answers of a kind, ``k``
keys of a view.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from blindspot.benchmarks.rules import mean_relative_accuracy
from blindspot.question import Question

CHANCE, ANSWERS, OPTIONS, TEMPLATES, PLACES, WORDING, FOREST, MODEL = (
    "chance", "answers", "options", "templates", "places in templates", "wording", "forest", "model",
)  # fmt: skip
RULES = {
    ANSWERS: "the place (A, B, yes, no) or the answer that is right most often",
    OPTIONS: "the option whose text is right most often where it is offered",
    TEMPLATES: "the answer that is right most often in the question's template, its noun phrases and numbers masked",
    PLACES: "the place that is right most often in the question's template",
    WORDING: "the answer that is right most often where the same words are asked",
    FOREST: "a random forest on the question's words and how its options differ in length, size and words",
    MODEL: "the allowed answer that a language model finds likeliest, without a picture and without learning",
}
OPEN = ("count", "number", "text")
UNASKED = -2
"""What a language model says that was not asked; it counts as chance does."""
_PRIOR = 2.0
"""Questions' worth of belief in what holds for all answers, before a view of them has its say."""
_TREES, _LEAF, _DRAWN, _CLASSES = 30, 3, 3000, 50
"""Of a forest: trees, fewest questions in a leaf, questions a tree sees, answers of open questions it may give."""
_WORDS = re.compile(r"[a-z]+(?:[-'][a-z]+)*|\d+(?:\.\d+)?|[^\w\s]")
_DETERMINERS = re.compile(
    "a|an|the|this|that|these|those|his|her|its|their|my|your|our|each|every|any|some|no|another|other|many"
)
_ENDS = re.compile(
    "is|are|was|were|be|been|being|has|have|had|do|does|did|can|could|will|would|should|may|might|must|and|or|but|not"
    "|of|to|in|on|at|by|for|with|from|as|than|if|when|while|where|who|which|what|how|why|there|it|they|he|she|you|i"
    "|we|left|right|above|below|behind|front|under|over|near|far|close|closer|farther|nearest|closest|farthest|next"
    "|beside|between|inside|outside|within|top|bottom|side|middle|center|centre|corner|edge|facing|touching|away"
    "|toward|towards|into|onto|along|around|across|through|against|off|out|up|down|ahead|back|beneath|beyond|among"
    "|opposite|about|it's|contains|consists|surrounding|enclosed|connected|attached|detached|parallel|perpendicular"
    "|adjacent|part"
)


def template(text: str) -> str:
    """A question with its numbers and noun phrases (from a determiner to a word of place or grammar) masked."""
    found: list[str] = []
    inside = False
    for word in _WORDS.findall(text.lower()):
        ends = _ENDS.fullmatch(word) is not None or not word[0].isalnum()
        if word[0].isdigit():
            inside, word = False, "#"
        elif _DETERMINERS.fullmatch(word):
            inside, word = True, "_"
        elif inside and not ends:
            continue
        else:
            inside = False
        if word not in ("_", "#") or found[-1:] != [word]:
            found.append(word)
    return " ".join(found)


def codes(labels: Iterable[Hashable]) -> np.ndarray:
    """A number from 0 for each label, equal ones alike."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64)


def best_of(group_o: np.ndarray, value_o: np.ndarray) -> np.ndarray:
    """Where the largest value of each group lies; groups are numbered from 0 and none is empty."""
    order = np.lexsort((value_o, group_o))
    return order[np.flatnonzero(np.diff(group_o[order], append=-1))]


@dataclass(frozen=True)
class Block:
    """Questions of one kind, open ones of one task, as numbers.

    Attributes:
        rows: their places among all questions.
        gold: right answers: of what offers options the place of one, else the number of an answer.
        question_o, place_o: of each option, its question within the block and its place; none of open questions.
        keys: by view, of each option, or of each open question.
        value_uu: what saying one answer scores where another is right; None: 1 if they are the same, else 0.
        features: of each question; of lettered ones, of each option.
        class_o: of options that are no letters, the number of their text.
        numbers_u: answers as numbers, where they are scored so.
        said: what a language model answers, as ``gold``; -1: nothing that is right anywhere; `UNASKED`.
    """

    rows: np.ndarray
    gold: np.ndarray
    question_o: np.ndarray
    place_o: np.ndarray
    keys: dict[str, np.ndarray]
    features: np.ndarray
    class_o: np.ndarray | None = None
    value_uu: np.ndarray | None = None
    numbers_u: np.ndarray | None = None
    said: np.ndarray | None = None

    @property
    def closed(self) -> bool:
        """Whether answers are offered."""
        return len(self.question_o) > 0


class Shortcuts:
    """The rules, for the questions of a benchmark that they can answer.

    Args:
        questions: of the benchmark.
        forest: whether a random forest is among the rules.
        said: what a language model answers, by the questions' ids; None: none is asked.

    Attributes:
        questions: those.
        names: of the rules that differ here; the first row of `scores`, before them, is chance.
        open: which questions offer no answers: their chance is what the best constant answer of their task scores.
        gold: right answers as `scores` takes them.
    """

    def __init__(self, questions: Sequence[Question], forest: bool, said: Mapping[str, str] | None = None) -> None:
        self.questions = tuple(question for question in questions if _answerable(question))
        alike: dict[Hashable, list[int]] = {}
        for row, one in enumerate(self.questions):
            alike.setdefault((one.kind, one.groups.get("task") if one.kind in OPEN else None), []).append(row)
        self._blocks = [_block(np.array(rows), [self.questions[row] for row in rows], said) for rows in alike.values()]
        varied = any(len({self.questions[row].choices for row in rows}) > 1 for rows in alike.values())
        there = {OPTIONS: varied, PLACES: varied, FOREST: forest, MODEL: said is not None}
        self.names = [name for name in RULES if there.get(name, True)]
        self.open = any(not block.closed for block in self._blocks)
        self.gold = np.zeros(len(self.questions), dtype=np.int64)
        for block in self._blocks:
            self.gold[block.rows] = block.gold

    def permuted(self, rng: np.random.Generator) -> np.ndarray:
        """Right answers at random: any of the options of a question; of open questions those of all, shuffled."""
        gold = self.gold.copy()
        for block in self._blocks:
            if block.closed:
                gold[block.rows] = rng.integers(np.bincount(block.question_o))
            else:
                gold[block.rows] = rng.permutation(block.gold)
        return gold

    def scores(self, gold: np.ndarray, weight: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """What each rule scores at each question, learned on the other folds: ``(1 + rules, questions)``.

        Args:
            gold: the right answers.
            weight: of the questions in learning; with 0 a question is not there.
            fold: the fold of each.
            seed: of ties and of the forest.
        """
        found = np.zeros((1 + len(self.names), len(self.questions)))
        for block in self._blocks:
            own, w, f = gold[block.rows], weight[block.rows], fold[block.rows]
            said = _of_options if block.closed else _of_answers
            constant = None if block.closed else _of_answers(block, ANSWERS, own, w, seed)
            found[0, block.rows] = 1 / np.bincount(block.question_o) if constant is None else constant
            for number in np.unique(f[w > 0]):
                held = f == number
                learned = np.where(held, 0.0, w)
                plain = said(block, ANSWERS, own, learned, seed)
                for place, name in enumerate(self.names, start=1):
                    value = plain
                    if name == FOREST:
                        value = _of_forest(block, own, learned, held, seed)
                    elif name == MODEL:
                        value = np.where(block.said == UNASKED, found[0, block.rows], block.said == own)
                    elif name in block.keys and name != ANSWERS:
                        value = said(block, name, own, learned, seed)
                    found[place, block.rows[held]] = value[held]
        return found


def _answerable(question: Question) -> bool:
    if question.kind in OPEN:
        return question.kind != "number" or _number(question.answer) is not None
    offered = offers(question)
    return len(offered) > 1 and question.answer in (question.letters if question.kind == "mcq" else offered)


def offers(question: Question) -> tuple[str, ...]:
    """The answers that a question offers."""
    return question.choices or (("Yes", "No") if question.kind == "yes_no" else ())


def _number(text: str) -> float | None:
    try:
        value = float(text.split(" ")[0])
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _block(rows: np.ndarray, own: Sequence[Question], answers_of: Mapping[str, str] | None) -> Block:
    kind = own[0].kind

    def places(lists: Iterable[Sequence[str]]) -> np.ndarray:
        """Where in its list each answer of the language model is."""
        said = [(answers_of or {}).get(one.id) for one in own]
        both = zip(said, map(list, lists), strict=True)
        return np.array([UNASKED if a is None else few.index(a) if a in few else -1 for a, few in both])

    templates, wordings = [template(one.prompt) for one in own], [one.prompt.lower() for one in own]
    words = _question_features([one.prompt for one in own], templates)
    if kind in OPEN:
        answers = list(dict.fromkeys(one.answer for one in own))
        gold = np.array([answers.index(one.answer) for one in own])
        keys = {ANSWERS: np.zeros(len(own), dtype=np.int64), TEMPLATES: codes(templates), WORDING: codes(wordings)}
        empty, values, numbers = np.zeros(0, dtype=np.int64), None, None
        if kind == "number":
            numbers = np.array([_number(answer) or 0.0 for answer in answers])
            values = mean_relative_accuracy(numbers[:, None], numbers[None])
        return Block(rows, gold, empty, empty, keys, words, None, values, numbers, places([answers] * len(own)))
    offered = [offers(one) for one in own]
    question_o = [q for q, each in enumerate(offered) for _ in each]
    place_o = [place for each in offered for place in range(len(each))]
    texts, place_q = [text.lower() for each in offered for text in each], np.array(question_o)
    keys = {
        ANSWERS: codes((len(offered[q]), place) for q, place in zip(question_o, place_o, strict=True)),
        OPTIONS: codes(texts),
        TEMPLATES: codes((templates[q], text) for q, text in zip(question_o, texts, strict=True)),
        PLACES: codes((templates[q], place) for q, place in zip(question_o, place_o, strict=True)),
        WORDING: codes((wordings[q], text) for q, text in zip(question_o, texts, strict=True)),
    }
    allowed = [one.letters if kind == "mcq" else each for each, one in zip(offered, own, strict=True)]
    gold = np.array([each.index(one.answer) for each, one in zip(allowed, own, strict=True)])
    if kind == "mcq":
        words = np.hstack([words[place_q], _option_features(place_q, texts, wordings)])
    class_o = None if kind == "mcq" else keys[OPTIONS]
    return Block(rows, gold, place_q, np.array(place_o), keys, words, class_o, said=places(allowed))


def _of_options(block: Block, name: str, gold: np.ndarray, weight: np.ndarray, seed: int) -> np.ndarray:
    """1 where the option is right whose key was right most often among the questions with weight, else 0."""
    right_o, weight_o = block.place_o == gold[block.question_o], weight[block.question_o]
    rate_o = 1 / np.bincount(block.question_o)[block.question_o]
    for key_o in (block.keys[ANSWERS], block.keys[name])[: 1 + (name != ANSWERS)]:
        offered = np.bincount(key_o, weight_o)[key_o]
        rate_o = (np.bincount(key_o, weight_o * right_o)[key_o] + _PRIOR * rate_o) / (offered + _PRIOR)
    ties = np.random.default_rng(seed).random(len(rate_o)) * 1e-9
    return right_o[best_of(block.question_o, rate_o + ties)].astype(float)


def _of_answers(block: Block, name: str, gold: np.ndarray, weight: np.ndarray, seed: int) -> np.ndarray:
    """What the answer scores that scores most among the questions with weight and the same key."""
    key = block.keys[name]
    shape = int(key.max()) + 1, int(block.gold.max()) + 1
    known = csr_array((weight, (key, gold)), shape=shape)
    prior_u = np.bincount(gold, weight, shape[1]) / max(weight.sum(), 1e-9) * _PRIOR
    if block.value_uu is not None:
        said = np.asarray(known @ block.value_uu.T + prior_u @ block.value_uu.T).argmax(axis=1)[key]
        return block.value_uu[said, gold]
    most = int(prior_u.argmax())
    filled = known.tocoo()
    value = filled.data + prior_u[filled.col]
    place = best_of(filled.row, value)  # by key that occurs; all do, some without weight
    said_k = np.where(value[place] >= prior_u[most], filled.col[place], most)
    return (said_k[key] == gold).astype(float)


def _of_forest(block: Block, gold: np.ndarray, weight: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
    """What the answer scores that a random forest finds likeliest; of numbers, the one it expects."""
    from sklearn.ensemble import (  # pyright: ignore[reportMissingImports]
        RandomForestClassifier,
        RandomForestRegressor,
    )

    def learned(kind: Callable[..., Any], features: np.ndarray, target: np.ndarray, own: np.ndarray) -> Any:
        few = min(_DRAWN, int((own > 0).sum()))
        made = kind(_TREES, min_samples_leaf=_LEAF, max_features="sqrt", max_samples=few, random_state=seed)
        return made.fit(features[own > 0], target[own > 0], sample_weight=own[own > 0])

    value = np.zeros(len(gold))
    if not weight.any():
        return value
    if block.numbers_u is not None:
        sizes = np.log1p(np.abs(block.numbers_u))[gold]
        said = np.expm1(learned(RandomForestRegressor, block.features, sizes, weight).predict(block.features[held]))
        value[held] = mean_relative_accuracy(said, block.numbers_u[gold[held]])
    elif block.closed and block.class_o is None:
        right_o, held_o = block.place_o == gold[block.question_o], held[block.question_o]
        forest = learned(RandomForestClassifier, block.features, right_o, weight[block.question_o])
        likely_o = np.zeros(len(right_o))
        if len(forest.classes_) > 1:
            likely_o[held_o] = forest.predict_proba(block.features[held_o])[:, 1]
        likely_o += np.random.default_rng(seed).random(len(right_o)) * 1e-9
        value = right_o[best_of(block.question_o, likely_o)].astype(float)
    else:
        target, class_o = gold, block.class_o
        if class_o is not None:
            target = class_o[best_of(block.question_o, block.place_o == gold[block.question_o])]
        kept = np.isin(target, [label for label, _ in Counter(target[weight > 0].tolist()).most_common(_CLASSES)])
        forest = learned(RandomForestClassifier, block.features, target, weight * kept)
        likely = forest.predict_proba(block.features[held])
        if class_o is not None:
            allowed = np.zeros((len(gold), int(class_o.max()) + 1), dtype=bool)
            allowed[block.question_o, class_o] = True
            likely = np.where(allowed[held][:, forest.classes_], likely, -1)
        value[held] = forest.classes_[likely.argmax(axis=1)] == target[held]
    return value


def _bag(texts: Sequence[str], most: int) -> np.ndarray:
    """Which words are in each text, of those that most texts hold and at least one in a hundred."""
    held = [set(_WORDS.findall(text.lower())) for text in texts]
    counts = Counter(word for words in held for word in sorted(words))
    kept = [word for word, count in counts.most_common(most) if len(texts) / 100 <= count < len(texts)]
    return np.array([[word in words for word in kept] for words in held], dtype=np.float32).reshape(len(texts), -1)


def _question_features(texts: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Common words, length, the first number, and how many questions have the template."""
    found = [re.search(r"\d+(?:\.\d+)?", text) for text in texts]
    numbers = [min(float(one[0]), 1e9) if one else -1.0 for one in found]
    counts = Counter(templates)
    own = [[len(text), number, counts[each]] for text, number, each in zip(texts, numbers, templates, strict=True)]
    return np.hstack([_bag(texts, 150), np.array(own, dtype=np.float32)])


def _option_features(question_o: np.ndarray, texts: Sequence[str], wordings: Sequence[str]) -> np.ndarray:
    """Place, common words, how often a text is offered, and its length, number and words beside the other options'."""
    counts, found = Counter(texts), []
    edges = [*np.flatnonzero(np.diff(question_o, prepend=-1)).tolist(), len(question_o)]
    for start, stop in pairwise(edges):
        own = texts[start:stop]
        words = [set(_WORDS.findall(text)) for text in own]
        asked = set(_WORDS.findall(wordings[int(question_o[start])]))
        numbers = [re.search(r"-?\d+(?:\.\d+)?", text) for text in own]
        sizes = [float(one[0]) if one else float("nan") for one in numbers]
        for place, text in enumerate(own):
            others = [each for other, each in enumerate(words) if other != place]
            alike = [len(words[place] & each) / max(len(words[place] | each), 1) for each in others]
            longer = sum(len(text) > len(other) for other in own)
            larger = sum(sizes[place] > other for other in sizes)
            row = [place, len(own), counts[text], len(text), longer, larger, float(np.mean(alike)), max(alike)]
            found.append([*row, len(words[place] & asked)])
    return np.hstack([_bag(texts, 50), np.array(found, dtype=np.float32)])
