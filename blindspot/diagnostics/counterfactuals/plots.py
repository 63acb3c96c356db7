"""What answers follow: content, position ids of the language model, or positions of the encoder."""

from collections.abc import Iterator, Sequence
from typing import NotRequired

import numpy as np

from blindspot.diagnostics.base import SHOWN, Number, Pictures, Row, Tables, columns
from blindspot.diagnostics.figures import distinct, examples, guesses, having, listed, mean, percent, percent_span
from blindspot.plots import GREY, HUES, INK, LIGHT, NONE, Bar, Bars, Figure, Heat, Key, Note, Series, matrix

_ARRANGED = {"content": str, "ids": str, "encoder": str}
ROWS = {
    "shares": columns(factor=str, move=str, unchanged=Number, other=Number, elsewhere=Number, asked=NotRequired[int]),
    "factorial": columns(**_ARRANGED, **{"by ids": Number, "by encoder": Number}),
    "flips": columns(**_ARRANGED, **SHOWN),
}
POOLED = "mirrored or flipped"
CHANCE = 0.25
IN_PART = 0.1
"""Share of answers from which on they are said to follow something in part."""
_NAMES = {"content": "the picture's content", "language ids": "language-model ids",
          "order of tokens": "the order of tokens"}  # fmt: skip
_OUTCOMES = {"follows": HUES[0], "unchanged": LIGHT, "other": HUES[4]}
_CHANGED = {"content": ("content",), "language ids": ("ids",), "encoder positions": ("encoder",),
            "all three": ("content", "ids", "encoder")}  # fmt: skip
_MOST_EXAMPLES = 4


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    if "shares" in tables:
        yield _shares(tables["shares"].rows)
    if "factorial" in tables:
        yield _factorial(tables["factorial"].rows)
    if "flips" in tables and "examples" in pictures:
        yield _flips(tables["flips"].rows, pictures["examples"])


def _shares(rows: Sequence[Row]) -> Figure:
    pooled = {str(row["factor"]): row for row in having(rows, move=POOLED)}
    title, said = _point(pooled)
    subtitle = (
        "One factor is moved, the others stay. Left: what becomes of answers when it is mirrored (left, right) or "
        "flipped (above, below), with the 95 % interval of those that follow. Right: percent that follow, by "
        "move."
    )
    bars, marks, notes = [], [], []
    for place, row in enumerate(pooled.values()):
        start = 0.0
        for outcome, colour in _OUTCOMES.items():
            share = row["value" if outcome == "follows" else outcome]
            if share is not None:
                bars.append(Bar(place, 100 * share, colour=colour, start=start, written=False))
                start += 100 * share
        if row["low"] is not None and row["value"] is not None:
            marks.append(Series([100 * row["low"], 100 * row["high"]], [place, place], INK, width=1.4))
            marks.append(Series([100 * row["value"]], [place], INK, mark="|", size=10, width=1.6))
        else:
            notes.append(Note("nothing to follow", 1, place, colour=GREY))
    left = Bars(names=list(pooled), bars=bars, series=marks, notes=notes, x_limits=(0, 100),
                x_label="percent of answers")  # fmt: skip
    moves = [move for move in distinct(rows, "move") if move != POOLED]
    values = {(str(row["factor"]), str(row["move"])): row["value"] for row in rows}
    shown = matrix([values.get((factor, move)) for move in moves] for factor in pooled)
    right = Heat(values_hw=shown, names=list(pooled), columns=moves, title="follow, percent", title_size=9.5)
    legend = [Key(label, colour, NONE) for label, colour in _OUTCOMES.items()]
    return Figure("follow", title, subtitle, [[left, right]], rows, 1.15 + 0.42 * len(pooled), widths=(1.35, 1),
                  legend=legend, says=said)  # fmt: skip


def _point(pooled: dict[str, Row]) -> tuple[str, tuple[str, ...]]:
    """The title and the sentence of the lead; a model that guesses is told as such."""
    for row in pooled.values():
        if row["n"] is not None and row.get("asked"):
            if guesses(row["n"], row["asked"], CHANCE):
                title = (f"As drawn, {percent(row['n'] / row['asked'])} are answered right, no better than guessing: "
                         "there is little that answers could follow")  # fmt: skip
                return title, (f"{title}.",)
            break
    asked = {_NAMES.get(factor, factor): row for factor, row in pooled.items() if row["value"] is not None}
    if not asked:
        return "Nothing is answered right as drawn, so there is nothing that answers could follow", ()
    yes, in_part, no = (
        [f"{name} ({percent(row['value'])})" for name, row in asked.items() if low <= row["value"] < high]
        for low, high in ((0.5, 2), (IN_PART, 0.5), (-1, IN_PART))
    )
    parts = [listed(yes)] * bool(yes) + [f"in part {listed(in_part)}"] * bool(in_part)
    title = f"Answers follow {', '.join(parts)}" if parts else f"Answers do not follow {listed(no)}"
    title += f", not {listed(no)}" if parts and no else ""
    spans = listed([f"{name} in {percent_span(row)}" for name, row in asked.items()])
    return title, (f"When only one thing is mirrored or flipped, answers follow {spans}.",)


def _factorial(rows: Sequence[Row]) -> Figure:
    contents, ids, encoders = (distinct(rows, key) for key in ("content", "ids", "encoder"))
    values = {(str(row["content"]), str(row["ids"]), str(row["encoder"])): row["value"] for row in rows}
    asked = {encoder: sum((c, i, encoder) in values for c in contents for i in ids) for encoder in encoders}
    crossed = [encoder for encoder in encoders if asked[encoder] > len(contents)] or encoders[:1]
    means = {encoder: mean(row["value"] for row in having(rows, encoder=encoder)) for encoder in crossed}
    by_ids = [mean(values.get((content, name, "original")) for content in contents) for name in ids]
    usual = [share for share in by_ids if share is not None]
    said = {"original": "as they are", "zero": "taken away"}
    title = "Right by the picture: " + ", ".join(
        f"{percent(share)} with encoder positions {said.get(encoder, encoder)}" for encoder, share in means.items()
    )
    if len(usual) > 1:
        spread = f"from {percent(min(usual)).removesuffix(' %')} to {percent(max(usual))}"
        title += f"; {spread} over sets of language ids" if max(usual) > min(usual) else "; language ids change nothing"
    subtitle = (
        "Percent answered as the picture says, for every content (rows), set of language-model ids (columns) and "
        "encoder positions (panels). Dash: not asked. Chance: 25."
    )
    panels = [
        Heat(values_hw=matrix([values.get((content, name, encoder)) for name in ids] for content in contents),
             names=contents, columns=ids, x_turn=35, tick_size=8, title_size=9.5,
             title=f"encoder positions {said.get(encoder, encoder)}")
        for encoder in crossed
    ]  # fmt: skip
    return Figure("factorial", title, subtitle, [panels], rows, 0.95 + 0.27 * len(contents))


def _flips(rows: Sequence[Row], images: np.ndarray) -> Figure:
    pictures = list(dict.fromkeys(row["picture"] for row in rows))
    chosen = np.linspace(0, len(pictures) - 1, min(len(pictures), _MOST_EXAMPLES)).round().astype(int)
    moved: list[tuple[str, Row, dict[str, Row]]] = []
    for picture in (pictures[at] for at in chosen):
        own = {(row["content"], row["ids"], row["encoder"]): row for row in having(rows, picture=picture)}
        drawn = own["original", "original", "original"]
        turned = (name for name in ("mirrored", "flipped") if (name, "original", "original") in own)
        move = next((m for m in turned if own[m, "original", "original"]["right"] != drawn["right"]), "mirrored")
        line = {}
        for factor, parts in _CHANGED.items():
            content, ids, encoder = (move if part in parts else "original" for part in _ARRANGED)
            if (content, ids, encoder) in own:
                line[factor] = own[content, ids, encoder]
        moved.append((move, drawn, line))
    factors = [factor for factor in _CHANGED if any(factor in line for _, _, line in moved)]
    changes = [
        f"{sum(line[factor]['answer'] != drawn['answer'] for _, drawn, line in moved if factor in line)} with {factor}"
        for factor in factors
    ]
    title = f"Of {len(moved)} example answers change {listed(changes)} moved" if factors else "Example answers"
    subtitle = (
        "The picture, the model's answer and whether the picture makes it right. Only moved content changes the "
        "picture; moved ids and positions change where its parts are said to be."
    )
    lines = [
        (f"{drawn['prompt']}; moved: {move}", [drawn, *(line.get(f) for f in factors)]) for move, drawn, line in moved
    ]
    panels, height = examples(["as drawn", *(f"{factor}\nmoved" for factor in factors)], lines, images)
    behind = [row for _, drawn, line in moved for row in (drawn, *line.values())]
    return Figure("flips", title, subtitle, panels, behind, height)
