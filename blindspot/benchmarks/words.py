"""The words in which harnesses ask the questions of several benchmarks: facts of VLMEvalKit, EASI and lmms-eval."""

from blindspot.question import Question

LETTER = "\nAnswer with the option's letter from the given choices directly."
POINTS_AS_JSON = (
    'Output the point coordinates in JSON format.\nFor example:\n[\n  {"point_2d": [x, y], "label": "point_1"}\n]\n'
)


def listed(question: Question, behind: str = ".", between: str = "\n", before: str = "") -> str:
    """Its options, one a line: ``A. left``."""
    pairs = zip(question.letters, question.choices, strict=True)
    return between.join(f"{before}{letter}{behind} {text}" for letter, text in pairs)


def published(question: Question, listing: str) -> str:
    """The text that a data set publishes; where its options are not the question's, as when they are swapped, the
    question with its own listed as there."""
    lines = listed(question, ")", between="", before="\n(")
    said = str(question.groups.get("prompt", ""))
    return said if said.endswith(lines) and lines else question.prompt + listing + lines


def said_by_note(question: Question, text: str) -> str:
    """lmms-eval's note, and the question behind it."""
    letters = ", ".join(question.letters)
    return f"Note: You only need to respond with {letters} without providing any additional information.\n{text}"


def selected(question: Question) -> str:
    """VLMEvalKit's usual words around a multiple choice."""
    asked = "Please select the correct answer from the options above. \n"
    return f"Question: {question.prompt}\nOptions:\n{listed(question)}\n{asked}"


def best_answer(question: Question) -> str:
    """EASI's, of EmbSpatial-Bench and SITE-Bench."""
    options = listed(question, ":")
    return f"Question: {question.prompt}\nOptions:\n{options}\nGive me the answer letter directly. The best answer is:"
