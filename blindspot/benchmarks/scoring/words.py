"""Words of answers: number words, as far as every harness reads them, and the words that two texts share."""

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)

UP_TO_TWENTY = {word: number for number, word in enumerate(_WORDS.split())}


def as_numeral(text: str) -> str:
    """The digits of a number word up to twenty ("none" is 0), or the text itself, trimmed and in lower case."""
    word = text.strip().lower()
    number = 0 if word == "none" else UP_TO_TWENTY.get(word)
    return word if number is None else str(number)


def overlap(one: str, other: str) -> float:
    """Words in common by the larger number of words: TopViewRS's partial match. Case does not matter."""
    a, b = set(one.lower().split()), set(other.lower().split())
    return len(a & b) / max(len(a), len(b), 1)
