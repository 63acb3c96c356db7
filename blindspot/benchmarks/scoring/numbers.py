"""Number words, as far as every harness reads them."""

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
