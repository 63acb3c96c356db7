"""Each benchmark's own script, or what stands for it.

Where the authors publish no script for free text, or one that needs a language model as a judge:

- MMVP: its grader asks GPT-4. Scored as in Cambrian-1 by the same group: an option's letter or its whole text.
- CV-Bench (Cambrian-1): the first character, behind "answer is" if that occurs.
- VSR and NLVR: their scripts read a classifier. The first word must be true or yes, false or no.
- TopViewRS: no script. The option is read as VLMEvalKit does; partial match compares that option with the gold one.
- TallyQA, CountBenchQA: the PaliGemma evaluator of the latter's authors: a number word becomes digits, then equality.
- GQA: exact equality after LLaVA's converter, which takes off final full stops and capitals.
- SEED-Bench: its script ranks option likelihoods (profile ``likelihood``). For text, LLaVA's: the letter and no more.
- CCBench: its authors' evaluation is VLMEvalKit.

MMMU's published predictions (``total_val_output.json``, with ``answer_dict_val.json``) are parsed already; as rows
they are ``{"benchmark": "mmmu_val", "kind": "mcq", "choices": [...], "answer": ground_truth, "raw": prediction}``, or
``"kind": "text"`` where ``question_type`` is ``short-answer``.
"""

from blindspot.benchmarks.scoring import mmmu
from blindspot.benchmarks.scoring.base import Profile, Scored
from blindspot.benchmarks.scoring.boxes import boxes
from blindspot.benchmarks.scoring.rows import Item
from blindspot.benchmarks.scoring.vlmevalkit import option
from blindspot.benchmarks.scoring.words import as_numeral, overlap

_CUES = ("answer is", "answer:")
_TRUTH = {"true": "Yes", "yes": "Yes", "false": "No", "no": "No"}
_MMMU_MARKS = (mmmu.BRACKETS, mmmu.WORD)


def _behind_cue(raw: str) -> str:
    text = raw.lower().strip()
    for cue in _CUES:
        text = text.rpartition(cue)[2]
    return text.strip()


def _mmvp(item: Item) -> Scored:
    answer = _behind_cue(item.raw).rstrip(".:,").lstrip("(").rstrip(")")
    # The gold option first, as the harness compares with no other: an option may read "a".
    order = (item.gold, *item.choices) if answer else ()
    letter = next((each for each in order if answer in (each.lower(), item.choices[each].lower())), None)
    return Scored(letter, float(letter == item.gold), letter is not None)


def _cvbench(item: Item) -> Scored:
    letter = _behind_cue(item.raw).rstrip(".").lstrip("(").rstrip(")")[:1].upper()
    return Scored(letter or None, float(letter == item.gold), letter in item.choices)


def _true_or_false(item: Item) -> Scored:
    words = item.raw.split(maxsplit=1)
    said = _TRUTH.get(words[0].strip(".,;:!\"'").lower()) if words else None
    return Scored(said, float(said == item.gold), said is not None)


def _topviewrs(item: Item) -> Scored:
    letter = option(item.raw, item.choices)
    if letter is None or letter not in item.choices:
        return Scored(None, 0.0, False, partial=0.0)
    match = overlap(item.choices[letter], item.choices[item.gold])
    return Scored(letter, float(letter == item.gold), True, partial=match)


def _count(item: Item) -> Scored:
    answer = as_numeral(item.raw)
    return Scored(answer, float(answer == item.gold), answer.isdecimal())


def _gqa(item: Item) -> Scored:
    answer = item.raw.strip().rstrip(".").lower()
    return Scored(answer, float(answer == item.gold), bool(answer))


def _mmmu(item: Item) -> Scored:
    if item.kind == "text":
        return mmmu.open_answer(item, mmmu.golds(item))
    letter = mmmu.choose(item.raw, item.choices, _MMMU_MARKS)
    if letter is None:
        return Scored(None, 0.0, False, guess=1 / len(item.choices))
    return Scored(letter, float(letter == item.gold), True)


def _mme(item: Item) -> Scored:
    start = item.raw.lower()[:4]
    said = "yes" if "yes" in start else "no" if "no" in start else "other"
    return Scored(said, float(said == item.gold.lower()), said != "other")


def _ccbench(item: Item) -> Scored:
    letter = option(item.raw, item.choices)
    return Scored(letter, float(letter == item.gold), letter in item.choices)


def _seedbench(item: Item) -> Scored:
    answer = item.raw.strip()
    return Scored(answer, float(answer == item.gold), answer in item.choices)


OFFICIAL = Profile(
    "official",
    {
        "mmvp": _mmvp,
        "cvbench_2d": _cvbench,
        "tallyqa": _count,
        "gqa": _gqa,
        "vsr": _true_or_false,
        "topviewrs": _topviewrs,
        "countbenchqa": _count,
        "mmmu_val": _mmmu,
        "mme": _mme,
        "ccbench": _ccbench,
        "seedbench_img": _seedbench,
        "nlvr": _true_or_false,
        "coco_boxes": boxes,
    },
)
